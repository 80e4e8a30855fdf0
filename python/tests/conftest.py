"""After each test: no process of it is alive, and no cgroup of it is left."""

from __future__ import annotations

import os
import time
import uuid
from pathlib import Path
from typing import Iterator, List

import pytest

from tidy_process import _native

MARK = "TIDY_PYTHON_MARK"
# For what is to happen at once, on a loaded machine too.
SOON = 20.0


def alive(mark: str) -> List[int]:
    """The processes with this mark in their environment, zombies and this one excepted."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            try:
                if f"{MARK}={mark}".encode() in (entry / "environ").read_bytes():
                    found.append(int(entry.name))
            except OSError:
                pass  # It has ended.
    return found


def wait_for(condition: object, what: str) -> None:
    """Polls, since what is waited for is no child of this process's."""
    until = time.monotonic() + SOON
    while not condition():  # type: ignore[operator]
        assert time.monotonic() < until, f"not within {SOON} s: {what}"
        time.sleep(0.01)


def cgroups() -> int:
    root = _native.run_root()
    return sum(one.is_dir() for one in Path(root).iterdir()) if root else 0


@pytest.fixture(autouse=True)
def mark(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    mark = uuid.uuid4().hex
    monkeypatch.setenv(MARK, mark)
    yield mark
    # Dropped objects end their trees in a thread.
    wait_for(lambda: not alive(mark), "the end of all processes")
    wait_for(lambda: not cgroups(), "the end of all cgroups")
