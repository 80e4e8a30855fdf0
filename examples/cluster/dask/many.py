"""Many commands as Dask's tasks while workers are killed."""

import random
import subprocess
import sys
import time

from crowd import left, outcome, prepare
from distributed import wait
from emitted import check, emitted
from engine import ADDRESS
from faults import kill
from nodes import until
from tidy_process.dask import run


def many(dask, table, count, every):
    """A worker is killed this often, in seconds, unless another one is still missing: else none might ever be there."""
    command = str(prepare())
    tasks = dask.client.map(run, [[command, str(number)] for number in range(count)], pure=False)
    deaths, next_death = 0, time.monotonic() + every
    while not all(task.done() for task in tasks):
        whole = time.monotonic() >= next_death and len(dask.client.nthreads()) == len(dask.nodes)
        if whole and (workers := dask.workers()):
            kill(random.choice(workers))
            deaths, next_death = deaths + 1, time.monotonic() + every
        time.sleep(0.05)
    until(lambda: not left(dask.nodes))
    table.row(f"dask: {count} commands, {deaths} workers killed", None, left(dask.nodes))
    done, twice = outcome()
    table.check(f"none of {count} commands is lost", set(done) == {str(number) for number in range(count)})
    table.check(f"none of them runs twice at a time ({len(twice)})", not twice)
    table.say("dask: run again by Dask", str(len(done) - len(set(done))))


def cost(dask, table, count=60):
    """Seconds for so many commands that do nothing, one at a time on each thread."""
    dask.client.wait_for_workers(3, timeout=60)
    took = []
    for function in (subprocess.run, run):
        begun = time.monotonic()
        wait(dask.client.map(function, [["true"]] * count, pure=False))
        took.append(f"{(time.monotonic() - begun) / count * 1000:.1f}")
    table.say("dask: ms a command, plain and ours", " ".join(took))


def script(dask, table):
    """What `pool --emit dask` prints."""
    words = [sys.executable, emitted(dask.head, "dask"), ADDRESS]
    said = dask.head.run(words, env=dask.environment)
    table.check(f"the program of pool --emit dask has run {said.stdout}", said.returncode == 0)
    check(dask, table, "dask")
