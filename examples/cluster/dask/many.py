"""Many commands as Dask's tasks while workers are killed."""

import random
import statistics
import subprocess
import sys
import time

from crowd import Strikes, left, prepare, tell
from distributed import as_completed, wait
from emitted import check, emitted, emitted_crowd, results_of
from engine import ADDRESS
from faults import kill
from nodes import is_alive, until
from tidy_process.dask import run


class One:
    """Kills a worker that was there a second ago: a nanny does not start one again that is killed while it begins."""

    def __init__(self, dask):
        self.dask, self.since = dask, {}

    def __call__(self):
        pids = self.dask.client.run_on_scheduler(lambda dask_scheduler: [one.pid for one in dask_scheduler.workers.values()])
        now = time.monotonic()
        self.since = {pid: self.since.get(pid, now) for pid in pids}
        ready = [pid for pid in pids if now - self.since[pid] >= 1 and is_alive(pid)]
        if ready:
            kill(random.choice(ready))
        return bool(ready)


def many(dask, table, count):
    command = str(prepare())
    words = [[command, str(number)] for number in range(1, count + 1)]
    with Strikes(One(dask)) as strikes:
        # What is still asked for when the worker dies that has it is run again, so nothing is kept and no result fetched, which
        # takes seconds if workers are gone.
        failed = 0
        for task in as_completed(dask.client.map(run, words, pure=False)):
            failed += task.status in ("error", "cancelled")
            del task
    until(lambda: not left(dask.nodes))
    tell(table, "dask", count, strikes, dask.nodes, "workers")
    table.check(f"Dask gives none of them up ({failed})", not failed)


def cost(dask, table, count=60):
    """Time for so many commands that do nothing, one at a time on each thread, in turns; medians."""
    dask.wait_for_workers()
    took = {subprocess.run: [], run: []}
    for _ in range(5):
        for function, times in took.items():
            begun = time.monotonic()
            wait(dask.client.map(function, [["true"]] * count, pure=False))
            times.append((time.monotonic() - begun) / count * 1000)
    plain, ours = map(statistics.median, took.values())
    table.say("dask: ms a command, plain and ours", f"{plain:.1f} {ours:.1f}")


def script(dask, table):
    """What `pool --emit dask` prints."""
    words = [sys.executable, emitted(dask.head, "dask"), ADDRESS]
    said = dask.head.run(words, env=dask.environment)
    table.check(f"the program of pool --emit dask has run {said.stdout}", said.returncode == 0)
    check(dask, table, "dask")


def emitted_many(dask, table, count):
    """The same by the program of `pool --emit dask`."""
    words = [sys.executable, emitted_crowd(dask.head, "dask", prepare(), count), ADDRESS]
    with Strikes(One(dask)) as strikes:
        said = dask.head.run(words, env=dask.environment, timeout=60 + 3 * count)
    table.check(f"the program of pool --emit dask has run {said.stdout}", said.returncode == 0)
    until(lambda: not left(dask.nodes))
    tell(table, "dask (emitted)", count, strikes, dask.nodes, "workers")
    # One whose worker dies in the moment in which it is let go is begun again, and killed: its report is of that.
    whole = [number for number in range(1, count + 1) if (results_of("dask") / f"{number}/report.json").stat().st_size]
    table.say("dask (emitted): reports that are whole", f"{len(whole)} of {count}")
