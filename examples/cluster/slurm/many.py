"""Many commands as tasks of a job array while what runs them is killed."""

import random
from concurrent.futures import ThreadPoolExecutor

from crowd import Strikes, left, numbers, prepare, tell
from emitted import check_reports, emitted_crowd
from engine import ours
from faults import kill
from nodes import HOME, until, words_of

AT_A_TIME = 24


class One:
    """Kills the slurmstepd of a job, and queues the job again as its operator does: Slurm itself takes it for running."""

    def __init__(self, slurm):
        self.slurm, self.requeues = slurm, []
        # The next one is killed in time, however long that takes.
        self.pool = ThreadPoolExecutor(4)

    def __call__(self):
        found = {pid: words_of(pid) for node in self.slurm.nodes for pid in node.pids()}
        shepherds = [pid for pid, words in found.items() if words.startswith("slurmstepd: [") and ".batch" in words]
        if not shepherds:
            return False
        pid = random.choice(shepherds)
        kill(pid)
        job = found[pid].split("[")[1].split(".")[0]
        self.requeues.append(self.pool.submit(self.slurm.ask, "scontrol", "requeue", job))
        return True

    def requeued(self):
        return sum("error" not in requeue.result() for requeue in self.requeues)


def through(slurm, table, name, count, script, *options):
    """Runs an array, of which each task runs all of its commands again when it was killed."""
    one, tasks = One(slurm), min(count, 1000 if name == "emitted" else count)
    said = slurm.ask("sbatch", "-Q", "--requeue", "-o", "/dev/null", *options, str(script))
    pending = lambda: len(slurm.jobs("-r"))  # noqa: E731
    with Strikes(one) as strikes:
        # The last ones may end: alone on the cluster each would be killed whenever it begins.
        until(lambda: pending() <= AT_A_TIME, patience=3 * count, pause=0.5)
    until(lambda: not pending(), patience=120, pause=0.5)
    until(lambda: not left(slurm.nodes))
    tell(table, f"slurm ({name})", count, strikes, slurm.nodes, "slurmstepds")
    again, most = len(numbers("begun")) - count, one.requeued() * -(-count // tasks)
    table.check(f"no more begin again than requeue has asked for {said} ({again} of {most})", again <= most)


def many(slurm, table, count):
    command = prepare(1)
    script = HOME / "bin/batch"
    script.write_text("#!/bin/sh\nexec " + " ".join(map(str, ours())) + f" {command} $SLURM_ARRAY_TASK_ID\n")
    through(slurm, table, "array", count, script, f"--array=1-{count}%{AT_A_TIME}", "-n1")


def emitted_many(slurm, table, count):
    """The same by the script of `pool --emit slurm`, whose tasks run several commands each where there are more than 1,000."""
    script = emitted_crowd(slurm.head, "slurm", prepare(1), count, "-j", AT_A_TIME)
    through(slurm, table, "emitted", count, script)
    check_reports(slurm.head, table, "slurm", count)
