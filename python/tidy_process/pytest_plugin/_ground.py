"""Where the processes are seen that tests start: in a cgroup, or as children.

A ground says who is there but pytest, and sorts them into groups, which end together.
"""

from __future__ import annotations

from typing import List

from .. import _native
from .._errors import Error
from .._tree import Tree
from .._values import ProcessInfo
from . import _proc
from ._left import Left

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Protocol, Union

    from . import _children

    class Group(Protocol):
        def add(self, pid: int) -> None: ...
        def pids(self) -> List[int]: ...
        def look(self) -> List[Left]: ...
        def finish(self) -> List[Left]: ...

    Ground = Union["CgroupGround", _children.ChildGround]


def make() -> Ground:
    """By cgroups, and by child lists where none can be made."""
    try:
        if _native.mechanism() == "cgroup":
            return CgroupGround()
        why = "no cgroup can be made here"
    except Error as error:
        why = str(error).splitlines()[0]
    # Needed seldom, and it brings ctypes.
    from . import _children

    return _children.ChildGround(why)


class CgroupGround:
    """pytest is in a cgroup of its own, and all that it starts is born there."""

    best_effort = ""

    def __init__(self) -> None:
        self._watch = _native.Watch()
        self.others = self._watch.others

    def group(self, name: str) -> Group:
        return CgroupGroup(name)

    def sort_into(self, group: Group) -> None:
        assert isinstance(group, CgroupGroup)
        self._watch.sort_into(group.tree._native)

    def close(self) -> None:
        self._watch.close()


class CgroupGroup:
    """A tree."""

    def __init__(self, name: str) -> None:
        self.tree = Tree(name)
        self._procs = f"{self.tree._native.path()}/cgroup.procs"

    def add(self, pid: int) -> None:
        try:
            self.tree.add(pid)
        except OSError:
            if _alive(pid):
                raise

    def pids(self) -> List[int]:
        with open(self._procs) as file:
            return [int(line) for line in file]

    def look(self) -> List[Left]:
        return [_left(one) for one in self.tree.processes()]

    def finish(self) -> List[Left]:
        """Lists them frozen, and kills them."""
        return [_left(one) for one in self.tree.finish().leftovers]


def _alive(pid: int) -> bool:
    known = _proc.stat(pid)
    return known is not None and not known.ended


def _left(one: ProcessInfo) -> Left:
    ports = tuple(f"{port.address}:{port.port}" for port in one.ports)
    return Left(one.pid, one.ppid, one.command or (one.name,), one.running, ports)
