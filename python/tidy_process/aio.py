"""The same for asyncio: on the loop's own readers of pidfds, without child watcher or thread.

>>> import asyncio
>>> from tidy_process import aio
>>> async def main():
...     done = await aio.run(["sh", "-c", "sleep 30 & echo hi"], capture_output=True)
...     return done.stdout
>>> asyncio.run(main())
b'hi\\n'

For trio and anyio a pidfd is what ``trio.lowlevel.wait_readable`` and ``anyio.wait_readable`` take:
``await wait_readable(popen.fileno())``, then ``popen.wait()``.
"""

from __future__ import annotations

import asyncio
import subprocess

from ._popen import Popen
from ._run import CompletedProcess, completed

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Optional, Sequence, Tuple

    from ._values import Report

__all__ = ["Process", "create_subprocess_exec", "run", "tidy_process"]

# As in `_communicate.py`: what others still write is read for so long once main has ended.
SETTLE = 0.1
LIMIT = 2**16


class Process:
    """As :class:`asyncio.subprocess.Process`; ``popen`` is the :class:`Popen` behind it."""

    stdin: Optional[asyncio.StreamWriter] = None
    stdout: Optional[asyncio.StreamReader] = None
    stderr: Optional[asyncio.StreamReader] = None

    def __init__(self, popen: Popen) -> None:
        self.popen = popen
        self._loop = asyncio.get_running_loop()
        self._transports: list[asyncio.BaseTransport] = []
        # Those who wait for the end of the main process: a loop has one reader for each fd.
        self._waiters: list[asyncio.Future[None]] = []
        self._watched: list[int] = []

    async def _connect(self) -> None:
        popen = self.popen
        if popen.stdin is not None:
            transport, protocol = await self._loop.connect_write_pipe(
                asyncio.streams.FlowControlMixin, popen.stdin
            )
            self._transports.append(transport)
            self.stdin = asyncio.StreamWriter(transport, protocol, None, self._loop)
        self.stdout = await self._reader(popen.stdout)
        self.stderr = await self._reader(popen.stderr)

    async def _reader(self, pipe: Any) -> Optional[asyncio.StreamReader]:
        if pipe is None:
            return None
        reader = asyncio.StreamReader(limit=LIMIT, loop=self._loop)
        transport, _ = await self._loop.connect_read_pipe(
            lambda: asyncio.StreamReaderProtocol(reader, loop=self._loop), pipe
        )
        self._transports.append(transport)
        return reader

    @property
    def pid(self) -> int:
        """The main process's."""
        return self.popen.pid

    @property
    def returncode(self) -> Optional[int]:
        """That of the main process, once it was waited for."""
        return self.popen.returncode

    async def wait(self) -> int:
        """Waits for the main process; keeps the deadline of the tree."""
        popen = self.popen
        # News that have come long ago come at once.
        while popen.returncode is None:
            await self._news(popen._enforce())
            popen.poll()
        return popen.returncode

    async def _news(self, timeout: Optional[float]) -> None:
        """Waits until the main process has ended, or the one it dies with, or for so long."""
        ended: asyncio.Future[None] = self._loop.create_future()
        if not self._waiters:
            self._watched = self.popen._watched()
            for fd in self._watched:
                self._loop.add_reader(fd, self._note)
        self._waiters.append(ended)
        timer = None
        if timeout is not None:
            timer = self._loop.call_later(timeout, _settle, ended)
        try:
            await ended
        finally:
            if timer is not None:
                timer.cancel()
            if ended in self._waiters:
                self._waiters.remove(ended)
                if not self._waiters:
                    self._unwatch()

    def _note(self) -> None:
        """A pidfd is readable."""
        self._unwatch()
        waiters, self._waiters = self._waiters, []
        for ended in waiters:
            _settle(ended)

    def _unwatch(self) -> None:
        for fd in self._watched:
            self._loop.remove_reader(fd)
        self._watched = []

    async def communicate(self, input: Optional[bytes] = None) -> Tuple[Any, Any]:
        """Feeds and reads until the main process has ended, whoever holds the pipes."""
        if not self._transports:
            await self.wait()
            return None, None
        feeding = asyncio.ensure_future(self._feed(input))
        reading = [asyncio.ensure_future(_collect(one)) for one in (self.stdout, self.stderr)]
        try:
            await self.wait()
            await asyncio.wait(reading, timeout=SETTLE)
        finally:
            feeding.cancel()
            self._close()
        # Closing the transports ends what still reads.
        out, err = await asyncio.gather(*reading)
        return out, err

    async def _feed(self, input: Optional[bytes]) -> None:
        if self.stdin is None:
            return
        try:
            if input:
                self.stdin.write(input)
                await self.stdin.drain()
            self.stdin.close()
        except (BrokenPipeError, ConnectionResetError):
            pass  # As subprocess has it: it did not want to read on.

    def _close(self) -> None:
        for transport in self._transports:
            transport.close()
        for reader in (self.stdout, self.stderr):
            if reader is not None and not reader.at_eof():
                reader.feed_eof()

    async def finish(self) -> Optional[Report]:
        """Ends the tree. Where it has a grace a thread waits for that; cancelling kills at once."""
        await self._end()
        return self.popen.report

    async def _end(self) -> None:
        self._close()
        popen = self.popen
        additions = popen._additions
        if not (additions and additions.grace) or popen.poll() is not None:
            popen._end()
            return
        ending = self._loop.run_in_executor(None, popen._end)
        try:
            await asyncio.shield(ending)
        except asyncio.CancelledError:
            popen.kill_tree()
            await ending
            raise

    def send_signal(self, signal: int) -> None:
        """Sends a signal to the main process."""
        self.popen.send_signal(signal)

    def terminate(self) -> None:
        """Sends SIGTERM to the main process."""
        self.popen.terminate()

    def kill(self) -> None:
        """Kills the main process; :meth:`finish` ends the tree."""
        self.popen.kill()


def _settle(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


async def _collect(reader: Optional[asyncio.StreamReader]) -> Optional[bytes]:
    return None if reader is None else await reader.read()


async def _start(args: Sequence[Any], keywords: Any) -> Process:
    process = Process(Popen(args, **keywords))
    popen = process.popen
    if popen.stdin is None and popen.stdout is None and popen.stderr is None:
        return process
    try:
        await process._connect()
    except BaseException:
        process.popen.finish()
        raise
    return process


async def create_subprocess_exec(program: Any, *args: Any, **popen: Any) -> Process:
    """As asyncio's. The tree ends when it is finished, or the object is dropped."""
    return await _start([program, *args], popen)


class tidy_process:
    """``async with aio.tidy_process(args, **popen) as proc:`` ends the tree at the block's end."""

    def __init__(self, args: Sequence[Any], **popen: Any) -> None:
        self._args, self._popen = args, popen
        self._process: Optional[Process] = None

    async def __aenter__(self) -> Process:
        self._process = await _start(self._args, self._popen)
        return self._process

    async def __aexit__(self, *_: Any) -> None:
        if self._process is not None:
            await self._process._end()


async def run(
    args: Sequence[Any],
    *,
    input: Optional[bytes] = None,
    capture_output: bool = False,
    timeout: Optional[float] = None,
    check: bool = False,
    **popen: Any,
) -> CompletedProcess:
    """As :func:`tidy_process.run`; cancelling it ends the tree."""
    if input is not None:
        popen["stdin"] = subprocess.PIPE
    if capture_output:
        popen["stdout"] = popen["stderr"] = subprocess.PIPE
    process = await _start(args, popen)
    try:
        out, err = await asyncio.wait_for(process.communicate(input), timeout)
    except asyncio.TimeoutError:
        raise subprocess.TimeoutExpired(args, timeout or 0.0) from None
    finally:
        await process._end()
    code = process.popen.returncode
    if check and code:
        raise subprocess.CalledProcessError(code, args, output=out, stderr=err)
    return completed(process.popen, out, err)
