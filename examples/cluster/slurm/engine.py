"""Slurm on the three nodes: its daemons, and what a client asks of them."""

import os
import subprocess
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from nodes import HOME, TOOL, until  # noqa: E402

CONFIG = """\
ClusterName=tidy
SlurmctldHost=head(10.77.0.1)
SlurmUser=root
AuthType=auth/munge
AuthInfo=socket={home}/munge/socket,cred_expire=5
CryptoType=crypto/munge
ProctrackType=proctrack/{proctrack}
TaskPlugin=task/none
SlurmdParameters=config_overrides
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
ReturnToService=2
SwitchType=switch/none
MpiDefault=none
KillWait=1
MessageTimeout=10
BatchStartTimeout=10
SlurmdTimeout=30
InactiveLimit=5
MinJobAge=10
MaxArraySize=3000
MaxJobCount=10000
SchedulerParameters=defer_batch,batch_sched_delay=1,sched_min_interval=200000,default_queue_depth=3000,bf_interval=3
StateSaveLocation={home}/slurm/state
SlurmdSpoolDir={home}/slurm/spool-%n
SlurmctldPidFile={home}/slurm/slurmctld.pid
SlurmdPidFile={home}/slurm/slurmd-%n.pid
SlurmctldLogFile={home}/log/slurmctld.log
SlurmdLogFile={home}/log/slurmd-%n.log
{epilog}
NodeName=node1 NodeAddr=10.77.0.2 CPUs=64 State=UNKNOWN
NodeName=node2 NodeAddr=10.77.0.3 CPUs=64 State=UNKNOWN
NodeName=node3 NodeAddr=10.77.0.4 CPUs=64 State=UNKNOWN
PartitionName=all Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""


class Slurm:
    """The daemons, with one way to track processes."""

    def __init__(self, cluster, proctrack, epilog=False):
        self.cluster, self.head, self.nodes = cluster, cluster.head, cluster.nodes
        self.proctrack = proctrack
        home = HOME / "slurm"
        (home / "state").mkdir(parents=True, exist_ok=True)
        config = home / "slurm.conf"
        line = f"Epilog={HOME}/bin/epilog" if epilog else ""
        config.write_text(CONFIG.format(home=HOME, proctrack=proctrack, epilog=line))
        # On a host with both versions of cgroups Slurm cannot tell by itself.
        (home / "cgroup.conf").write_text("CgroupPlugin=cgroup/v1\nCgroupAutomount=no\n")
        path = f"{HOME}/bin:{os.environ['PATH']}"
        self.environment = {**os.environ, "SLURM_CONF": str(config), "PATH": path}
        self.environment.pop("SLURM_JOB_ID", None)
        self.daemons = []

    def __enter__(self):
        start_munge(self.head)
        self.start(self.head, ["slurmctld", "-D", "-i"])
        for node in self.nodes:
            self.start(node, ["slurmd", "-D", "-N", node.name])
        idle = until(lambda: self.ask("sinfo", "-h", "-t", "idle", "-o", "%D").strip() == "3")
        assert idle, f"the nodes are not idle: {self.ask('sinfo', '-N', '-l')}{self.logs()}"
        return self

    def start(self, node, words):
        log = HOME / "log" / f"{words[0]}-{node.name}.out"
        process = node.daemon(words, log, env=self.environment)
        self.daemons.append((node, process))

    def __exit__(self, *_):
        self.clear()
        for node, process in reversed(self.daemons):
            process.terminate()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            node.daemons.discard(process.pid)
        for node in self.nodes:
            node.wipe()

    def ask(self, *words, user=0):
        """What a client on the head says; an error too."""
        return self.head.run(words, user, env=self.environment).stdout

    def logs(self):
        files = sorted((HOME / "log").glob("slurm*.log"))
        return "".join(f"\n== {file.name}\n{file.read_text(errors='replace')[-1500:]}" for file in files)

    def srun(self, node, words, user=0, **options):
        """Starts a job of one step on the node; returns its client."""
        start = ["srun", "-Q", "-N1", "-n1", "-w", node.name, *words]
        options = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, **options}
        return self.head.popen(start, user, env=self.environment, cwd="/", **options)

    def jobs(self, *more):
        """The jobs that have not ended, as the controller has it."""
        return self.ask("squeue", "-h", "-o", "%i %T", *more).split("\n")[:-1]

    def clear(self, ids=()):
        """Ends these jobs, or all; also those whose slurmstepd is gone."""
        running = lambda: [line.split()[0] for line in self.jobs()]  # noqa: E731
        still = lambda: [job for job in running() if not ids or job in ids]  # noqa: E731
        if still():
            self.ask("scancel", *still())
        if until(lambda: not still(), 10.0):
            return
        for state in ("down", "resume"):
            self.ask("scontrol", "update", "nodename=node1,node2,node3", f"state={state}", "reason=left")
        assert until(lambda: not still()), f"jobs {still()} do not end{self.logs()}"


def start_munge(head):
    """One munged for all nodes: a socket in a file system is in no network namespace."""
    home = HOME / "munge"
    if home.exists():
        return
    home.mkdir(mode=0o755)
    key = home / "key"
    key.write_bytes(os.urandom(128))
    key.chmod(0o400)
    files = [f"--key-file={key}", f"--socket={home}/socket", f"--pid-file={home}/pid", f"--seed-file={home}/seed"]
    head.daemon(["munged", "-F", "--force", f"--log-file={home}/log", *files], HOME / "log/munged.out")
    assert until((home / "socket").exists), (HOME / "log/munged.out").read_text()


def ours(user=0, more=()):
    """The tool, as a job's command begins with it."""
    kept = ["--containment", "best-effort"] if user else []
    return [TOOL, "run", "-q", "-k", "1", "--die-with-parent", *kept, *more, "--"]
