"""``run`` and the block that ends its command."""

import subprocess

from ._popen import Popen

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Dict, Optional, Union

    from ._native import Ended
    from ._values import Report


class CompletedProcess(subprocess.CompletedProcess):  # type: ignore[type-arg]
    """subprocess's, with the ``report`` of the tree."""

    _ended: "Optional[Ended]" = None
    _report: "Optional[Report]" = None

    @property
    def report(self) -> "Optional[Report]":
        """How the tree ended, and what of it had to be killed; None if it has joined another."""
        if self._report is None and self._ended is not None:
            from ._values import Report

            self._report = Report._of(self._ended.told())
        return self._report

    def __getstate__(self) -> "Dict[str, Any]":
        state = {**self.__dict__, "_report": self.report}
        state.pop("_ended", None)
        return state


def completed(process: "Popen", out: "Any", err: "Any") -> "CompletedProcess":
    """For a process whose tree was ended."""
    made = CompletedProcess(process.args, process.returncode, out, err)
    made._ended = process._ended
    return made


def run(
    args: "Any",
    *,
    input: "Union[str, bytes, None]" = None,
    capture_output: bool = False,
    timeout: "Optional[float]" = None,
    check: bool = False,
    **keywords: "Any",
) -> "CompletedProcess":
    """As :func:`subprocess.run`; it ends with the main process, and ends what that has left."""
    if input is not None:
        if keywords.get("stdin") is not None:
            raise ValueError("stdin and input arguments may not both be used.")
        keywords["stdin"] = subprocess.PIPE
    if capture_output:
        if keywords.get("stdout") is not None or keywords.get("stderr") is not None:
            raise ValueError("stdout and stderr arguments may not be used with capture_output.")
        keywords["stdout"] = keywords["stderr"] = subprocess.PIPE
    process = Popen(args, **keywords)
    try:
        try:
            out, err = process.communicate(input, timeout=timeout)
        except subprocess.TimeoutExpired as expired:
            process._end()
            expired.stdout = expired.output
            raise
    finally:
        process._end()
    code = process.returncode
    if check and code:
        raise subprocess.CalledProcessError(code, process.args, output=out, stderr=err)
    return completed(process, out, err)


class tidy_process:
    """``with tidy_process(args, **popen) as proc:`` ends the tree at the block's end.

    By an exception and by Ctrl-C too. The parameters are those of :class:`Popen`.
    """

    def __init__(self, args: "Any", **popen: "Any") -> None:
        self._args, self._popen = args, popen
        self._process: "Optional[Popen]" = None

    def __enter__(self) -> "Popen":
        self._process = Popen(self._args, **self._popen)
        return self._process

    def __exit__(self, *_: "Any") -> None:
        if self._process is not None:
            self._process._end()
