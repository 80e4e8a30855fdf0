"""What a command is asked for with, as the native half takes it."""

import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, List, Optional, Sequence, Tuple


class Pidfd:
    """Closed when it is dropped."""

    def __init__(self, pid: int) -> None:
        self.number = os.pidfd_open(pid)

    def __del__(self) -> None:
        number = getattr(self, "number", None)
        if number is not None:
            os.close(number)


def arguments(args: "Any", shell: bool, executable: "Any") -> "List[Any]":
    if isinstance(args, (str, bytes)):
        args = [args]
    elif isinstance(args, os.PathLike):
        if shell:
            raise TypeError("path-like args is not allowed when shell is true")
        args = [args]
    else:
        args = list(args)
    if shell:
        args = [executable or "/bin/sh", "-c", *args]
    return args  # type: ignore[no-any-return]


def groups(ids: "Sequence[int]") -> "List[Optional[int]]":
    try:
        return [number(one) for one in ids]
    except OverflowError as error:
        raise ValueError(f"invalid group id: {error}") from None


def number(id: "Optional[int]") -> "Optional[int]":
    if id is not None and not 0 <= id < 2**32:
        raise OverflowError(f"user and group ids are 32 bits, not {id}")
    return id


def has_gil() -> bool:
    return getattr(sys, "_is_gil_enabled", lambda: True)()


def environment(env: "Any") -> "List[Tuple[bytes, bytes]]":
    pairs = []
    for key, value in env.items():
        key = os.fsencode(key)
        if b"=" in key:
            raise ValueError("illegal environment variable name")
        pairs.append((key, os.fsencode(value)))
    return pairs
