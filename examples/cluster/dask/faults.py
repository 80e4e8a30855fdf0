"""What can die of a Dask cluster, and what is left of its tasks' commands then."""

import contextlib
import os
import signal
import subprocess
import sys
from pathlib import Path

from engine import ADDRESS, quiet
from nodes import HOME, SOON, until
from tidy_process.dask import run

JOBS = 3
VICTIM = """\
#!/bin/sh
exec </dev/null >/dev/null 2>&1
sleep 400.$1 &
setsid sleep 401.$1 &
setsid sh -c "sleep 402.$1 & exit"
: >/mnt/victims/$1
exec sleep 403.$1
"""
CLIENT = """
import subprocess, sys, time
from distributed import Client
from tidy_process.dask import run
client = Client(sys.argv[1])
kept = []
for line in sys.argv[2:]:
    how, node, token = line.split(":")
    function = run if how == "ours" else subprocess.run
    kept.append(client.submit(function, ["/mnt/bin/victim", token], workers=[node], pure=False))
time.sleep(600)
"""

# Plain has had its time: more than ours needs for a cut link.
PLAIN_SETTLES = 2.0


def kill(*pids):
    for pid in pids:
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            pass


def cut(dask, _):
    for node in dask.nodes:
        node.cut()


# A cluster goes on after these,
HARMLESS = {
    "client.cancel()": lambda dask, tasks: dask.client.cancel(tasks),
    "kill -9 client": None,
    "kill -9 worker": lambda dask, _: kill(*dask.workers()),
    "client.restart()": lambda dask, _: dask.client.restart(wait_for_workers=False),
}
# and not after these.
FATAL = {
    "kill -9 nanny": lambda dask, _: [nanny.kill() for nanny in dask.nannies],
    "kill nanny": lambda dask, _: [nanny.terminate() for nanny in dask.nannies],
    "kill -9 scheduler": lambda dask, _: dask.scheduler.kill(),
    "the link is cut": cut,
}

number = 100


def tokens():
    global number
    number += 1
    return [f"{number}{job}" for job in range(JOBS)]


def alive(dask, some):
    """The sleeps with one of these tokens, on all nodes."""
    all_words = {pid: words for node in dask.nodes for pid, words in node.strangers().items()}
    ours = {pid: words for pid, words in all_words.items() if words.startswith("sleep 40")}
    return {pid for pid, words in ours.items() if words.rsplit(".", 1)[1] in some}


def submit(dask, how, some, nodes=()):
    """One task for each token; nodes, by turns, or any: a node is its worker of now, and of none that follows."""
    function = run if how == "ours" else subprocess.run
    tasks = []
    for job, token in enumerate(some):
        where = [nodes[job % len(nodes)].name] if nodes else None
        tasks.append(dask.client.submit(function, [f"{HOME}/bin/victim", token], workers=where, pure=False))
    return tasks


def play(dask, table, fault, strike):
    """Plain on the first node, ours on the others, at the same time."""
    dask.wait_for_workers()
    node1, *others = dask.nodes
    plain, ours = tokens(), tokens()
    tasks, client = [], None
    if strike is None:
        lines = [f"plain:{node1.name}:{token}" for token in plain]
        lines += [f"ours:{others[job % 2].name}:{token}" for job, token in enumerate(ours)]
        words = [sys.executable, "-c", CLIENT, ADDRESS, *lines]
        client = dask.head.popen(words, env=dask.environment, **quiet())
    else:
        tasks = submit(dask, "plain", plain, [node1]) + submit(dask, "ours", ours, others)
    begun = until(lambda: len(alive(dask, plain + ours)) == 8 * JOBS, patience=60)
    assert begun, f"not all have begun: {len(alive(dask, plain + ours))}"
    # What Dask starts again elsewhere, or here, is no leftover.
    of_plain, of_ours = alive(dask, plain), alive(dask, ours)
    if client:
        client.kill()
        client.wait()
    else:
        strike(dask, tasks)
    until(lambda: not of_ours & alive(dask, ours), patience=40)
    until(lambda: not of_plain & alive(dask, plain), patience=PLAIN_SETTLES)
    table.row(f"dask: {fault}", len(of_plain & alive(dask, plain)), len(of_ours & alive(dask, ours)))


def give_up(dask, table):
    """A job's worker is killed as soon as the job runs, until Dask gives it up: how many copies run at the same time."""
    most, left = [], []
    for how in ("plain", "ours"):
        dask.wipe()
        dask.wait_for_workers()
        some = tokens()
        tasks, seen, together = submit(dask, how, some), set(), 0

        def hunt(tasks=tasks, some=some, seen=seen):
            nonlocal together
            running = mains(dask, some)
            together = max(together, *([list(running.values()).count(token) for token in some]))
            # A worker that is killed while it begins is one that its nanny does not start again.
            kill(*{parent(pid) for pid in running.keys() - seen} - {None})
            seen |= running.keys()
            return all(task.done() for task in tasks)

        table.check(f"Dask gives up the jobs of {how}", until(hunt, patience=240))
        until(lambda some=some: not alive(dask, some), patience=SOON if how == "ours" else PLAIN_SETTLES)
        most.append(together)
        left.append(len(alive(dask, some)))
    table.row(f"dask: workers -9 until it gives up, copies of a job at once: {most[0]}, {most[1]}", *left)
    table.check(f"no job of ours runs twice at a time ({most[1]})", most[1] == 1)


def parent(pid):
    with contextlib.suppress(OSError):
        return int(Path(f"/proc/{pid}/stat").read_text().rsplit(") ", 1)[1].split()[1])
    return None


def mains(dask, some):
    """The processes that the jobs themselves are, and their tokens."""
    found = {}
    for node in dask.nodes:
        for pid, words in node.strangers("sleep 403.").items():
            if (token := words.rsplit(".", 1)[1]) in some:
                found[pid] = token
    return found
