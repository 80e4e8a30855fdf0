"""CPython's tests of subprocess fail where docs/cpython.md says so, and nowhere else."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Dict, Set

import pytest

HERE = Path(__file__).parent
VERSION = f"{sys.version_info.major}.{sys.version_info.minor}"


def listed() -> Set[str]:
    """The tests that the table lists for this version."""
    names = set()
    for line in (HERE.parent / "docs" / "cpython.md").read_text().splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if line.startswith("| `") and (cells[1] == "all" or VERSION in cells[1].split(", ")):
            names.add(cells[0].strip("`"))
    return names


def test_the_tests_that_fail_are_those_of_the_table(tmp_path: Path) -> None:
    try:
        import test.test_subprocess  # noqa: F401
    except ImportError:
        pytest.skip("this Python has no tests: on Debian, libpython3-testsuite")
    bad = ran(tmp_path)
    assert listed() <= set(bad), listed() - set(bad)
    others = {name: text for name, text in bad.items() if name not in listed()}
    # What fails without us too is this machine's: another user may not reach its Python.
    theirs = set(ran(tmp_path, "plain", *others)) if others else set()
    assert set(others) <= theirs, json.dumps(others, indent=1)


def ran(directory: Path, *options: str) -> Dict[str, str]:
    """The tests that fail, with why."""
    run = subprocess.run(
        [sys.executable, str(HERE / "cpython.py"), *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        stdin=subprocess.DEVNULL,
        text=True,
        timeout=600,
        cwd=directory,  # They make files beside themselves.
    )
    assert run.returncode == 0, f"after {run.stderr.splitlines()[-3:]}"
    result = json.loads(run.stdout.splitlines()[-1])
    assert options or result["ran"] > 290
    bad: Dict[str, str] = result["bad"]
    return bad
