"""What a command costs, and many commands while what runs them is killed."""

import contextlib
import os
import random
import signal
import statistics
import time

from emitted import check, emitted
from engine import ours
from nodes import HOME, until, words_of


def timed(slurm, words):
    start = time.monotonic()
    client = slurm.srun(slurm.nodes[1], words)
    assert client.wait(120) == 0, words
    return time.monotonic() - start


def overhead(slurm, table):
    """A step of one command, and a command in a step, beside plain; medians."""
    tool = [str(word) for word in ours()]
    steps = {name: [] for name in ("plain", "ours")}
    for _ in range(15):
        steps["plain"].append(timed(slurm, ["true"]))
        steps["ours"].append(timed(slurm, [*tool, "true"]))
    plain, held = (statistics.median(times) * 1000 for times in steps.values())
    table.say("srun of one command, median ms: plain, ours", f"{plain:.1f}, {held:.1f}")
    number = 50
    loop = 'i=0; while [ $i -lt 50 ]; do i=$((i + 1)); "$@" || exit 1; done'
    plain = timed(slurm, ["sh", "-c", loop, "sh", "true"])
    held = timed(slurm, ["sh", "-c", loop, "sh", *tool, "true"])
    table.say("a command in a step, ms more than plain", f"{(held - plain) / number * 1000:.1f}")


AT_A_TIME = 24

# Each start and each end is a line; what it leaves in the background lives on if nothing ends it.
COMMAND = """\
#!/bin/sh
echo "$SLURM_ARRAY_TASK_ID" >>/mnt/victims/started
setsid sleep 600.77 >/dev/null 2>&1 &
sleep 1
echo "$SLURM_ARRAY_TASK_ID" >>/mnt/victims/ended
"""


def lines_of(name):
    file = HOME / "victims" / name
    return [int(line) for line in file.read_text().split()] if file.exists() else []


def kill_a_worker(slurm):
    """Kills one slurmstepd at random; returns the job that it was for."""
    for node in random.sample(slurm.nodes, 3):
        for pid in sorted(node.pids()):
            words = words_of(pid)
            if words.startswith("slurmstepd: [") and ".batch" in words:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
                    return words.split("[")[1].split(".")[0]
    return None


def many_commands(slurm, table, number):
    """An array of so many jobs; each second the slurmstepd of one is killed, and its job queued again, by its operator:
    Slurm itself takes it for running."""
    (HOME / "bin/command").write_text(COMMAND)
    (HOME / "bin/command").chmod(0o755)
    script = HOME / "bin/batch"
    script.write_text("#!/bin/sh\nexec " + " ".join(str(word) for word in ours()) + f" {HOME}/bin/command\n")
    start = time.monotonic()
    words = ["sbatch", "-Q", "--requeue", f"--array=1-{number}%{AT_A_TIME}", "-n1", "-o", "/dev/null", str(script)]
    said = slurm.ask(*words)
    killed, requeued = [], 0
    while (left := len(slurm.jobs("-r"))) and time.monotonic() - start < number * 3:
        time.sleep(1)
        # The last ones may end: alone on the cluster each would be killed whenever it begins.
        if left > AT_A_TIME and (job := kill_a_worker(slurm)):
            killed.append(job)
            requeued += "error" not in slurm.ask("scontrol", "requeue", job)
    took = time.monotonic() - start
    started, ended = lines_of("started"), lines_of("ended")
    lost = set(range(1, number + 1)) - set(ended)
    twice = len(started) - number
    left = {pid: words for node in slurm.nodes for pid, words in node.strangers("600.77").items()}
    table.check(f"{number} commands, {len(killed)} slurmstepds killed: none lost (lost: {sorted(lost)[:5]}{said})", not lost)
    table.check(f"begun again {twice} times, {requeued} by requeue", twice <= requeued)
    table.row(f"{number} commands with a slurmstepd killed each second", None, len(left), f"{took:.0f} s")


def script(slurm, table):
    """What `pool --emit slurm` prints."""
    said = slurm.ask("sbatch", "--wait", "-Q", "-o", "/dev/null", str(emitted(slurm.head, "slurm")))
    table.check(f"the script of pool --emit slurm has run {said}", not said)
    check(slurm, table, "slurm")
