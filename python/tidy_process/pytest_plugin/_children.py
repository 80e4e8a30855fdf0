"""Without cgroups: pytest adopts the orphans of what it starts, and reads lists of children.

Best effort: a process is missed that is forked while the lists are read, and one whose parent ends
counts as what the test that runs then has started.
"""

from __future__ import annotations

import ctypes
import os
import signal
import time
from typing import Dict, List, Set

from . import _proc
from ._left import Left

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ._ground import Group

PR_SET_CHILD_SUBREAPER, PR_GET_CHILD_SUBREAPER = 36, 37
# For processes to end that SIGKILL has reached.
PATIENCE = 2.0


def descendants(pid: int) -> Dict[int, int]:
    """Those that live, by pid with the time of their start."""
    found: Dict[int, int] = {}
    ahead = [pid]
    while ahead:
        for child in _proc.children(ahead.pop()):
            known = _proc.stat(child)
            if known is not None and child not in found:
                ahead.append(child)
                if not known.ended:
                    found[child] = known.started
    return found


class ChildGround:
    """pytest's descendants."""

    def __init__(self, why: str) -> None:
        self.best_effort = why
        adopted = ctypes.c_int()
        ctypes.CDLL(None).prctl(PR_GET_CHILD_SUBREAPER, ctypes.byref(adopted), 0, 0, 0)
        ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
        self._adopted_before = adopted.value
        self._own = os.getpid()
        # What was there before, as the guard of a supervisor.
        self._before = descendants(self._own)
        self._groups: Set[ChildGroup] = set()

    def others(self) -> List[int]:
        if not _proc.children(self._own):
            return []
        sorted_out = dict(self._before)
        for group in self._groups:
            sorted_out.update(group.alive())
        here = descendants(self._own)
        return [pid for pid, started in here.items() if sorted_out.get(pid) != started]

    def group(self, name: str) -> Group:
        made = ChildGroup()
        self._groups.add(made)
        return made

    def sort_into(self, group: Group) -> None:
        for pid in self.others():
            group.add(pid)

    def close(self) -> None:
        for group in self._groups:
            group.finish()
        ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, self._adopted_before, 0, 0, 0)


class ChildGroup:
    """Processes, each with the time of its start: numbers are used again."""

    def __init__(self) -> None:
        self._members: Dict[int, int] = {}

    def add(self, pid: int) -> None:
        known = _proc.stat(pid)
        if known is not None:
            self._members[pid] = known.started

    def alive(self) -> Dict[int, int]:
        found: Dict[int, int] = {}
        for pid, started in list(self._members.items()):
            known = _proc.stat(pid)
            if known is None or known.started != started or known.ended:
                del self._members[pid]
            else:
                found[pid] = started
                found.update(descendants(pid))
        self._members.update(found)
        return found

    def pids(self) -> List[int]:
        return list(self.alive())

    def look(self) -> List[Left]:
        found = []
        for pid in self.alive():
            known = _proc.stat(pid)
            if known is not None:
                age = _proc.age(known.started)
                found.append(Left(pid, known.ppid, _proc.command(pid), age))
        return found

    def finish(self) -> List[Left]:
        """Stops them for the list, and kills them."""
        self._signal(signal.SIGSTOP)
        left = self.look()
        until = time.monotonic() + PATIENCE
        while self.alive() and time.monotonic() < until:
            self._signal(signal.SIGKILL)
            time.sleep(0.002)  # They are not all children, whose end could be waited for.
        return left

    def _signal(self, number: int) -> None:
        for pid in self.alive():
            try:
                os.kill(pid, number)
            except ProcessLookupError:
                pass
