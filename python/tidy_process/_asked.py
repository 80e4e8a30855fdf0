"""Values: what a command may use, and what it sees."""

from __future__ import annotations

import os
from dataclasses import dataclass, field, fields
from typing import Any, Dict, List, Mapping, Optional, Sequence, Union

Path = Union[str, bytes, "os.PathLike[str]", "os.PathLike[bytes]"]


def _not_negative(name: str, value: float) -> None:
    if value < 0:
        raise ValueError(f"{name} is {value}: a limit is not negative")


@dataclass(frozen=True)
class IoLimit:
    """What a tree may read and write on one device, in bytes and operations each second."""

    read_bytes: Optional[int] = None
    write_bytes: Optional[int] = None
    read_ops: Optional[int] = None
    write_ops: Optional[int] = None

    def _numbers(self) -> List[Optional[int]]:
        numbers = [getattr(self, one.name) for one in fields(self)]
        for one, number in zip(fields(self), numbers):
            _not_negative(one.name, number or 0)
        return numbers


@dataclass(frozen=True)
class Limits:
    """What a whole tree may use, in bytes, seconds and numbers.

    ``io`` has limits by the device's path or number (``{"/dev/vda": IoLimit(...)}``). A limit that
    cannot be enforced here fails the spawn: :class:`LimitError`.
    """

    memory_max: Optional[int] = None
    memory_high: Optional[int] = None
    swap_max: Optional[int] = None
    pids_max: Optional[int] = None
    cpus: Optional[float] = None
    cpu_weight: Optional[int] = None
    cpu_time: Optional[float] = None
    cpuset: Optional[str] = None
    io: Mapping[Path, IoLimit] = field(default_factory=dict)

    def _told(self) -> Dict[str, Any]:
        """For the extension module."""
        named = [(one.name, getattr(self, one.name)) for one in fields(self)]
        numbers = [(name, value) for name, value in named if name not in ("cpuset", "io")]
        numbers = [(name, value) for name, value in numbers if value is not None]
        for name, value in numbers:
            _not_negative(name, value)
        devices = [(os.fsencode(device), one._numbers()) for device, one in self.io.items()]
        return {
            "numbers": [(name, float(value)) for name, value in numbers],
            "cpuset": self.cpuset,
            "io": devices,
        }


@dataclass(frozen=True)
class Sandbox:
    """What a command sees beside ``/usr`` and ``/etc``; a wish that cannot be met fails the spawn.

    ``fence=True`` is the weaker level: it sees everything, and cannot leave its cgroup, touch
    processes outside or gain privileges. ``network`` is ``none``, ``loopback``, ``host`` or
    ``forward:PORT``: a loopback of its own, on which ``Popen.forwarded`` listens at that port.
    ``allow_syscalls`` and ``deny_syscalls`` are names of system calls. With ``explain`` the report
    lists what was ``denied``. Commands that share this object share what it takes to make one.
    """

    read: Sequence[Path] = ()
    write: Sequence[Path] = ()
    hide: Sequence[Path] = ()
    overlay: Sequence[Path] = ()
    private: Sequence[Path] = ()
    network: str = "none"
    keep_env: Sequence[str] = ()
    fence: bool = False
    allow_syscalls: Sequence[str] = ()
    deny_syscalls: Sequence[str] = ()
    explain: bool = False
    # The extension's object, by what it was made of: it keeps the namespaces of the first command.
    _made: Dict[Any, Any] = field(default_factory=dict, init=False, repr=False, compare=False)

    def plan(self) -> str:
        """What it would do here, in lines. Nothing is run."""
        plan: str = self._native(()).plan()
        return plan

    def _native(self, fds: Sequence[int]) -> Any:
        from . import _native

        if fds:
            # By what is open under these numbers now.
            return _native.Sandbox(self._told(), list(fds))
        told = self._told()
        # A fork makes its own; and the lists that were given may have changed.
        key = (os.getpid(), repr(told))
        made = self._made.get(key)
        if made is None:
            made = _native.Sandbox(told, [])
            self._made.clear()
            self._made[key] = made
        return made

    def _told(self) -> Dict[str, Any]:
        paths = ("read", "write", "hide", "overlay", "private")
        lists = [(name, [os.fsencode(one) for one in getattr(self, name)]) for name in paths]
        named = any(paths for _, paths in lists)
        if self.fence and (named or self.network != "none" or self.keep_env):
            raise ValueError("a fence hides nothing: name no paths, network or variables")
        return {
            "fence": self.fence,
            "paths": [(name, path) for name, paths in lists for path in paths],
            "network": self.network,
            "keep_env": list(self.keep_env),
            "allow": list(self.allow_syscalls),
            "deny": list(self.deny_syscalls),
            "explain": self.explain,
        }

    def __getstate__(self) -> Dict[str, Any]:
        return {**self.__dict__, "_made": {}}
