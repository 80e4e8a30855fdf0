"""Values: limits, sandboxes, and what became of a command."""

from __future__ import annotations

import os
from dataclasses import dataclass, fields
from typing import Any, Dict, List, Optional, Sequence, Tuple, Union

Path = Union[str, bytes, "os.PathLike[str]", "os.PathLike[bytes]"]


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


def _all(told: Sequence[Dict[str, Any]]) -> Tuple[ProcessInfo, ...]:
    return tuple(ProcessInfo._of(one) for one in told)


@dataclass(frozen=True)
class TreeReport:
    """How a tree without a command of its own ended."""

    wall: float
    user: Optional[float]
    system: Optional[float]
    memory_peak: Optional[int]
    pids_peak: Optional[int]
    oom_kills: Optional[int]
    leftovers: Tuple[ProcessInfo, ...]
    leftover_count: int
    mechanism: str
    text: str

    def __str__(self) -> str:
        return self.text

    @classmethod
    def _of(cls, told: Dict[str, Any]) -> TreeReport:
        return cls(**{**told, "leftovers": _all(told["leftovers"])})


@dataclass(frozen=True)
class Report:
    """How a command's tree ended, and what had to be done about it.

    ``returncode`` is that of the main process, as subprocess has it; ``leftovers`` are the
    processes that it left and that had to be killed. Seconds and bytes; ``None`` where the kernel
    does not say.
    """

    returncode: int
    cause: str
    wall: float
    user: Optional[float]
    system: Optional[float]
    memory_peak: Optional[int]
    pids_peak: Optional[int]
    oom_kills: Optional[int]
    leftovers: Tuple[ProcessInfo, ...]
    leftover_count: int
    interrupted: Tuple[ProcessInfo, ...]
    placement: str
    mechanism: str
    text: str

    @property
    def success(self) -> bool:
        """Whether it exited by itself, with status 0."""
        return self.cause == "exited" and self.returncode == 0

    def __str__(self) -> str:
        return self.text

    @classmethod
    def _of(cls, told: Dict[str, Any]) -> Report:
        told = dict(told)
        told["returncode"] = os.waitstatus_to_exitcode(told.pop("raw_status"))
        told["leftovers"] = _all(told["leftovers"])
        told["interrupted"] = _all(told["interrupted"])
        return cls(**told)


@dataclass(frozen=True)
class Limits:
    """What a whole tree may use, in bytes, seconds and numbers.

    A limit that cannot be enforced here fails the spawn: :class:`LimitError`.
    """

    memory_max: Optional[int] = None
    memory_high: Optional[int] = None
    swap_max: Optional[int] = None
    pids_max: Optional[int] = None
    cpus: Optional[float] = None
    cpu_weight: Optional[int] = None
    cpu_time: Optional[float] = None
    cpuset: Optional[str] = None

    def _numbers(self) -> List[Tuple[str, float]]:
        named = [(field.name, getattr(self, field.name)) for field in fields(self)]
        found = [(name, value) for name, value in named if value is not None and name != "cpuset"]
        for name, value in found:
            if value < 0:
                raise ValueError(f"{name} is {value}: a limit is not negative")
        return [(name, float(value)) for name, value in found]


@dataclass(frozen=True)
class Sandbox:
    """What a command sees beside ``/usr`` and ``/etc``; a wish that cannot be met fails the spawn.

    ``fence=True`` is the weaker level: it sees everything, and cannot leave its cgroup, touch
    processes outside or gain privileges.
    """

    read: Sequence[Path] = ()
    write: Sequence[Path] = ()
    hide: Sequence[Path] = ()
    overlay: Sequence[Path] = ()
    private: Sequence[Path] = ()
    network: str = "none"
    keep_env: Sequence[str] = ()
    fence: bool = False

    def _native(self, fds: Sequence[int]) -> Any:
        from . import _native

        lists = [self.read, self.write, self.hide, self.overlay, self.private]
        if self.fence:
            if any(lists) or self.network != "none" or self.keep_env:
                raise ValueError("a fence hides nothing: name no paths, network or variables")
            return _native.Sandbox.fence(list(fds))
        read, write, hide, overlay, private = (
            [os.fsencode(path) for path in paths] for paths in lists
        )
        keep = list(self.keep_env)
        return _native.Sandbox(read, write, hide, overlay, private, self.network, keep, list(fds))
