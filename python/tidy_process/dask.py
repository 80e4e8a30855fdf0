"""Commands as tasks of Dask's distributed: nothing of one outlives its task, worker or client.

::

    from distributed import Client
    from tidy_process.dask import TidyPlugin, run

    with Client("tcp://head:8786") as client:
        client.register_plugin(TidyPlugin())
        futures = client.map(run, [["./simulate", str(seed)] for seed in range(2000)], pure=False)
        for report in client.gather(futures):
            print(report)

A worker cannot stop the thread of a task that was cancelled, or whose client is gone: without the
plugin its command runs on to its end. That a worker, its nanny or its machine's memory killer ends
is met without it: the guard of the worker's trees kills them.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import subprocess
import threading
from typing import Any, Dict, List, Optional, Union

from distributed import Reschedule, Worker, WorkerPlugin, get_worker

from . import _native
from ._popen import Popen
from ._values import Report

__all__ = ["TidyPlugin", "run"]

Output = Union[None, int, str, bytes, "os.PathLike[str]"]

# States of a task whose thread runs.
_RUNNING = frozenset(("executing", "long-running"))
# Those in which its result is awaited, or was given.
_WANTED = _RUNNING | {"memory", "error", "rescheduled"}


class _Started:
    """A command that a task runs, or is about to run."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._process: Optional[Popen] = None
        self._grace = 0.0
        self.is_unwanted = False

    def set(self, process: Popen, grace: float) -> None:
        with self._lock:
            self._process, self._grace = process, grace
            unwanted = self.is_unwanted
        if unwanted:
            self._stop()

    def end(self) -> None:
        """Ends it now, or as soon as it is there."""
        with self._lock:
            self.is_unwanted = True
            started = self._process is not None
        if started:
            self._stop()

    def _stop(self) -> None:
        assert self._process is not None
        # What is over, or cannot be ended, is told by the thread that waits for it.
        with contextlib.suppress(OSError):
            self._process.stop(self._grace)


class TidyPlugin(WorkerPlugin):
    """Ends the command of a task that is cancelled or released, and all of them with the worker.

    When it is set up it sweeps: what workers of this machine have left that were killed together
    with their guard is killed and removed. Each worker has one, under ``name``.
    """

    name = "tidy-process"

    def __init__(self) -> None:
        self._worker: Optional[Worker] = None

    # Of the worker's own copy alone, so that a client can send it.
    def setup(self, worker: Worker) -> None:
        self._worker = worker
        self._lock = threading.Lock()
        self._started: Dict[Any, List[_Started]] = {}
        self._is_closing = False
        # Makes the supervisor, which sweeps those beside it whose owners are gone.
        _native.mechanism()

    def transition(self, key: Any, start: str, finish: str, **_: Any) -> None:
        if start in _RUNNING and finish not in _WANTED:
            with self._lock:
                started = list(self._started.get(key, ()))
            for one in started:
                # The worker's event loop does not wait for it.
                threading.Thread(target=one.end, daemon=True).start()

    async def teardown(self, worker: Worker) -> None:
        with self._lock:
            self._is_closing = True
            started = [one for all in self._started.values() for one in all]
        await asyncio.gather(*(asyncio.to_thread(one.end) for one in started))

    @contextlib.contextmanager
    def _starting(self, key: Any) -> Any:
        """For the time in which a task runs a command."""
        one = _Started()
        with self._lock:
            self._started.setdefault(key, []).append(one)
        try:
            # Looked at only now: a transition that comes later finds the command.
            if not self._is_wanted(key):
                raise Reschedule
            yield one
        finally:
            with self._lock:
                self._started[key].remove(one)
                if not self._started[key]:
                    del self._started[key]
        if one.is_unwanted:
            # If the task was asked for again meanwhile, another thread has to run it.
            raise Reschedule

    def _is_wanted(self, key: Any) -> bool:
        assert self._worker is not None
        task = self._worker.state.tasks.get(key)
        return not self._is_closing and task is not None and task.state in _WANTED


def run(
    args: Any,
    *,
    check: bool = False,
    stdin: Any = subprocess.DEVNULL,
    stdout: Output = None,
    stderr: Output = None,
    **popen: Any,
) -> Report:
    """As a task: runs a command in a tree of its own on the worker, and returns the report.

    ``stdout`` and ``stderr`` may be paths of files that the worker makes; by default output goes
    where the worker's goes. ``check`` raises ``subprocess.CalledProcessError`` for a status other
    than 0, so that Dask tries it again (``client.submit(..., retries=3)``). The other keywords are
    those of :class:`Popen`, as ``deadline``, ``grace`` and ``limits``.

    A task that is no longer wanted raises ``Reschedule``, whose outcome Dask drops.
    """
    worker = get_worker()
    plugin = worker.plugins.get(TidyPlugin.name)
    key = worker.get_current_task()
    with contextlib.ExitStack() as stack:
        started = _Started()
        if isinstance(plugin, TidyPlugin):
            started = stack.enter_context(plugin._starting(key))
        out = _opened(stdout, stack)
        err = out if stderr is not None and stderr == stdout else _opened(stderr, stack)
        process = Popen(args, stdin=stdin, stdout=out, stderr=err, **popen)
        try:
            started.set(process, popen.get("grace") or 0.0)
            process.wait()
        finally:
            report = process.finish()
    assert report is not None
    if check and not report.success:
        raise subprocess.CalledProcessError(report.returncode, args)
    return report


def _opened(output: Output, stack: contextlib.ExitStack) -> Any:
    if output is None or isinstance(output, int):
        return output
    return stack.enter_context(open(output, "wb"))
