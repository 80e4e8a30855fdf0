"""Three nodes on one machine: a network, a host name and a cgroup each, joined by a bridge.

Runs below `tidy-process run` in a mount and a network namespace of its own (see ci/cluster), so that whatever ends
it leaves no process, no interface, no mount and no file: all of these end with the last process.

A node's processes enter its network with nsenter(1) alone: `ip netns exec` would mount a /sys without cgroups.
"""

import contextlib
import os
import signal
import subprocess
import time
from pathlib import Path

HOME = Path("/mnt")  # a tmpfs of our own: programs, settings, logs, what victims write
TOOL = HOME / "bin/tidy-process"
NOBODY = 65534
SOON = 20.0


def sh(*words, **options):
    return subprocess.run([str(word) for word in words], check=True, **options)


def own_cgroup():
    """The cgroup2 directory of this process."""
    path = next(line[3:] for line in Path("/proc/self/cgroup").read_text().splitlines() if line.startswith("0::"))
    mounts = [line.split() for line in Path("/proc/self/mountinfo").read_text().splitlines()]
    mount = next(fields[4] for fields in mounts if "cgroup2" in fields[fields.index("-") :])
    return Path(mount) / path.lstrip("/")


def until(is_so, patience=SOON, pause=0.05):
    """Waits until it is so; what is waited for here announces itself to none but its own engine."""
    deadline = time.monotonic() + patience
    while not (said := is_so()) and time.monotonic() < deadline:
        time.sleep(pause)
    return said


def words_of(pid):
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
    return ""


def is_alive(pid):
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rsplit(") ", 1)[1][0] not in "ZX"
    return False


class Node:
    """A network namespace and a cgroup: what is started here stays in both."""

    def __init__(self, name, address, top):
        self.name, self.address, self.cgroup = name, address, top / name
        self.cgroup.mkdir()
        self.daemons = set()
        named = f"hostname {name} && exec sleep infinity"
        self.holder = subprocess.Popen(["unshare", "--net", "--uts", "sh", "-c", named])
        self.enter = ["nsenter", f"--net=/proc/{self.holder.pid}/ns/net", f"--uts=/proc/{self.holder.pid}/ns/uts"]
        ours = os.readlink("/proc/self/ns/net")
        entered = until(lambda: words_of(self.holder.pid).startswith("sleep"), pause=0.005)
        assert entered and os.readlink(f"/proc/{self.holder.pid}/ns/net") != ours, f"{name}: no namespaces"
        sh("ip", "link", "add", f"to-{name}", "type", "veth", "peer", "name", "eth0", "netns", self.holder.pid)
        sh("ip", "link", "set", f"to-{name}", "master", "bridge", "up")
        inside = [*self.enter, "ip"]
        sh(*inside, "address", "add", f"{address}/24", "dev", "eth0")
        for link in ("lo", "eth0"):
            sh(*inside, "link", "set", link, "up")

    def popen(self, words, user=0, **options):
        """Starts a command on the node, as root or as another user."""
        start = [*self.enter, "--"]
        if user:
            start += ["setpriv", "--reuid", str(user), "--regid", str(user), "--clear-groups", "--"]
        procs = os.open(self.cgroup / "cgroup.procs", os.O_WRONLY | os.O_CLOEXEC)
        try:
            enter = lambda: os.write(procs, b"0")  # noqa: E731
            return subprocess.Popen(start + [str(word) for word in words], preexec_fn=enter, **options)
        finally:
            os.close(procs)

    def run(self, words, user=0, timeout=60, **options):
        """Runs a command on the node; returns what it has written."""
        options = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True, **options}
        process = self.popen(words, user, **options)
        said, _ = process.communicate(timeout=timeout)
        return subprocess.CompletedProcess(words, process.returncode, said)

    def daemon(self, words, log, user=0, **options):
        """Starts what belongs to the node: it is no leftover."""
        with open(log, "ab") as out:
            process = self.popen(words, user, stdin=subprocess.DEVNULL, stdout=out, stderr=out, **options)
        self.daemons.add(process.pid)
        return process

    def pids(self):
        """All that is alive in the node's cgroup and below it."""
        found = set()
        # Directories go while they are walked; os.walk passes over those.
        for directory, *_ in os.walk(self.cgroup):
            with contextlib.suppress(OSError):
                found |= {int(pid) for pid in Path(directory, "cgroup.procs").read_text().split()}
        return {pid for pid in found if is_alive(pid)}

    def strangers(self, token=""):
        """What is alive and no daemon of the node: pid and words; with a token, what has it in its words."""
        all_words = {pid: words_of(pid) for pid in self.pids() - self.daemons}
        return {pid: words for pid, words in all_words.items() if token in words}

    def cut(self):
        """Cuts the node's link."""
        sh("ip", "link", "set", f"to-{self.name}", "down")

    def join(self):
        sh("ip", "link", "set", f"to-{self.name}", "up")

    def wipe(self, token=""):
        """Ends the strangers; for what a plain engine has left."""
        for pid in self.strangers(token):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        until(lambda: not self.strangers(token))

    def close(self):
        (self.cgroup / "cgroup.kill").write_text("1")
        self.holder.kill()
        self.holder.wait()


class Cluster:
    """Three nodes, and `head`, where the engine's own server and its clients are."""

    def __init__(self):
        # The tool above ends all; the steps of an orderly end would wait for daemons that have got the signal too.
        signal.signal(signal.SIGINT, lambda *_: os._exit(130))
        top = own_cgroup()
        # The nodes' own, so that this process is in none of them.
        sh("ip", "link", "add", "bridge", "type", "bridge")
        sh("ip", "link", "set", "bridge", "up")
        sh("ip", "link", "set", "lo", "up")
        names = ["head", "node1", "node2", "node3"]
        self.addresses = {name: f"10.77.0.{number}" for number, name in enumerate(names, 1)}
        hosts = HOME / "hosts"
        lines = [f"{address} {name}" for name, address in self.addresses.items()]
        hosts.write_text("\n".join(["127.0.0.1 localhost", *lines, ""]))
        sh("mount", "--bind", hosts, "/etc/hosts")
        for directory in ("victims", "log"):
            (HOME / directory).mkdir(exist_ok=True)
            (HOME / directory).chmod(0o1777)
        self.head, *self.nodes = (Node(name, address, top) for name, address in self.addresses.items())

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for node in [self.head, *self.nodes]:
            node.close()
        for node in [self.head, *self.nodes]:
            assert until(lambda node=node: not node.pids()), f"{node.name}: {node.strangers()}"
