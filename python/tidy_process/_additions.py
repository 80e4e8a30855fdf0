"""The keyword arguments that subprocess does not know."""

from __future__ import annotations

import os
import signal

from ._popen import NAMES

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Dict, Optional, Sequence

    from ._native import Log
    from ._tree import Tree
    from ._values import Limits, Sandbox


class Additions:
    """What the keyword arguments ask for."""

    __slots__ = tuple(NAMES)

    def __init__(
        self,
        deadline: Optional[float] = None,
        grace: Optional[float] = None,
        stop_signal: int = signal.SIGTERM,
        stop_main_only: bool = False,
        limits: Optional[Limits] = None,
        sandbox: Optional[Sandbox] = None,
        log: Optional[Log] = None,
        name: Optional[str] = None,
        tree: Optional[Tree] = None,
        linger: bool = False,
        die_with: Optional[int] = None,
    ) -> None:
        self.deadline, self.grace, self.stop_signal = deadline, grace, stop_signal
        self.stop_main_only, self.limits, self.sandbox = stop_main_only, limits, sandbox
        self.log, self.name, self.tree, self.linger = log, name, tree, linger
        self.die_with = die_with
        if die_with is not None and not 0 < die_with < 2**31:
            raise ValueError(f"die_with is {die_with}: give the pid of a process")
        if tree is not None:
            self._refuse(deadline=deadline, grace=grace, limits=limits, sandbox=sandbox)
            self._refuse(log=log, name=name, die_with=die_with)

    @staticmethod
    def _refuse(**given: Any) -> None:
        """What is of a tree of its own cannot be kept in another."""
        for name, value in given.items():
            if value is not None:
                raise ValueError(f"{name} is for a tree of its own: leave it or tree out")

    def told(self, fds: Sequence[int]) -> Dict[str, Any]:
        """For the extension module."""
        return {
            "deadline": self.deadline,
            "grace": self.grace,
            "stop_signal": int(self.stop_signal),
            "stop_main_only": self.stop_main_only,
            "limits": self.limits._told() if self.limits else None,
            "sandbox": self.sandbox._native(fds) if self.sandbox else None,
            "log": self.log,
            "name": None if self.name is None else os.fsencode(self.name),
            "linger": self.linger,
            "die_with": self.die_with,
        }
