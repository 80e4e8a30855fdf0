"""The header line, and the closing table; under xdist the controller has both."""

from __future__ import annotations

from typing import Any, Dict, List

import pytest

from .. import _native
from .._errors import Error
from ._left import Leak

# The name of the JUnit property, and of a worker's rows.
PROPERTY = "tidy"
ROWS = "tidy_process"
LEAKS = pytest.StashKey[List[Leak]]()
SAYS = {
    "report": "what tests leave is listed, and lives until the session's end",
    "kill": "what tests leave is killed",
    "fail": "what a test leaves is killed, and fails it",
}


class Summary:
    """Collects the leaks."""

    def __init__(self, config: pytest.Config, mode: str) -> None:
        self._config, self._mode = config, mode
        config.stash[LEAKS] = []
        self._session_failed = False

    def pytest_report_header(self) -> str:
        return f"tidy: {self._mode}, {SAYS[self._mode]}{_best_effort()}"

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node: Any, error: object) -> None:
        output: Dict[str, Any] = getattr(node, "workeroutput", None) or {}
        leaks = [Leak(**row) for row in output.get(ROWS, [])]
        self._config.stash[LEAKS] += leaks
        self._session_failed |= any(not leak.test for leak in leaks)

    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        # A worker's exit status is not the session's.
        failed = self._mode == "fail" and self._session_failed
        if failed and session.exitstatus == pytest.ExitCode.OK:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        leaks = self._config.stash[LEAKS]
        if not leaks:
            return
        count = sum(leak.count for leak in leaks)
        terminalreporter.section(f"left behind: {count} processes in {len(leaks)} places")
        for leak in leaks:
            by = f"{leak.test or 'session'}: {leak.owner}" if leak.test else leak.owner
            terminalreporter.write_line(f"{by} ({leak.fate})")
            for one in leak.text().splitlines()[1:]:
                terminalreporter.write_line(f"  {one.strip()}")


def _best_effort() -> str:
    try:
        if _native.mechanism() == "cgroup":
            return ""
        why = "no cgroup can be made here"
    except Error as error:
        why = str(error).splitlines()[0]
    return f"; best effort, by lists of children ({why})"
