"""The pytest plugin: names every process that a test leaves, and ends it (docs/pytest.md).

Off unless ``--tidy`` or the ini value ``tidy`` says otherwise; its fixtures are there always.
"""

from __future__ import annotations

import atexit
import re
from typing import List

import pytest

from ._fixtures import tidy_port, tidy_process, tidy_server

__all__ = ["tidy_port", "tidy_process", "tidy_server"]

MODES = ("off", "report", "kill", "fail")
MARKER = (
    "tidy(allow=regex, keep='class'|'module'|'session'): what the test may leave for good,"
    " and until when what it leaves may live"
)


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("tidy", "processes that tests leave (tidy-process)")
    says = "what becomes of a process that a test leaves: listed, killed, or the test fails too"
    group.addoption("--tidy", choices=MODES, default=None, help=says)
    grace = "for so many seconds what a test leaves may go on ending (default: 0.05)"
    group.addoption("--tidy-grace", type=float, default=None, metavar="SECONDS", help=grace)
    parser.addini("tidy", "as --tidy: " + ", ".join(MODES), default="off")
    parser.addini("tidy_grace", "as --tidy-grace", default="0.05")
    allow = "command lines (regular expressions) that tests may leave"
    parser.addini("tidy_allow", allow, type="linelist")


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", MARKER)
    mode = config.getoption("--tidy") or config.getini("tidy")
    if mode not in MODES:
        raise pytest.UsageError(f"tidy is one of {', '.join(MODES)}, not {mode!r}")
    if mode == "off" or config.getoption("collectonly", False):
        return
    from . import _ground, _hooks, _ledger, _summary

    config.pluginmanager.register(_summary.Summary(config, mode), "tidy-summary")
    spread = config.getoption("numprocesses", 0) or config.getoption("dist", "no") != "no"
    if spread and not hasattr(config, "workerinput"):
        return  # The workers of xdist run the tests; each watches itself.
    ledger = _ledger.Ledger(_ground.make(), mode, _grace(config), _allowed(config))
    atexit.register(ledger.close)
    config.add_cleanup(ledger.close)
    config.pluginmanager.register(_hooks.Hooks(config, ledger), "tidy-hooks")


def _grace(config: pytest.Config) -> float:
    given = config.getoption("--tidy-grace")
    try:
        grace = float(config.getini("tidy_grace") if given is None else given)
    except ValueError as error:
        raise pytest.UsageError(f"tidy_grace: {error}") from None
    if not 0 <= grace < float("inf"):
        raise pytest.UsageError(f"tidy_grace is in seconds from 0 on, not {grace}")
    return grace


def _allowed(config: pytest.Config) -> List["re.Pattern[str]"]:
    found = []
    for line in config.getini("tidy_allow"):
        try:
            found.append(re.compile(line))
        except re.error as error:
            raise pytest.UsageError(f"tidy_allow: {line!r} is no expression: {error}") from None
    return found
