"""The loop of ``communicate``: reads until the main process has ended, whoever holds the pipes."""

from __future__ import annotations

import os
import selectors
import subprocess
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Dict, List, Optional, Tuple

    from ._popen import Popen


# What others write once the main process has ended is read as long as it comes without a pause,
# or one of them runs, for this long at the most: filters at the end of a pipe end a moment later.
SETTLE = 0.1
PAUSE = 0.01

PIECE = 32768
# Bytes that a pipe takes at once, for which select(2) says that there is room.
ROOM = 512


def communicate(
    process: Popen, input: Any, endtime: Optional[float], timeout: Optional[float]
) -> Tuple[Any, Any]:
    """As subprocess's ``_communicate``, with the pidfd among what is waited for."""
    _flush(process, input)
    state = process.__dict__
    if not state.get("_fileobj2output"):
        found: Dict[Any, List[bytes]] = {}
        for pipe in (process.stdout, process.stderr):
            if pipe is not None:
                found[pipe] = []
        state["_fileobj2output"] = found
    outputs: Dict[Any, List[bytes]] = state["_fileobj2output"]
    process._save_input(input)  # type: ignore[attr-defined]
    with selectors.PollSelector() as selector:
        _exchange(process, selector, outputs, endtime, timeout)
    process.wait(timeout=process._remaining_time(endtime))  # type: ignore[attr-defined]
    return _translated(process, process.stdout, outputs), _translated(
        process, process.stderr, outputs
    )


def _flush(process: Popen, input: Any) -> None:
    if process.stdin is None or process._communication_started:
        return
    try:
        process.stdin.flush()
    except BrokenPipeError:
        pass
    if not input:
        try:
            process.stdin.close()
        except BrokenPipeError:
            pass


def _exchange(
    process: Popen,
    selector: selectors.BaseSelector,
    outputs: Dict[Any, List[bytes]],
    endtime: Optional[float],
    timeout: Optional[float],
) -> None:
    pending = process._input if process.stdin is not None else None  # type: ignore[attr-defined]
    if pending and not process.stdin.closed:  # type: ignore[union-attr]
        selector.register(process.stdin, selectors.EVENT_WRITE)  # type: ignore[arg-type]
    for pipe in outputs:
        if not pipe.closed:
            selector.register(pipe, selectors.EVENT_READ)
    seams: Any = process  # Private parts of subprocess.
    ended: Optional[float] = None
    # Of the main process, and of the one that it dies with.
    watched = process._watched()
    main = watched[0]
    for fd in watched:
        selector.register(fd, selectors.EVENT_READ)
    while len(selector.get_map()) > len(watched):
        wait = process._remaining_time(endtime)  # type: ignore[attr-defined]
        if wait is not None and wait < 0:
            _expire(process, endtime, timeout, outputs)
        step = PAUSE if ended is not None else process._enforce()
        if step is not None:
            wait = step if wait is None else min(step, wait)
        ready = selector.select(wait)
        seams._check_timeout(endtime, timeout, *_joined(process, outputs))
        paused = ended is not None and not ready and not _works(process)
        if ended is not None and (paused or time.monotonic() > ended + SETTLE):
            for pipe in outputs:
                if not pipe.closed:
                    pipe.close()
            break
        for key, _ in ready:
            if key.fileobj is process.stdin:
                _write(process, selector, key)
            elif key.fd in watched:
                # The end of either is news once.
                selector.unregister(key.fd)
                watched.remove(key.fd)
                if key.fd == main:
                    ended = time.monotonic()
            else:
                _read(selector, key, outputs)
        if (
            ended is not None
            and process.stdin is not None
            and process.stdin in _registered(selector)
        ):
            selector.unregister(process.stdin)
            process.stdin.close()


def _works(process: Popen) -> bool:
    """Whether one of the tree is on a CPU, or waits for one, which may take longer than a pause."""
    return any(one["state"] in "RD" for one in process._tidy().processes())


def _registered(selector: selectors.BaseSelector) -> List[Any]:
    return [key.fileobj for key in selector.get_map().values()]


def _write(process: Popen, selector: selectors.BaseSelector, key: Any) -> None:
    state: Any = process
    piece = memoryview(state._input)[state._input_offset : state._input_offset + ROOM]
    try:
        state._input_offset += os.write(key.fd, piece)
    except BrokenPipeError:
        state._input_offset = len(state._input)
    if state._input_offset >= len(state._input):
        selector.unregister(key.fileobj)
        key.fileobj.close()


def _read(selector: selectors.BaseSelector, key: Any, outputs: Dict[Any, List[bytes]]) -> None:
    data = os.read(key.fd, PIECE)
    if not data:
        selector.unregister(key.fileobj)
        key.fileobj.close()
    outputs[key.fileobj].append(data)


def _joined(process: Popen, outputs: Dict[Any, List[bytes]]) -> Tuple[Any, Any]:
    return (
        outputs.get(process.stdout) if process.stdout else None,
        outputs.get(process.stderr) if process.stderr else None,
    )


def _expire(process: Popen, endtime: Any, timeout: Any, outputs: Dict[Any, List[bytes]]) -> None:
    process._check_timeout(  # type: ignore[attr-defined]
        endtime, timeout, *_joined(process, outputs), skip_check_and_raise=True
    )
    raise subprocess.TimeoutExpired(process.args, timeout)


def _translated(process: Popen, pipe: Any, outputs: Dict[Any, List[bytes]]) -> Any:
    if pipe is None:
        return None
    data = b"".join(outputs[pipe])
    if process.text_mode:  # type: ignore[attr-defined]
        seams: Any = process
        return seams._translate_newlines(data, pipe.encoding, pipe.errors)
    return data
