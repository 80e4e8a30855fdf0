"""Many commands of which it shows when one is lost, runs twice at a time, or leaves something."""

import subprocess

from nodes import HOME

# What each leaves: it sleeps for so long, by which it is found.
LEFT = "404.7"

# Holds a lock while it runs, so that another one with its number, still alive or started twice, is seen.
COMMAND = f"""\
#!/bin/sh
cd /mnt/many
exec 9>"lock-$1"
flock -n 9 || {{ echo "$1" >>twice; exit 0; }}
setsid sleep {LEFT} >/dev/null 2>&1 9>&- &
sleep 0.2
echo "$1" >>done
"""


def prepare():
    """The program that each is, with its number as argument; what was written before is removed."""
    home = HOME / "many"
    subprocess.run(["rm", "-rf", home], check=True)
    home.mkdir()
    command = home / "command"
    command.write_text(COMMAND)
    command.chmod(0o755)
    return command


def outcome():
    """The numbers of those that have ended, and of those that met themselves."""
    files = [HOME / "many" / name for name in ("done", "twice")]
    return [file.read_text().split() if file.exists() else [] for file in files]


def left(nodes):
    return sum(len(node.strangers(LEFT)) for node in nodes)
