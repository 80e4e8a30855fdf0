"""What was left: processes, and the leaks that they are."""

from __future__ import annotations

import shlex
from dataclasses import dataclass, field
from typing import Any, Dict, List, Optional, Sequence, Tuple

# Of a command line, which is another program's text.
LONGEST = 160
# Of the processes of one leak, the rest is counted.
MOST = 20


@dataclass
class Left:
    """A process that was left."""

    pid: int
    ppid: int
    command: Tuple[str, ...]
    age: float
    ports: Tuple[str, ...] = ()
    place: Optional[str] = None

    def __str__(self) -> str:
        told = [f"parent {self.ppid}", f"{self.age:.1f} s old"]
        if self.ports:
            told.append("listens on " + ", ".join(self.ports))
        if self.place:
            told.append(self.place)
        return f"{self.pid} {line(self.command)} ({', '.join(told)})"


def line(command: Sequence[str]) -> str:
    """A command line, in one line of bounded length."""
    text = shlex.join(command)
    text = "".join(char if char.isprintable() else repr(char)[1:-1] for char in text)
    return text if len(text) <= LONGEST else text[: LONGEST - 3] + "..."


@dataclass
class Leak:
    """What a test or a fixture has left, and what became of it."""

    test: str
    owner: str
    processes: List[str] = field(default_factory=list)
    count: int = 0
    fate: str = "killed"

    def text(self) -> str:
        rest = self.count - len(self.processes)
        lines = self.processes + ([f"and {rest} more"] if rest > 0 else [])
        return f"{self.owner} left {self.count} running:\n  " + "\n  ".join(lines)

    def told(self) -> Dict[str, Any]:
        """For a worker's report to its controller."""
        return dict(vars(self))


def leak(test: str, owner: str, left: Sequence[Left]) -> Leak:
    return Leak(test, owner, [str(one) for one in left[:MOST]], len(left))
