"""Where in the tests processes were started: an audit hook, which Python calls for each start."""

from __future__ import annotations

import os
import sys
import sysconfig
import time
from collections import deque
from typing import Any, Deque, Dict, List, NamedTuple, Optional, Sequence, Tuple

from . import _proc
from ._left import Left

EVENTS = frozenset(("subprocess.Popen", "os.posix_spawn", "os.fork", "os.forkpty", "os.system"))
# Of a process's start by /proc, which counts in hundredths.
BLUR = 0.03
_paths = sysconfig.get_paths()
LIBRARIES = tuple({_paths[name] for name in ("stdlib", "platstdlib", "purelib", "platlib")})


class Start(NamedTuple):
    when: float
    command: Optional[Tuple[str, ...]]
    path: str
    line: int


_starts: Deque[Start] = deque(maxlen=4096)
_on = False
_hooked = False


def record() -> None:
    """Begins to record. An audit hook cannot be removed: afterwards it costs one comparison."""
    global _on, _hooked
    if not _hooked:
        _hooked = True
        sys.addaudithook(_hook)
        os.register_at_fork(after_in_child=stop)
    _on = True


def stop() -> None:
    global _on
    _on = False


def _hook(event: str, args: Tuple[Any, ...]) -> None:
    if _on and event in EVENTS:
        place = _place()
        if place is not None:
            _starts.append(Start(time.monotonic(), _command(event, args), *place))


def _command(event: str, args: Tuple[Any, ...]) -> Optional[Tuple[str, ...]]:
    """None for a fork, whose command line is pytest's."""
    try:
        if event == "os.system":
            return ("sh", "-c", os.fsdecode(args[0]))
        if event.startswith("os.fork"):
            return None
        given = args[1]
        given = [given] if isinstance(given, (str, bytes, os.PathLike)) else given
        return tuple(os.fsdecode(one) for one in given)
    except (TypeError, IndexError):
        return ()


def _place() -> Optional[Tuple[str, int]]:
    """The innermost line that is no library's; a thread may have none."""
    frame: Any = sys._getframe(2)
    while frame is not None:
        path = frame.f_code.co_filename
        if not path.startswith(("<", *LIBRARIES)):
            return path, frame.f_lineno
        frame = frame.f_back
    return None


def name_places(left: Sequence[Left], root: str, since: float) -> None:
    """Says of each process where it was started, if that is known."""
    recent = [start for start in _starts if start.when >= since - BLUR]
    own = _proc.command(os.getpid())
    by_pid: Dict[int, Left] = {one.pid: one for one in left}
    found = {one.pid: _exact(one, recent, own) for one in left}
    for one in left:
        above: Optional[Left] = one
        for _ in range(len(left)):
            if above is None or found[above.pid]:
                break
            above = by_pid.get(above.ppid)
        start = found[above.pid] if above else None
        if start is not None:
            one.place = f"started at {_within(start, root)}"
        elif len({start[2:] for start in recent}) == 1:
            one.place = f"probably started at {_within(recent[0], root)}"


def _exact(one: Left, starts: List[Start], own: Tuple[str, ...]) -> Optional[Start]:
    """The last start of this command before the process's own; a fork has pytest's command."""
    born = time.monotonic() - one.age
    for start in reversed(starts):
        same = one.command == (own if start.command is None else start.command)
        if same and start.when <= born + BLUR:
            return start
    return None


def _within(start: Start, root: str) -> str:
    path = start.path
    if path.startswith(root + os.sep):
        path = os.path.relpath(path, root)
    return f"{path}:{start.line}"
