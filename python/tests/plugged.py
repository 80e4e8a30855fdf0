"""Runs pytest with the plugin, on tests of its own."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Dict, List, Tuple
from xml.etree import ElementTree

from conftest import SOON

Outcome = Tuple[str, str]


def command(directory: Path, *options: str) -> List[str]:
    base = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-p", "no:anyio"]
    return [*base, f"--rootdir={directory}", "--junitxml=result.xml", *options, str(directory)]


class Ran:
    """What came of it: text, status, and each test's failure or ``""``."""

    def __init__(self, directory: Path, done: "subprocess.CompletedProcess[str]") -> None:
        self.text, self.status = done.stdout + done.stderr, done.returncode
        self.failures: Dict[str, str] = {}
        self.properties: Dict[str, List[str]] = {}
        for case in ElementTree.parse(directory / "result.xml").iter("testcase"):
            failed = [part.text or "" for part in case if part.tag in ("failure", "error")]
            name = case.attrib["name"]
            # An error at teardown is a case of its own.
            self.failures[name] = self.failures.get(name, "") + "".join(failed)
            told = [one.attrib["value"] for one in case.iter("property")]
            self.properties.setdefault(name, []).extend(told)

    def failed(self) -> List[str]:
        return sorted(name for name, text in self.failures.items() if text)

    def table(self) -> str:
        _, _, table = self.text.partition("left behind: ")
        return table


def pytest_on(tests: object, directory: Path, *options: str, **env: str) -> Ran:
    """``tests`` is a text, or the directory that has them."""
    if isinstance(tests, str):
        (directory / "test_it.py").write_text(textwrap.dedent(tests))
        (directory / "pytest.ini").write_text("[pytest]\n")
        tests = directory
    assert isinstance(tests, Path)
    done = subprocess.run(
        command(tests, *options),
        cwd=directory,
        env={**os.environ, **env},
        capture_output=True,
        text=True,
        timeout=2 * SOON,
    )
    assert (directory / "result.xml").exists(), done.stdout + done.stderr
    return Ran(directory, done)
