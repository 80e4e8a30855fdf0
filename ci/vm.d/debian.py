"""A Debian in a directory, by debootstrap."""

import subprocess

import kernels
from tools import Failure

# debootstrap and apt mount what they need: in a mount namespace of its own, nothing of that can stay.
APART = ["unshare", "--mount", "--propagation", "private"]


def bootstrap(suite, mirror, tree, packages, log):
    words = ["debootstrap", "--variant=minbase", f"--keyring={kernels.KEYRING}"]
    logged(words + ["--include=" + ",".join(packages), suite, tree, mirror], log)


def logged(words, log):
    """Runs it apart; what it says is told if it fails."""
    with open(log, "wb+") as out:
        result = subprocess.run(APART + words, stdin=subprocess.DEVNULL, stdout=out, stderr=out)
        if result.returncode != 0:
            out.seek(0)
            lines = out.read().decode(errors="replace").splitlines()[-20:]
            raise Failure(f"{words[0]} failed:\n  " + "\n  ".join(lines))
