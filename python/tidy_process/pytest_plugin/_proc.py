"""What /proc says of a process; None where it has ended."""

from __future__ import annotations

import os
from typing import List, NamedTuple, Optional, Tuple

# It has not called exec since its fork.
PF_FORKNOEXEC = 0x40


class Stat(NamedTuple):
    state: str
    ppid: int
    flags: int
    started: int

    @property
    def is_fork(self) -> bool:
        return bool(self.flags & PF_FORKNOEXEC)

    @property
    def ended(self) -> bool:
        return self.state in "ZX"


def _read(path: str) -> Optional[bytes]:
    try:
        with open(path, "rb") as file:
            return file.read(65536)
    except OSError:
        return None


def stat(pid: int) -> Optional[Stat]:
    text = _read(f"/proc/{pid}/stat")
    if text is None:
        return None
    # The name before it may have any bytes.
    fields = text.rpartition(b")")[2].split()
    return Stat(fields[0].decode(), int(fields[1]), int(fields[6]), int(fields[19]))


def command(pid: int) -> Tuple[str, ...]:
    text = _read(f"/proc/{pid}/cmdline")
    return tuple(os.fsdecode(part) for part in (text or b"").rstrip(b"\0").split(b"\0"))


def age(started: int) -> float:
    up = float((_read("/proc/uptime") or b"0").split()[0])
    return max(0.0, up - started / os.sysconf("SC_CLK_TCK"))


def children(pid: int) -> List[int]:
    """Its children, zombies too, by all of its threads."""
    found: List[int] = []
    try:
        tasks = os.listdir(f"/proc/{pid}/task")
    except OSError:
        return found
    for task in tasks:
        found += map(int, (_read(f"/proc/{pid}/task/{task}/children") or b"").split())
    return found


def own_cgroup_procs() -> Optional[str]:
    """The ``cgroup.procs`` of this process's cgroup in the unified hierarchy."""
    own = (_read("/proc/self/cgroup") or b"").decode(errors="surrogateescape")
    paths = [line[3:] for line in own.splitlines() if line.startswith("0::")]
    mounts = (_read("/proc/self/mountinfo") or b"").decode(errors="surrogateescape")
    for mount in mounts.splitlines():
        before, _, after = mount.partition(" - ")
        root, where = before.split()[3:5]
        if paths and after.startswith("cgroup2 ") and root == "/":
            return f"{where}{paths[0].rstrip('/')}/cgroup.procs"
    return None


def move(pid: int, procs: str) -> None:
    """Moves a process there, if it is there and may be moved."""
    try:
        with open(procs, "w") as file:
            file.write(str(pid))
    except OSError:
        pass
