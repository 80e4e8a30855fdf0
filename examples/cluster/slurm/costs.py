"""What a command costs, and the script that `pool --emit slurm` prints."""

import statistics
import time

from emitted import check, emitted
from engine import ours


def timed(slurm, words):
    start = time.monotonic()
    client = slurm.srun(slurm.nodes[1], words)
    assert client.wait(120) == 0, words
    return time.monotonic() - start


def overhead(slurm, table):
    """A step of one command, and a command in a step, beside plain, in turns; medians."""
    tool = [str(word) for word in ours()]
    steps, loops = {"plain": [], "ours": []}, {"plain": [], "ours": []}
    for _ in range(15):
        steps["plain"].append(timed(slurm, ["true"]))
        steps["ours"].append(timed(slurm, [*tool, "true"]))
    plain, held = (statistics.median(times) * 1000 for times in steps.values())
    table.say("srun of one command, median ms: plain, ours", f"{plain:.1f}, {held:.1f}")
    loop = 'i=0; while [ $i -lt 50 ]; do i=$((i + 1)); "$@" || exit 1; done'
    for _ in range(5):
        loops["plain"].append(timed(slurm, ["sh", "-c", loop, "sh", "true"]))
        loops["ours"].append(timed(slurm, ["sh", "-c", loop, "sh", *tool, "true"]))
    plain, held = (statistics.median(times) * 1000 / 50 for times in loops.values())
    table.say("a command in a step, ms more than plain", f"{held - plain:.1f}")


def script(slurm, table):
    """What `pool --emit slurm` prints."""
    said = slurm.ask("sbatch", "--wait", "-Q", "-o", "/dev/null", str(emitted(slurm.head, "slurm")))
    table.check(f"the script of pool --emit slurm has run {said}", not said)
    check(slurm, table, "slurm")
