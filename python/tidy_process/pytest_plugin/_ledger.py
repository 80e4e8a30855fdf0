"""Whose each process is: a test's, a fixture's of wider scope, or the session's.

Owners nest as set-ups do. Processes that appear belong to the innermost one; they are sorted into
its group when another owner begins or it ends, so a test that starts none costs one read.
"""

from __future__ import annotations

import os
import re
import time
from typing import Callable, Dict, List, Optional, Sequence, Set, Tuple

from . import _helpers, _proc, _starts
from ._left import Leak, leak

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ._ground import Ground, Group

# How long processes are followed that fork while they are sorted.
ROUNDS = 20
LONGEST_NAP = 0.01


class Owner:
    """A test, a fixture or the session."""

    def __init__(self, what: str, test: str = "") -> None:
        self.what, self.test = what, test
        self.group: Optional[Group] = None
        self.begun = time.monotonic()
        # Of the test's marker.
        self.allowed: Sequence[re.Pattern[str]] = ()
        self.keeper: Optional[Owner] = None


class Ledger:
    """Owners, and what they have left."""

    def __init__(
        self, ground: Ground, mode: str, grace: float, allowed: Sequence[re.Pattern[str]]
    ) -> None:
        self.ground, self.mode, self.grace, self.allowed = ground, mode, grace, allowed
        self.root = ""
        self.leaks: List[Leak] = []
        self._strays: List[Tuple[Leak, Group]] = []
        self._session = Owner("the session (imports, collection, hooks)")
        self._owners = [self._session]
        self._lasting: Dict[object, Owner] = {}
        # Of helpers and of what is allowed: neither is looked at again, what they fork is.
        self._helpers: Optional[Group] = None
        self._known: Set[int] = set()
        self._tolerated: Optional[Group] = None
        self._pid = os.getpid()
        self._closed = False
        self._put_back = _proc.own_cgroup_procs() if not ground.best_effort else None
        _starts.record()

    def is_ours(self) -> bool:
        """Not so in forks of pytest, which have nothing to judge."""
        return os.getpid() == self._pid and not self._closed

    # Owners.

    def begin(self, owner: Owner) -> None:
        self._sort()
        self._owners.append(owner)

    def suspend(self) -> Owner:
        """The innermost owner has been set up; what it has started stays its own."""
        self._sort()
        return self._owners.pop()

    def lasting(self, key: object, what: str) -> Owner:
        """The owner with this key, which is made if there is none."""
        return self._lasting.setdefault(key, Owner(what))

    def forget_clean(self, key: object) -> None:
        if key in self._lasting and self._lasting[key].group is None:
            del self._lasting[key]

    def end_lasting(self, key: object, test: str) -> Optional[Leak]:
        owner = self._lasting.pop(key, None)
        return self._judge(owner, test) if owner is not None else None

    def end_test(self) -> Optional[Leak]:
        """The innermost owner has ended: judges it."""
        owner = self._owners[-1]
        if self._others():
            self._settle(self._others)
            self._sort()
        self._owners.pop()
        return self._judge(owner, owner.test)

    def end_session(self) -> List[Leak]:
        """Judges what no fixture has ended, and says what became of the strays."""
        while len(self._owners) > 1:
            self._owners.pop()
        self._settle(self._others)
        self._sort()
        owners = [*self._lasting.values(), self._session]
        self._lasting.clear()
        found = [self._judge(owner, "") for owner in owners]
        self.follow("ended before the session did")
        for stray, group in self._strays:
            stray.fate = "outlived the session; killed"
            group.finish()
        self._strays.clear()
        return [one for one in found if one is not None]

    def follow(self, what: str) -> None:
        """Notes which strays have ended since it was called last."""
        for stray, group in list(self._strays):
            if not group.pids():
                stray.fate = what
                self._strays.remove((stray, group))
                group.finish()

    def close(self) -> None:
        """Moves pytest back; helpers go with it, and end with it as they do."""
        if not self.is_ours():
            return
        self._closed = True
        _starts.stop()
        for group in [self._tolerated, *(group for _, group in self._strays)]:
            if group is not None:
                group.finish()
        self.ground.close()
        if self._put_back is not None:
            for pid in self._known:
                _proc.move(pid, self._put_back)

    # What is there.

    def _others(self) -> List[int]:
        """The processes that nothing is known of yet, what helpers have forked among them."""
        found = self.ground.others()
        if found:
            helpers = [pid for pid in found if _helpers.is_helper(pid)]
            for pid in helpers:
                self._helper_group().add(pid)
                self._known.add(pid)
            found = [pid for pid in found if pid not in helpers]
        if self._helpers is not None:
            there = self._helpers.pids()
            self._known.intersection_update(there)
            found += [pid for pid in there if pid not in self._known]
        return found

    def _helper_group(self) -> Group:
        if self._helpers is None:
            self._helpers = self.ground.group("helpers")
        return self._helpers

    def _settle(self, look: Callable[[], List[int]]) -> None:
        """Gives what is ending anyway its time."""
        until = time.monotonic() + self.grace
        nap = 0.0005
        while look() and time.monotonic() < until:
            time.sleep(nap)
            nap = min(2 * nap, LONGEST_NAP)

    def _sort(self) -> None:
        """What is there now belongs to the innermost owner."""
        owner = self._owners[-1]
        for _ in range(ROUNDS):
            others = self._others()
            if not others:
                return
            tolerated = [pid for pid in others if self._may_stay(pid, owner)]
            for pid in tolerated:
                if self._tolerated is None:
                    self._tolerated = self.ground.group("allowed")
                self._tolerated.add(pid)
            if len(tolerated) < len(others):
                group = self._group(owner)
                for pid in set(others) - set(tolerated):
                    group.add(pid)
        # It forks faster than it is looked at: all of it, without a look.
        self.ground.sort_into(self._group(owner))

    def _group(self, owner: Owner) -> Group:
        target = owner.keeper or owner
        if target.group is None:
            target.group = self.ground.group("left")
        return target.group

    def _may_stay(self, pid: int, owner: Owner) -> bool:
        allowed = [*self.allowed, *owner.allowed]
        return bool(allowed) and any(one.search(" ".join(_proc.command(pid))) for one in allowed)

    # What becomes of it.

    def _judge(self, owner: Owner, test: str) -> Optional[Leak]:
        group, owner.group = owner.group, None
        if group is None:
            return None
        self._settle(group.pids)
        if self.mode == "report":
            left = group.look() if group.pids() else []
        else:
            left = group.finish()
        if not left:
            group.finish()
            return None
        _starts.name_places(left, self.root, owner.begun)
        found = leak(test, owner.what, left)
        self.leaks.append(found)
        if self.mode == "report":
            self._strays.append((found, group))
        return found
