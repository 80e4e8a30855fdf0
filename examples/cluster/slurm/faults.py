"""What can die, and what is left then: one job of a step each, plain and ours, root's and nobody's, at the same time."""

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
echo "$SLURM_JOB_ID" >"$HOME_OF_ALL/victims/$1.new" && mv "$HOME_OF_ALL/victims/$1.new" "$HOME_OF_ALL/victims/$1"
[ "$2" = ends ] || exec sleep 403.$1
"""


class Job:
    """A victim in a job."""

    number = 1000

    def __init__(self, slurm, node, user, is_ours, ends=False, more=()):
        Job.number += 1
        self.slurm, self.node, self.user, self.token = slurm, node, user, f"{Job.number}"
        # Never read: the client's streams are not what is tried here.
        words = [HOME / "bin/victim", self.token, "ends" if ends else "stays"]
        if is_ours:
            words = [*ours(user, more), *words]
        environment = {**slurm.environment, "HOME_OF_ALL": str(HOME)}
        slurm.environment = environment
        self.client = slurm.srun(node, words, user)
        self.file = HOME / "victims" / self.token

    def ready(self):
        assert until(self.file.exists), f"job {self.token} has not begun{self.slurm.logs()}"
        self.id = self.file.read_text().strip()
        return self

    def left(self):
        """What is alive of it on its node, whatever has become of the job: its own, and all that holds it."""
        sleeps = [f"40{kind}.{self.token}" for kind in range(4)]
        return {pid: words for pid, words in self.node.strangers().items() if any(sleep in words for sleep in sleeps)}

    def stepd(self):
        """The pid of the step's slurmstepd."""
        for pid in self.node.pids() | self.slurm.head.pids():
            if words_of(pid).startswith(f"slurmstepd: [{self.id}."):
                return pid
        raise AssertionError(f"job {self.id} has no slurmstepd")


def children(pid):
    with contextlib.suppress(OSError):
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    return []


def kill(*pids):
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def client_of(job):
    """srun itself: what was started becomes it by exec."""
    return job.client.pid


FAULTS = {
    "the step ends": None,
    "scancel": lambda job: job.slurm.ask("scancel", job.id),
    "scancel -s KILL": lambda job: job.slurm.ask("scancel", "-s", "KILL", job.id),
    "kill -9 srun": lambda job: kill(client_of(job)),
    "kill -9 srun and its shepherd": lambda job: kill(*children(client_of(job)), client_of(job)),
    "kill -9 slurmstepd": lambda job: kill(job.stepd()),
}

# Plain has had its time: a grace of 1 s, the kill, and the engine's own second look.
PLAIN_SETTLES = 4.0


def play(slurm, table, fault, leaves=None):
    """One fault for four jobs at once; `leaves`: whether plain has to leave something."""
    end = FAULTS[fault]
    node1, node2, node3 = slurm.nodes
    ends = end is None
    plain = [Job(slurm, node1, user, False, ends) for user in (0, NOBODY)]
    held = [Job(slurm, node2, 0, True, ends), Job(slurm, node3, NOBODY, True, ends)]
    for job in plain + held:
        job.ready()
    if end:
        for job in plain + held:
            end(job)
    until(lambda: not any(job.left() for job in held))
    until(lambda: not any(job.left() for job in plain), patience=PLAIN_SETTLES)
    running = {line.split()[0]: line.split()[1] for line in slurm.jobs()}
    for user, one, other in (("root", plain[0], held[0]), ("nobody", plain[1], held[1])):
        state = f"plain job: {running[one.id]}" if one.id in running else ""
        event = f"{slurm.proctrack}, {user}: {fault}"
        table.row(event, len(one.left()), len(other.left()), state, must_leave=bool(leaves))
    for job in plain + held:
        kill(*children(client_of(job)), client_of(job))
        kill(*job.left())
        job.client.wait()
    slurm.clear()
    for node in slurm.nodes:
        rest = until(lambda node=node: not node.strangers(), patience=5) or node.strangers()
        if rest is not True:
            table.check(f"{node.name} has nothing of {event} but {rest}", node is node1)
            node.wipe()
