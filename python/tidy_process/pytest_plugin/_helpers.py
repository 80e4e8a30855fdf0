"""Processes that libraries keep for their own use until Python ends: no leaks of the test that
happened to be the first one."""

from __future__ import annotations

import os
import re

from . import _proc

# Each is started by pytest itself. What such a process forks has the same command line, and so have
# the forks of a worker of xdist, which execnet has started: neither is a helper.
KNOWN = re.compile(
    r"from (multiprocessing|multiprocess|billiard)\."
    r"(resource_tracker|semaphore_tracker|forkserver) import main"
    r"|from (joblib\.externals\.)?loky\.backend\.(resource_tracker|semaphore_tracker) import main"
    r"|-m (joblib\.externals\.)?loky\.backend\.popen_loky_posix "
    # execnet
    r"|-c import sys;exec\(eval\(sys\.stdin\.readline\(\)\)\)$"
)


def is_helper(pid: int) -> bool:
    """By its command line and its parent."""
    if not KNOWN.search(" ".join(_proc.command(pid))):
        return False
    known = _proc.stat(pid)
    return known is not None and known.ppid == os.getpid() and not known.is_fork
