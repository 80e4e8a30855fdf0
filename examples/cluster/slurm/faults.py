"""What can die, and what is left then: jobs of one step, plain and ours, root's and nobody's, at the same time."""

import contextlib
import os
import signal
from pathlib import Path

from engine import ours
from nodes import HOME, NOBODY, until, words_of

# Children of all kinds: one that stays, one in a session of its own, a daemon that has forked twice.
VICTIM = """\
#!/bin/sh
sleep 400.$1 >/dev/null 2>&1 &
setsid sleep 401.$1 >/dev/null 2>&1 &
setsid sh -c "sleep 402.$1 & exit" >/dev/null 2>&1
echo "$SLURM_JOB_ID" >"/mnt/victims/$1.new" && mv "/mnt/victims/$1.new" "/mnt/victims/$1"
[ "$2" = ends ] || exec sleep 403.$1
"""


class Job:
    """A victim in a job."""

    number = 1000

    def __init__(self, slurm, node, user, start=(), ends=False):
        Job.number += 1
        self.slurm, self.node, self.token = slurm, node, f"{Job.number}"
        words = [*start, HOME / "bin/victim", self.token, "ends" if ends else "stays"]
        self.client = slurm.srun(node, words, user)
        self.file = HOME / "victims" / self.token

    def ready(self):
        assert until(self.file.exists), f"job {self.token} has not begun{self.slurm.logs()}"
        self.id = self.file.read_text().strip()
        return self

    def left(self):
        """What is alive of it on its node, whatever has become of the job; what holds it too."""
        marks = [f"40{kind}.{self.token}" for kind in range(4)] + [f"bin/victim {self.token} "]
        strangers = self.node.strangers().items()
        return {pid: words for pid, words in strangers if any(mark in f"{words} " for mark in marks)}

    def stepd(self):
        """The pid of the step's slurmstepd."""
        for pid in self.node.pids():
            if words_of(pid).startswith(f"slurmstepd: [{self.id}."):
                return pid
        raise AssertionError(f"job {self.id} has no slurmstepd")

    def end(self):
        """Ends what the fault, or Slurm, has left."""
        kill(*children(self.client.pid), self.client.pid, *self.left())
        self.client.wait()


def children(pid):
    with contextlib.suppress(OSError):
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    return []


def kill(*pids):
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


SHEPHERD = "kill -9 srun and its shepherd, InactiveLimit"
STEPD = "kill -9 slurmstepd"
FAULTS = {
    "the step ends": None,
    "scancel": lambda job: job.slurm.ask("scancel", job.id),
    "scancel -s KILL": lambda job: job.slurm.ask("scancel", "-s", "KILL", job.id),
    "kill -9 srun": lambda job: kill(job.client.pid),
    SHEPHERD: lambda job: kill(*children(job.client.pid), job.client.pid),
    STEPD: lambda job: kill(job.stepd()),
}

# Plain has had its time: a grace of 1 s, the kill, and the engine's own second look.
PLAIN_SETTLES = 4.0
# Slurm looks for clients that are gone twice a minute.
INACTIVE = 100.0


class Round:
    """One fault for four jobs at once."""

    def __init__(self, slurm, fault):
        self.slurm, self.fault = slurm, fault
        node1, node2, node3 = slurm.nodes
        ends = FAULTS[fault] is None
        self.plain = [Job(slurm, node1, user, ends=ends) for user in (0, NOBODY)]
        self.ours = [Job(slurm, node, user, ours(user), ends) for node, user in ((node2, 0), (node3, NOBODY))]
        self.jobs = self.plain + self.ours
        for job in self.jobs:
            job.ready()

    def strike(self):
        if FAULTS[self.fault]:
            for job in self.jobs:
                FAULTS[self.fault](job)

    def tell(self, table, patience):
        until(lambda: not any(job.left() for job in self.ours), patience)
        until(lambda: not any(job.left() for job in self.plain), PLAIN_SETTLES)
        states = dict(line.split() for line in self.slurm.jobs())
        for user, one, other in zip(("root", "nobody"), self.plain, self.ours):
            running = f"plain job is {states[one.id]}" if one.id in states else ""
            event = f"{self.slurm.proctrack}, {user}: {self.fault}"
            table.row(event, len(one.left()), len(other.left()), running, self.must_leave())
            if other.left():
                print(other.left())
        if self.fault == STEPD:
            # Not of each: if Slurm happens to ask the node what it runs, it tells the client that the step is gone.
            still = any(states.get(job.id) == "RUNNING" for job in self.plain)
            table.check(f"{self.slurm.proctrack}: a job whose slurmstepd was killed runs on for Slurm", still)
        for job in self.jobs:
            job.end()
        self.slurm.clear([job.id for job in self.jobs])

    def must_leave(self):
        # A cgroup of Slurm's own holds daemons too; what it is killed with is slurmstepd's.
        return self.slurm.proctrack != "cgroup" or self.fault == STEPD


def all_faults(slurm, table):
    # The one that takes Slurm's own time goes on beside the others.
    slow = Round(slurm, SHEPHERD)
    slow.strike()
    for fault in FAULTS:
        if fault != SHEPHERD:
            one = Round(slurm, fault)
            one.strike()
            one.tell(table, patience=20.0)
    until(lambda: not {job.id for job in slow.jobs} & {line.split()[0] for line in slurm.jobs("-t", "R")}, INACTIVE)
    slow.tell(table, patience=20.0)
    for node in slurm.nodes:
        rest = {} if until(lambda node=node: not node.strangers(), 5.0) else node.strangers()
        if rest:
            table.check(f"{node.name} has at the end only what plain has left: {rest}", node is slurm.nodes[0])
        node.wipe()


def end_without(slurm, start):
    """How much is left when Slurm kills by itself all that it finds of a job."""
    job = Job(slurm, slurm.nodes[1], 0, start).ready()
    kill(job.client.pid)
    until(lambda: job.id not in {line.split()[0] for line in slurm.jobs()})
    until(lambda: not job.left(), 3.0)
    left = len(job.left())
    job.end()
    slurm.clear([job.id])
    return left
