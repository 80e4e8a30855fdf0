"""The package in event loops."""

from __future__ import annotations

import asyncio
import os
import subprocess
import time
from typing import Any

import pytest
from conftest import SOON, alive

import tidy_process
from tidy_process import aio


def within(awaitable: Any) -> Any:
    return asyncio.run(asyncio.wait_for(awaitable, 3 * SOON))


def test_run_collects_and_ends_with_the_main_process(mark: str) -> None:
    given = b"x" * 300_000

    async def main() -> None:
        assert (await aio.run(["cat"], input=given, capture_output=True)).stdout == given
        done = await aio.run(["sh", "-c", "sleep 60 & echo hi"], capture_output=True)
        assert done.stdout == b"hi\n"
        assert done.report is not None and done.report.leftover_count == 1
        with pytest.raises(subprocess.CalledProcessError):
            await aio.run(["false"], check=True)

    within(main())
    assert not alive(mark)


def test_cancelling_and_timeouts_end_the_tree(mark: str) -> None:
    async def main() -> None:
        task = asyncio.ensure_future(aio.run(["sh", "-c", "setsid -f sleep 60; sleep 60"]))
        await asyncio.sleep(0.2)  # whatever it has come to by then
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert not alive(mark)
        with pytest.raises(subprocess.TimeoutExpired):
            await aio.run(["sleep", "60"], timeout=0.1)

    within(main())


def test_a_wait_that_is_cancelled_takes_nothing_from_the_others() -> None:
    async def main() -> None:
        loop: Any = asyncio.get_running_loop()
        process = await aio.create_subprocess_exec("sleep", "60")
        before = len(loop._selector.get_map())
        waits = [asyncio.ensure_future(process.wait()) for _ in range(3)]
        while len(process._waiters) < 3:
            await asyncio.sleep(0)  # until they wait
        assert len(loop._selector.get_map()) == before + 1
        waits[0].cancel()
        process.kill()
        told = await asyncio.gather(*waits, return_exceptions=True)
        assert isinstance(told[0], asyncio.CancelledError) and told[1:] == [-9, -9]
        assert len(loop._selector.get_map()) == before
        await process.finish()
        # With the last one the loop forgets the pidfd, whose number is another's one day.
        process = await aio.create_subprocess_exec("sleep", "60")
        wait = asyncio.ensure_future(process.wait())
        await asyncio.sleep(0)
        wait.cancel()
        await asyncio.gather(wait, return_exceptions=True)
        assert len(loop._selector.get_map()) == before
        await process.finish()

    within(main())


def test_streams_deadlines_and_several_waits() -> None:
    async def main() -> None:
        pipe = subprocess.PIPE
        process = await aio.create_subprocess_exec("cat", stdin=pipe, stdout=pipe)
        assert process.stdin is not None and process.stdout is not None
        process.stdin.write(b"line\n")
        assert await process.stdout.readline() == b"line\n"
        waits = [asyncio.ensure_future(process.wait()) for _ in range(3)]
        process.stdin.close()
        assert await asyncio.gather(*waits) == [0, 0, 0]
        await process.finish()
        process = await aio.create_subprocess_exec("sleep", "60", deadline=0.2)
        assert await process.wait() == -9
        report = await process.finish()
        assert report is not None and report.cause == "timed_out"

    within(main())


def test_a_tree_ends_with_the_process_that_it_names(mark: str) -> None:
    async def main() -> None:
        loop: Any = asyncio.get_running_loop()
        before = len(loop._selector.get_map())
        for pipe in (None, subprocess.PIPE):
            other = subprocess.Popen(["sleep", "60"])
            words = ["sh", "-c", "sleep 60 & exec sleep 60"]
            process = await aio.create_subprocess_exec(*words, stdout=pipe, die_with=other.pid)
            loop.call_later(0.1, other.kill)
            await process.communicate()
            report = await process.finish()
            assert report is not None and (report.cause, report.returncode) == ("stopped", -9)
            other.wait()
        assert len(loop._selector.get_map()) == before

    within(main())
    assert not alive(mark)


def test_a_grace_is_waited_for_while_the_loop_runs_on(mark: str) -> None:
    script = "trap 'sleep .3; exit 5' TERM; echo up; while :; do sleep .01; done"

    async def main() -> None:
        ticks = 0

        async def tick() -> None:
            nonlocal ticks
            while True:
                await asyncio.sleep(0.01)
                ticks += 1

        ticking = asyncio.ensure_future(tick())
        async with aio.tidy_process(["sh", "-c", script], stdout=-1, grace=SOON) as process:
            assert process.stdout is not None
            await process.stdout.readline()
            before = ticks
        assert ticks > before + 2
        assert process.returncode == 5
        ticking.cancel()

    within(main())
    assert not alive(mark)


def test_asyncio_itself_is_tidy_once_installed(mark: str) -> None:
    async def main() -> bytes:
        process = await asyncio.create_subprocess_shell(
            "echo hi; setsid -f sleep 60 >/dev/null", stdout=-1
        )
        out, _ = await process.communicate()
        assert process.returncode == 0
        return out

    tidy_process.install()
    try:
        assert within(main()) == b"hi\n"
    finally:
        tidy_process.uninstall()


def test_trio_waits_for_the_pidfd() -> None:
    trio = pytest.importorskip("trio")

    async def main() -> Any:
        with tidy_process.Popen(["sh", "-c", "sleep 60 & exit 3"]) as process:
            await trio.lowlevel.wait_readable(process.fileno())
            return process.poll()

    assert trio.run(main) == 3


def test_anyio_waits_for_the_pidfd() -> None:
    anyio = pytest.importorskip("anyio")

    async def main() -> Any:
        with tidy_process.Popen(["sh", "-c", "sleep 60 & exit 3"]) as process:
            await anyio.wait_readable(process.fileno())
            return process.poll()

    assert anyio.run(main) == 3


def test_one_that_has_joined_another_tree_is_waited_for() -> None:
    async def main() -> None:
        with tidy_process.Tree() as tree:
            joined = await aio.create_subprocess_exec("sh", "-c", "sleep 0.2; exit 3", tree=tree)
            assert await joined.wait() == 3
            fd = joined.popen.fileno()
            assert os.readlink(f"/proc/self/fd/{fd}") == "anon_inode:[pidfd]"
            del joined
            assert not os.path.exists(f"/proc/self/fd/{fd}")
            ended = tidy_process.Popen(["true"], tree=tree)
            ended.wait()
            with pytest.raises(ProcessLookupError):
                ended.fileno()

    within(main())


def test_a_wait_takes_no_thread() -> None:
    import threading

    async def main() -> int:
        process = await aio.create_subprocess_exec("sleep", ".2")
        waiting = asyncio.ensure_future(process.wait())
        await asyncio.sleep(0.05)  # it waits
        threads = threading.active_count()
        await waiting
        await process.finish()
        return threads

    begun = time.monotonic()
    assert within(main()) == threading.active_count()
    assert time.monotonic() - begun < SOON
