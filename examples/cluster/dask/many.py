"""Many commands as Dask's tasks while workers are killed."""

import random
import subprocess
import time

from distributed import wait
from faults import kill
from nodes import HOME, until
from tidy_process.dask import run

# Holds a lock while it runs, so that another one with its number, still alive or started twice, is seen.
COMMAND = """\
#!/bin/sh
cd /mnt/many
exec 9>"lock-$1"
flock -n 9 || { echo "$1" >>twice; exit 0; }
setsid sleep 404.7 >/dev/null 2>&1 9>&- &
sleep 0.2
echo "$1" >>done
"""


def prepare():
    home = HOME / "many"
    subprocess.run(["rm", "-rf", home], check=True)
    home.mkdir()
    command = home / "command"
    command.write_text(COMMAND)
    command.chmod(0o755)
    return home, [str(command)]


def read(path):
    return path.read_text().split() if path.exists() else []


def many(dask, table, count, every):
    home, words = prepare()
    tasks = dask.client.map(run, [[*words, str(number)] for number in range(count)], pure=False)
    deaths, next_death = 0, time.monotonic() + every
    while not all(task.done() for task in tasks):
        if time.monotonic() >= next_death and (workers := dask.workers()):
            kill(random.choice(workers))
            deaths, next_death = deaths + 1, time.monotonic() + every
        time.sleep(0.05)
    left = lambda: sum(len(node.strangers("404.7")) for node in dask.nodes)  # noqa: E731
    until(lambda: not left())
    table.row(f"dask: {count} commands, {deaths} workers killed", None, left())
    done, twice = read(home / "done"), read(home / "twice")
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
