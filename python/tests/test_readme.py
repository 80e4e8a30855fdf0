"""What the README says of ten lines of one's own and of this package, side by side."""

from __future__ import annotations

import doctest
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from conftest import SOON, alive, wait_for

import tidy_process

README = Path(__file__).parent.parent / "README.md"


def ten_lines() -> str:
    """Those of the README."""
    (code,) = re.findall(r"```python\n(@contextmanager.*?)```", README.read_text(), re.S)
    lines: str = code
    return lines


def plain() -> object:
    names: dict = {}
    imports = "import os, signal, subprocess\nfrom contextlib import contextmanager\n"
    exec(imports + ten_lines(), names)
    return names["server"]


def end(mark: str) -> None:
    for pid in alive(mark):
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            pass


# The daemon says itself that it is in a session of its own.
DAEMON = ["sh", "-c", "setsid -f sh -c 'echo up; exec sleep 300'; exec sleep 300"]


def test_a_daemon_leaves_the_process_group_and_not_the_tree(mark: str) -> None:
    with plain()(DAEMON, stdout=subprocess.PIPE) as process:  # type: ignore[operator]
        process.stdout.readline()
    process.stdout.close()
    assert len(alive(mark)) == 1
    end(mark)
    wait_for(lambda: not alive(mark), "the end of the first one's daemon")
    with tidy_process.tidy_process(DAEMON, stdout=subprocess.PIPE) as process:
        process.stdout.readline()
    assert not alive(mark)


def test_a_pipe_that_a_grandchild_holds_delays_nothing(mark: str) -> None:
    holds = ["sh", "-c", "setsid -f sleep 300; echo hi"]
    process = subprocess.Popen(holds, stdout=subprocess.PIPE, start_new_session=True)
    with pytest.raises(subprocess.TimeoutExpired):
        process.communicate(timeout=1)
    end(mark)
    process.communicate()
    begun = time.monotonic()
    with tidy_process.tidy_process(holds, stdout=subprocess.PIPE) as process:
        assert process.communicate()[0] == b"hi\n"
    assert time.monotonic() - begun < SOON
    assert not alive(mark)


PYTHON = """
import subprocess, sys
{imports}
with server({command}, stdout=subprocess.PIPE) as process:
    process.stdout.readline()
    print("up", flush=True)
    input()
"""


@pytest.mark.parametrize("ours", [False, True])
def test_a_killed_python_leaves_nothing(ours: bool, mark: str) -> None:
    lines = "import os, signal\nfrom contextlib import contextmanager\n" + ten_lines()
    imports = "from tidy_process import tidy_process as server" if ours else lines
    script = PYTHON.format(imports=imports, command=DAEMON)
    python = subprocess.Popen(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, stdin=subprocess.PIPE
    )
    with python:
        assert python.stdout is not None
        assert python.stdout.readline() == b"up\n"
        python.kill()
    if ours:
        wait_for(lambda: not alive(mark), "the guard's work")
    else:
        time.sleep(1)  # more than the guard takes
        assert len(alive(mark)) == 2
        end(mark)


def test_the_code_of_the_documents_runs() -> None:
    modules = [tidy_process, tidy_process._tree]
    from tidy_process import aio

    for module in [*modules, aio]:
        assert doctest.testmod(module).failed == 0
    result = doctest.testfile(str(README), module_relative=False)
    assert result.failed == 0 and result.attempted > 2


def test_the_tests_that_the_readme_names_are_there() -> None:
    tests = "".join(path.read_text() for path in Path(__file__).parent.glob("test_*.py"))
    named = re.findall(r"`(test_\w+)`", README.read_text())
    assert len(named) >= 3
    for name in named:
        assert f"def {name}(" in tests
