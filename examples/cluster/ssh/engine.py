"""An sshd on each of the three nodes, and ssh and GNU parallel on the head."""

import os
import subprocess
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from nodes import HOME, TOOL, sh, until  # noqa: E402

SERVER = """\
HostKey {ssh}/host
AuthorizedKeysFile {ssh}/client.pub
StrictModes no
UsePAM no
PidFile none
PermitRootLogin yes
MaxStartups 1000
# Without these a server does not notice that the link to its client was cut.
ClientAliveInterval 1
ClientAliveCountMax 2
SetEnv PATH={home}/bin:/usr/local/bin:/usr/bin:/bin
"""

CLIENT = """\
IdentityFile {ssh}/client
UserKnownHostsFile {ssh}/known
StrictHostKeyChecking no
LogLevel ERROR
"""


def ours(above=""):
    """The tool, as a command on the head begins with it."""
    return [TOOL, "run", "-q", "-k", "1", f"--die-with-parent{above}", "--"]


# Behind ssh: with sshd's process, whatever stands between. GNU parallel has a program there that sees its end late, or never.
FAR = " ".join(map(str, ours("=session"))) + " "


class Ssh:
    def __init__(self, cluster):
        self.head, self.nodes = cluster.head, cluster.nodes
        self.dir = HOME / "ssh"
        self.config = self.dir / "config"
        # Its own files are not root's; a file `config` there would be options.
        self.environment = {"PARALLEL": "--will-cite", "PARALLEL_HOME": str(HOME / "parallel")}

    def __enter__(self):
        self.dir.mkdir(mode=0o700)
        for key in ("host", "client"):
            sh("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", self.dir / key)
        names = {"ssh": self.dir, "home": HOME}
        (self.dir / "sshd_config").write_text(SERVER.format(**names))
        self.config.write_text(CLIENT.format(**names))
        # In the mount namespace of this run alone: a server wants a directory there, and the user has a shell without files
        # of its own: what these start would be run before each command, and killed with it.
        sh("mount", "-t", "tmpfs", "-o", "mode=755", "none", "/run")
        os.mkdir("/run/sshd", 0o755)
        root = f"root:x:0:0:root:{HOME}:/bin/sh"
        others = [line for line in Path("/etc/passwd").read_text().splitlines() if not line.startswith("root:")]
        (HOME / "passwd").write_text("\n".join([root, *others, ""]))
        sh("mount", "--bind", HOME / "passwd", "/etc/passwd")
        for node in self.nodes:
            node.daemon(["/usr/sbin/sshd", "-D", "-e", "-f", self.dir / "sshd_config"], HOME / f"log/{node.name}.sshd")
            answers = until(lambda node=node: self.ssh(node, "true").wait() == 0)
            assert answers, (HOME / f"log/{node.name}.sshd").read_text()
        return self

    def __exit__(self, *_):
        for node in self.nodes:
            node.wipe()

    def ssh(self, node, line):
        quiet = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.DEVNULL)
        return self.head.popen(["ssh", "-F", self.config, node.name, line], **quiet)

    def parallel(self, nodes, *words, held=False, **options):
        """GNU parallel on the head, with commands on these nodes; `held`: in a tree of ours."""
        hosts = ",".join(node.name for node in nodes)
        call = ["parallel", "--ssh", f"ssh -F {self.config}", "--sshlogin", hosts, *words]
        environment = {**os.environ, **self.environment, "PATH": f"{HOME}/bin:{os.environ['PATH']}"}
        options = {"stdin": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, **options}
        return self.head.popen([*(ours() if held else []), *call], env=environment, **options)
