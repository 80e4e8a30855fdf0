"""``Tree``: a cgroup for processes that other code starts, or that several commands share."""

from __future__ import annotations

import os

from . import _native, _values

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Callable, List, Optional

    from ._values import Limits, Port, ProcessInfo, TreeReport


class Tree:
    """Processes that end together: at the block's end, at :meth:`finish`, and when it is dropped.

    >>> from tidy_process import Popen, Tree
    >>> with Tree() as tree:
    ...     left = Popen(["sleep", "60"], tree=tree)
    >>> left.wait()
    -9
    """

    def __init__(self, name: Optional[str] = None, limits: Optional[Limits] = None) -> None:
        self._native = _native.Tree(name, limits._told() if limits else None)
        self._procs: Optional[int] = None

    def _joining(self, preexec_fn: Optional[Callable[[], Any]]) -> Callable[[], None]:
        """For a fork: joins the tree, then goes on with what was to be done there."""
        if self._procs is None:
            path = self._native.path()
            if path is None:
                raise ValueError("a tree without a cgroup cannot be joined")
            self._procs = os.open(f"{path}/cgroup.procs", os.O_WRONLY | os.O_CLOEXEC)
        procs = self._procs

        def join() -> None:
            os.write(procs, b"0")
            if preexec_fn is not None:
                preexec_fn()

        return join

    def add(self, pid: int) -> None:
        """Moves a running process into it; its children stay where they are."""
        self._native.add(pid)

    def processes(self) -> List[ProcessInfo]:
        """The processes in it."""
        return [_values.ProcessInfo._of(one) for one in self._native.processes()]

    def ports(self) -> List[Port]:
        """The ports on which they listen."""
        return [_values.Port(*port) for port in self._native.ports()]

    def signal(self, sig: int) -> int:
        """Sends a signal to all of them; says how many were reached."""
        return self._native.signal(int(sig))

    def kill(self) -> None:
        """Kills all of them."""
        self._native.kill()

    def finish(self) -> TreeReport:
        """Ends it; a second call returns the same report."""
        if self._procs is not None:
            os.close(self._procs)
            self._procs = None
        report: TreeReport = _values.TreeReport._of(self._native.finish())
        return report

    def __enter__(self) -> Tree:
        return self

    def __exit__(self, *_: object) -> None:
        self.finish()

    def __del__(self) -> None:
        if getattr(self, "_procs", None) is not None:
            os.close(self._procs)  # type: ignore[arg-type]
