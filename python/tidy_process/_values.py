"""Values: what became of a command."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any, Dict, Optional, Sequence, Tuple

from ._asked import IoLimit, Limits, Sandbox

__all__ = ["Change", "ChangeList", "Changes", "Confined", "Denied", "IoLimit", "Limits"]
__all__ += ["Missing", "Note", "Port", "ProcessInfo", "Report", "Sandbox", "TreeReport"]


@dataclass(frozen=True)
class Port:
    """A port on which a process waits for peers."""

    protocol: str
    address: str
    port: int
    pid: int


@dataclass(frozen=True)
class ProcessInfo:
    """A process, as it was when it was looked at."""

    pid: int
    ppid: int
    name: str
    command: Tuple[str, ...]
    state: str
    running: float
    cwd: Optional[str]
    ports: Tuple[Port, ...]
    text: str

    def __str__(self) -> str:
        return self.text

    @classmethod
    def _of(cls, told: Dict[str, Any]) -> ProcessInfo:
        ports = tuple(Port(*port) for port in told["ports"])
        return cls(**{**told, "command": tuple(told["command"]), "ports": ports})


@dataclass(frozen=True)
class Note:
    """What happened to a tree so often without ending its main process: ``pids_exhausted`` (forks
    refused at the limit) or ``out_of_memory`` (other processes killed)."""

    what: str
    count: int


@dataclass(frozen=True)
class Missing:
    """A field of a report that is None, the file that would say, and why it does not."""

    field: str
    file: str
    reason: str


@dataclass(frozen=True)
class Confined:
    """How a command was confined: its level, by what, and the system calls allowed beside."""

    level: str
    mechanisms: Tuple[str, ...]
    excepted: Tuple[str, ...]


@dataclass(frozen=True)
class Denied:
    """What a command has tried and was denied, and what would allow it."""

    action: str
    target: str
    call: str
    name: str
    pid: int
    remedy: Optional[str]
    remark: Optional[str]
    times: int
    text: str

    def __str__(self) -> str:
        return self.text


@dataclass(frozen=True)
class Change:
    """A file or directory that was ``added``, ``changed`` or ``removed``, or is ``skipped``: a
    commit does not take it over."""

    path: str
    kind: str
    is_dir: bool
    size: int
    text: str

    def __str__(self) -> str:
        return self.text


@dataclass(frozen=True)
class ChangeList:
    """The first changes; ``count`` is that of all."""

    changes: Tuple[Change, ...]
    count: int
    skipped: int

    @classmethod
    def _of(cls, told: Tuple[Sequence[Tuple[Any, ...]], int, int]) -> ChangeList:
        changes, count, skipped = told
        return cls(tuple(Change(os.fsdecode(one[0]), *one[1:]) for one in changes), count, skipped)


class Changes:
    """What a command has written in one overlay. It is dropped with this object."""

    def __init__(self, native: Any) -> None:
        self._native = native

    @property
    def dir(self) -> str:
        """The directory, as it was named."""
        return os.fsdecode(self._native.dir)

    def list(self) -> ChangeList:
        """The differences to the host's directory as that is now."""
        return ChangeList._of(self._native.list())

    def commit(self) -> ChangeList:
        """Makes the host's directory like what the command saw at its end; says what was done."""
        return ChangeList._of(self._native.commit())

    def __repr__(self) -> str:
        return f"Changes({self.dir!r})"

    def __reduce__(self) -> Any:
        raise TypeError("changes are of this process: an open directory cannot be pickled")


@dataclass(frozen=True)
class _Ended:
    """What a tree has used, and what had to be killed. Seconds and bytes; ``None`` where the kernel
    does not say, and ``missing`` has the reason; beyond the CPU time it is asked only for a tree
    with limits."""

    wall: float
    user: Optional[float]
    system: Optional[float]
    memory_peak: Optional[int]
    pids_peak: Optional[int]
    io_read: Optional[int]
    io_written: Optional[int]
    cpu_pressure: Optional[float]
    memory_pressure: Optional[float]
    io_pressure: Optional[float]
    oom_kills: Optional[int]
    pids_denied: Optional[int]
    missing: Tuple[Missing, ...]
    notes: Tuple[Note, ...]
    leftovers: Tuple[ProcessInfo, ...]
    leftover_count: int
    mechanism: str
    text: str

    def __str__(self) -> str:
        return self.text

    @classmethod
    def _of(cls, told: Dict[str, Any]) -> Any:
        return cls(**{name: _made(name, value) for name, value in told.items()})


class TreeReport(_Ended):
    """How a tree without a command of its own ended."""


@dataclass(frozen=True)
class Report(_Ended):
    """How a command's tree ended, and what had to be done about it.

    ``returncode`` is that of the main process, as subprocess has it; ``leftovers`` are the
    processes that it left and that had to be killed.
    """

    returncode: int
    cause: str
    interrupted: Tuple[ProcessInfo, ...]
    interrupted_count: int
    placement: str
    sandbox: Optional[Confined]
    changes: Tuple[Changes, ...]
    denied: Tuple[Denied, ...]
    denied_count: int

    @property
    def success(self) -> bool:
        """Whether it exited by itself, with status 0."""
        return self.cause == "exited" and self.returncode == 0


# What the extension module tells as tuples and dictionaries, by the field's name.
_ROWS: Dict[str, Any] = {
    "leftovers": ProcessInfo._of,
    "interrupted": ProcessInfo._of,
    "missing": lambda row: Missing(*row),
    "notes": lambda row: Note(*row),
    "denied": lambda row: Denied(*row),
    "changes": Changes,
}


def _made(name: str, value: Any) -> Any:
    if name == "returncode":
        return os.waitstatus_to_exitcode(value)
    if name == "sandbox" and value is not None:
        level, mechanisms, excepted = value
        return Confined(level, tuple(mechanisms), tuple(excepted))
    return tuple(map(_ROWS[name], value)) if name in _ROWS else value
