"""The plugin judges what is kept, and what fixtures of wider scope have started, at their end."""

from __future__ import annotations

import textwrap
from pathlib import Path
from typing import Dict

from conftest import alive
from plugged import pytest_on

# What a test has started, for the tests after it.
STARTED = """
import subprocess

started = {}

def start(name, seconds):
    started[name] = subprocess.Popen(["sleep", str(seconds)])

def is_alive(name):
    return started[name].poll() is None
"""


def project(directory: Path, files: Dict[str, str]) -> Path:
    files = {"started.py": STARTED, "pytest.ini": "[pytest]\npythonpath = .\n", **files}
    for name, text in files.items():
        path = directory / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(textwrap.dedent(text))
    return directory


KEPT = """
    import pytest
    from started import is_alive, start

    @pytest.mark.tidy(keep="class")
    class TestKept:
        def test_it_starts(self):
            start("class", 301)

        def test_it_lives_to_the_end_of_the_class(self):
            assert is_alive("class")

    class TestAfter:
        def test_it_ended_with_the_class(self):
            assert not is_alive("class")

    @pytest.mark.tidy(keep="class")
    def test_a_function_has_no_class():
        start("function", 302)

    @pytest.mark.tidy(keep="module")
    def test_it_starts():
        assert not is_alive("function")
        start("module", 303)

    def test_it_lives_to_the_end_of_the_module():
        assert is_alive("module")
"""
AFTER = """
    from started import is_alive

    def test_it_ended_with_the_module():
        assert not is_alive("module")
"""


def test_what_is_kept_ends_with_its_class_or_module(tmp_path: Path, mark: str) -> None:
    tests = project(tmp_path, {"test_a.py": KEPT, "test_b.py": AFTER})
    ran = pytest_on(tests, tmp_path, "--tidy=fail")
    left = {
        "test_it_lives_to_the_end_of_the_class": "kept for the class test_a.py::TestKept",
        "test_a_function_has_no_class": "the test left 1",
        "test_it_lives_to_the_end_of_the_module": "kept for the module test_a.py",
    }
    assert ran.failed() == sorted(left), ran.text
    for name, text in left.items():
        assert text in ran.failures[name]
    assert not alive(mark)


PACKAGE = """
    import pytest
    from started import start

    @pytest.fixture(scope="package")
    def server():
        start("package", 301)
"""
USER = """
    from started import is_alive

    def test_it_lives(server):
        assert is_alive("package")
"""
OUTSIDE = """
    from started import is_alive

    def test_it_ended_with_the_package():
        assert not is_alive("package")
"""


def test_a_fixture_of_a_package_is_judged_when_that_has_ended(tmp_path: Path, mark: str) -> None:
    files = {
        "one/__init__.py": "",
        "one/conftest.py": PACKAGE,
        "one/test_a.py": USER,
        "one/test_b.py": USER.replace("it_lives", "it_lives_on"),
        "two/__init__.py": "",
        "two/test_c.py": OUTSIDE,
    }
    ran = pytest_on(project(tmp_path, files), tmp_path, "--tidy=fail")
    assert ran.failed() == ["test_it_lives_on"], ran.text
    assert "package fixture server left 1" in ran.failures["test_it_lives_on"]
    assert not alive(mark)


POOLS = """
    import os
    import execnet, joblib, loky, pytest

    def test_loky():
        executor = loky.get_reusable_executor(max_workers=2)
        assert executor.submit(os.getppid).result() > 0

    def test_loky_reuses_it():
        executor = loky.get_reusable_executor(max_workers=2)
        assert len(list(executor.map(abs, range(8)))) == 8

    def test_joblib():
        pids = joblib.Parallel(n_jobs=2)(joblib.delayed(os.getpid)() for _ in range(4))
        assert os.getpid() not in pids

    def test_execnet():
        global gateway
        gateway = execnet.makegateway()
        assert gateway.remote_exec("channel.send(7)").receive() == 7

    def test_execnet_goes_on():
        assert gateway.remote_exec("channel.send(8)").receive() == 8

    def test_what_a_worker_of_theirs_starts_is_a_leak():
        code = "import subprocess; channel.send(subprocess.Popen(['sleep', '309']).pid)"
        assert gateway.remote_exec(code).receive() > 0
"""


def test_pools_of_libraries_are_no_leaks_and_what_they_start_is(tmp_path: Path, mark: str) -> None:
    ran = pytest_on(project(tmp_path, {"test_it.py": POOLS}), tmp_path, "--tidy=fail")
    assert ran.failed() == ["test_what_a_worker_of_theirs_starts_is_a_leak"], ran.text
    assert "sleep 309" in ran.failures["test_what_a_worker_of_theirs_starts_is_a_leak"]
    assert not alive(mark)
