"""Many commands of which it shows when one is lost, runs twice at a time, or leaves something, while workers are killed."""

import subprocess
import threading
import time

from nodes import HOME, until

# What each leaves: it sleeps for so long, by which it is found.
LEFT = "404.7"

# Holds a lock while it runs, so that another one with its number, still alive or started twice, is seen.
COMMAND = """\
#!/bin/sh
cd /mnt/many
echo "$1" >>begun
exec 9>"lock-$1"
flock -n 9 || {{ echo "$1" >>twice; exit 0; }}
setsid sleep {left} >/dev/null 2>&1 9>&- &
sleep {seconds}
echo "$1" >>done
"""


def prepare(seconds=0.2):
    """The program that each is, with its number as argument; what was written before is removed."""
    home = HOME / "many"
    subprocess.run(["rm", "-rf", home], check=True)
    home.mkdir()
    command = home / "command"
    command.write_text(COMMAND.format(left=LEFT, seconds=seconds))
    command.chmod(0o755)
    return command


def numbers(name):
    """The numbers of those that were `begun` or `done`, once for each time, or of those that met themselves (`twice`)."""
    file = HOME / "many" / name
    return file.read_text().split() if file.exists() else []


def left(nodes):
    return sum(len(node.strangers(LEFT)) for node in nodes)


class Strikes:
    """Calls `strike` each second for as long as the block lasts; that says whether it has killed something."""

    def __init__(self, strike, pause=1.0):
        self.strike, self.pause, self.deaths, self.first, self.wrong = strike, pause, 0, None, None
        self.over = threading.Event()
        self.thread = threading.Thread(target=self._go, daemon=True)

    def _go(self):
        due = self.begun
        try:
            # By the clock: what a strike takes is no part of the pause.
            while not self.over.wait(max(0.0, (due := due + self.pause) - time.monotonic())):
                # What there is to kill comes and goes.
                if until(self.strike, patience=self.pause / 2, pause=min(0.02, self.pause)):
                    self.deaths += 1
                    self.first = self.first or time.monotonic()
        except Exception as wrong:
            self.wrong = wrong

    def __enter__(self):
        self.begun = time.monotonic()
        self.thread.start()
        return self

    def __exit__(self, kind, *_):
        self.over.set()
        self.thread.join()
        now = time.monotonic()
        self.took, self.struck = now - self.begun, now - (self.first or self.begun)
        if self.wrong and not kind:
            raise self.wrong


def tell(table, engine, count, strikes, nodes, whom):
    """The row of so many commands that were run while one of `whom` was killed each second."""
    begun, done, twice = (numbers(name) for name in ("begun", "done", "twice"))
    lost = {str(number) for number in range(1, count + 1)} - set(done)
    took = f"{strikes.took:.0f} s"
    table.row(f"{engine}: {count} commands, {strikes.deaths} {whom} killed", None, left(nodes), took)
    table.say(f"{engine}: begun again, of these after their end", f"{len(begun) - count}, {len(done) - len(set(done))}")
    table.check(f"none of {count} commands is lost ({len(lost)})", not lost)
    table.check(f"none of them runs twice at a time ({len(twice)})", not twice)
    # On a machine that is busy otherwise the search for one takes its time.
    often = strikes.deaths >= 0.5 * strikes.struck
    table.check(f"one of the {whom} was killed each second, or every other ({strikes.deaths} in {strikes.struck:.0f} s)", often)
