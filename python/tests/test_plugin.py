"""The pytest plugin finds what tests leave, all of it and nothing else."""

from __future__ import annotations

import os
import re
import signal
import subprocess
from pathlib import Path
from typing import List

import pytest
from conftest import SOON, alive, wait_for
from plugged import command, pytest_on

LEAKS = Path(__file__).resolve().parent.parent.parent / "examples" / "python" / "leaks"
# Kind by kind, what is left; the two forks have pytest's own command.
LEFT = {
    "test_popen": "sleep 301",
    "test_daemon": "sleep 302",
    "test_fork": "python",
    "test_c_library": "sleep 304",
    "test_multiprocessing": "python",
    "test_forkserver": "forkserver",
    "test_asyncio": "sleep 307",
    "test_thread": "sleep 308",
    "test_grandchild": "sleep 309",
    "test_server": "sleep 310",
}
WORKERS = {"in one process": (), "under xdist": ("-n2",)}


@pytest.mark.parametrize("how", WORKERS)
def test_ten_leaks_of_ten_kinds_are_found_and_none_is_invented(
    how: str, tmp_path: Path, mark: str
) -> None:
    if how == "under xdist":
        pytest.importorskip("xdist")
    ran = pytest_on(LEAKS, tmp_path, "--tidy=fail", *WORKERS[how])
    assert ran.failed() == sorted(LEFT), ran.text
    assert ran.status == 1
    for name, what in LEFT.items():
        assert re.search(rf"left 1 running:\s+\d+ .*{what}", ran.failures[name], re.S), ran.text
        assert what in ran.properties[name][0] and f"::{name}: " in ran.table()
    assert "10 processes in 10 places" in ran.text
    assert not alive(mark)


def test_a_leak_says_where_it_was_started(tmp_path: Path) -> None:
    ran = pytest_on(LEAKS, tmp_path, "--tidy=fail", "-k", "test_popen or test_fork or test_asyncio")
    lines = (LEAKS / "test_leaks.py").read_text().splitlines()
    for name, start in [
        ("test_popen", 'subprocess.Popen(["sleep", "301"])'),
        ("test_fork", "if os.fork() == 0:"),
        ("test_asyncio", "await asyncio.create_subprocess_exec"),
    ]:
        number = 1 + next(at for at, line in enumerate(lines) if start in line)
        assert f"started at test_leaks.py:{number})" in ran.failures[name]
    assert "s old" in ran.failures["test_popen"] and "parent " in ran.failures["test_popen"]


def test_report_fails_nothing_and_tells_what_became_of_it(tmp_path: Path, mark: str) -> None:
    ran = pytest_on(
        """
        import pytest, subprocess

        class Pool:
            process = None

        @pytest.fixture(scope="module")
        def pool():
            pool = Pool()
            yield pool
            pool.process.kill()
            pool.process.wait()

        def test_lazy(pool):
            pool.process = subprocess.Popen(["sleep", "301"])

        def test_left(pool):
            subprocess.Popen(["sleep", "302"])

        def test_last(pool):
            assert pool.process.poll() is None
        """,
        tmp_path,
        "--tidy=report",
    )
    assert (ran.status, ran.failed()) == (0, []), ran.text
    table = ran.table()
    assert "test_lazy: the test (outlived its test, ended with module fixture pool)" in table
    assert "test_left: the test (outlived the session; killed)" in table
    assert not alive(mark)


def test_kill_kills_and_fails_nothing_and_off_does_nothing(tmp_path: Path, mark: str) -> None:
    tests = """
        import subprocess

        def test_left():
            subprocess.Popen(["sleep", "5"])
        """
    ran = pytest_on(tests, tmp_path, "--tidy=kill")
    assert ran.status == 0 and "1 processes in 1 places" in ran.text
    assert not alive(mark)
    ran = pytest_on(tests, tmp_path)
    assert ran.status == 0 and "tidy:" not in ran.text
    assert alive(mark)
    wait_for(lambda: not alive(mark), "the end of what was left by intent")


def test_a_fixture_of_wider_scope_is_judged_at_its_own_end(tmp_path: Path, mark: str) -> None:
    ran = pytest_on(
        """
        import pytest, subprocess, unittest

        @pytest.fixture(scope="session")
        def late():
            subprocess.Popen(["sleep", "301"])

        @pytest.fixture
        def early(request):
            subprocess.Popen(["sleep", "302"])
            request.getfixturevalue("late")
            subprocess.Popen(["sleep", "303"])

        def test_nested(early):
            pass

        class TestClass:
            @classmethod
            def setup_class(cls):
                subprocess.Popen(["sleep", "304"])
            def test_one(self):
                pass
            def test_two(self):
                pass

        class TestUnit(unittest.TestCase):
            @classmethod
            def setUpClass(cls):
                subprocess.Popen(["sleep", "305"])
            def test_three(self):
                pass
            def test_four(self):
                pass

        def test_end():
            pass
        """,
        tmp_path,
        "--tidy=fail",
    )
    found = {name: re.findall(r"sleep \d+", text) for name, text in ran.failures.items() if text}
    assert {name: sorted(all) for name, all in found.items()} == {
        "test_nested": ["sleep 302", "sleep 303"],
        "test_two": ["sleep 304"],
        "test_three": ["sleep 305"],
        "test_end": ["sleep 301"],
    }, ran.text
    assert "session fixture late left 1 running" in ran.failures["test_end"]
    assert not alive(mark)


def test_what_is_allowed_and_what_is_kept(tmp_path: Path, mark: str) -> None:
    ran = pytest_on(
        """
        import pytest, subprocess

        def test_by_ini():
            subprocess.Popen(["sleep", "301"])

        @pytest.mark.tidy(allow="sleep 302")
        def test_by_marker():
            subprocess.Popen(["sleep", "302"])
            subprocess.Popen(["sleep", "303"])

        @pytest.mark.tidy(keep="session")
        def test_kept():
            global kept
            kept = subprocess.Popen(["sleep", "304"])

        def test_not_by_marker():
            subprocess.Popen(["sleep", "302"])

        def test_it_lives():
            assert kept.poll() is None
            kept.kill()
        """,
        tmp_path,
        "--tidy=fail",
        "--override-ini=tidy_allow=^sleep 301$",
    )
    assert ran.failed() == ["test_by_marker", "test_not_by_marker"], ran.text
    assert "sleep 303" in ran.failures["test_by_marker"]
    assert "sleep 302" not in ran.failures["test_by_marker"]
    assert not alive(mark)


def test_what_is_left_at_import_fails_the_session(tmp_path: Path, mark: str) -> None:
    tests = """
        import subprocess
        subprocess.Popen(["sleep", "301"])

        def test_nothing():
            pass
        """
    for workers in WORKERS.values():
        ran = pytest_on(tests, tmp_path, "--tidy=fail", *workers)
        assert (ran.failed(), ran.status) == ([], 1), ran.text
        assert "the session (imports, collection, hooks)" in ran.table()
        assert not alive(mark)


ENDS = ["os.kill(os.getpid(), signal.SIGKILL)", "os._exit(7)"]


@pytest.mark.parametrize("end", ENDS)
def test_a_pytest_that_is_killed_leaves_nothing(end: str, tmp_path: Path, mark: str) -> None:
    (tmp_path / "test_it.py").write_text(
        f"""
import os, signal, subprocess

def test_it():
    subprocess.run(["sh", "-c", "setsid -f sleep 301; sleep 302 &"])
    {end}
"""
    )
    done = subprocess.run(command(tmp_path, "--tidy=report"), cwd=tmp_path, timeout=3 * SOON)
    assert done.returncode in (7, -signal.SIGKILL)
    wait_for(lambda: not alive(mark), "the end of what the test has started")


def test_a_fork_of_pytest_judges_nothing(tmp_path: Path) -> None:
    ran = pytest_on(
        """
        import os, pytest, subprocess

        @pytest.fixture(scope="module")
        def server():
            process = subprocess.Popen(["sleep", "301"])
            yield process
            process.kill()
            process.wait()

        def test_fork(server, request):
            pid = os.fork()
            if pid == 0:
                hooks = request.config.pluginmanager.get_plugin("tidy-hooks")
                os._exit(hooks._ledger.is_ours())
            assert os.waitpid(pid, 0)[1] == 0

        def test_it_lives(server):
            assert server.poll() is None
        """,
        tmp_path,
        "--tidy=fail",
    )
    assert ran.status == 0, ran.text


def test_best_effort_without_cgroups_is_said_and_finds_most(tmp_path: Path, mark: str) -> None:
    ran = pytest_on(LEAKS, tmp_path, "--tidy=fail", TIDY_PROCESS_CONTAINMENT="keeper")
    assert "best effort, by lists of children" in ran.text
    assert ran.failed() == sorted(LEFT), ran.text
    wait_for(lambda: not alive(mark), "the end of all of them")


def test_wrong_values_are_named(tmp_path: Path) -> None:
    (tmp_path / "pytest.ini").write_text("[pytest]\n")
    wrong: List[List[str]] = [
        ["--override-ini=tidy=perhaps"],
        ["--tidy=kill", "--override-ini=tidy_allow=("],
        ["--tidy=kill", "--tidy-grace=-1"],
    ]
    for options in wrong:
        done = subprocess.run(command(tmp_path, *options), capture_output=True, text=True)
        assert done.returncode == 4 and "tidy" in done.stderr + done.stdout, done


def test_a_clean_test_costs_little(tmp_path: Path) -> None:
    (tmp_path / "conftest.py").write_text(
        """
import time
import pytest

@pytest.hookimpl(trylast=True)
def pytest_configure(config):
    hooks = config.pluginmanager.get_plugin("tidy-hooks")
    config.costs = costs = []
    begin, end = hooks._ledger.begin, hooks._end
    def timed(call):
        def run(*args):
            started = time.perf_counter()
            try:
                return call(*args)
            finally:
                costs.append(time.perf_counter() - started)
        return run
    hooks._ledger.begin, hooks._end = timed(begin), timed(end)

def pytest_terminal_summary(terminalreporter, config):
    pairs = sorted(a + b for a, b in zip(config.costs[::2], config.costs[1::2]))
    print(f"cost {pairs[len(pairs) // 2] * 1e6:.0f} us")
"""
    )
    ran = pytest_on(
        """
        import pytest

        @pytest.mark.parametrize("number", range(300))
        def test_clean(number):
            pass
        """,
        tmp_path,
        "--tidy=fail",
        "-q",
    )
    cost = int(re.search(r"cost (\d+) us", ran.text).group(1))  # type: ignore[union-attr]
    print(f"a clean test costs {cost} us")
    # 100 us are what it may cost; ten times that on a loaded machine.
    assert cost < 1000, os.getloadavg()
