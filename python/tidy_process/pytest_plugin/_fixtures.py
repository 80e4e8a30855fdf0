"""Fixtures: commands, servers and ports that end with the test."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Callable, Iterator, List

import pytest

if TYPE_CHECKING:
    from .._popen import Popen


@pytest.fixture
def tidy_process() -> Iterator[Callable[..., Popen]]:
    """``tidy_process(args, **popen)``: a :class:`tidy_process.Popen` that ends with the test."""
    from .._popen import Popen

    started: List[Popen] = []

    def start(args: Any, **popen: Any) -> Popen:
        started.append(Popen(args, **popen))
        return started[-1]

    yield start
    _finish(started)


@pytest.fixture
def tidy_server(tidy_process: Callable[..., Popen]) -> Callable[..., Popen]:
    """``tidy_server(args, port=|http=|line=, timeout=30, **popen)``: the same, once it is ready.

    ``port=0`` waits for any port, which is its ``ports()[0].port``. What it writes is kept, and is
    in the error if it does not become ready.
    """

    def start(args: Any, *, timeout: float = 30.0, **given: Any) -> Popen:
        from .._native import Log

        conditions = ("port", "http", "line", "file", "unix", "when")
        condition = {name: given.pop(name) for name in conditions if name in given}
        if not condition:
            condition = {"port": 0}
        if not {"stdout", "stderr", "log"} & set(given):
            given["log"] = Log.bounded(1 << 16, 1 << 16)
        server = tidy_process(args, **given)
        server.wait_ready(timeout=timeout, **condition)
        return server

    return start


@pytest.fixture
def tidy_port() -> int:
    """A free TCP port: :func:`tidy_process.free_port`."""
    from .._ports import free_port

    return free_port()


def _finish(started: List[Popen]) -> None:
    """All of them, though one cannot be ended."""
    failed = None
    for process in reversed(started):
        try:
            process.finish()
        except OSError as error:
            failed = error
    if failed is not None:
        raise failed
