"""``die_with``: a tree ends with another process."""

from __future__ import annotations

import os
import subprocess
import threading
from typing import Callable, List

import pytest
from conftest import SOON, alive, wait_for

import tidy_process
from tidy_process import Popen, run

PIPE = subprocess.PIPE


def test_a_tree_ends_with_the_process_that_it_names(mark: str) -> None:
    waits: List[Callable[[Popen], object]] = [Popen.wait, Popen.communicate, _polls]
    for wait in waits:
        other = subprocess.Popen(["sleep", "60"])
        process = Popen("sleep 60 & exec sleep 60", shell=True, stdout=PIPE, die_with=other.pid)
        ending = threading.Timer(0.1, other.kill)
        ending.start()
        wait(process)
        report = process.finish()
        assert report is not None and (report.cause, report.returncode) == ("stopped", -9)
        ending.join()
        other.wait()
        assert not alive(mark)


def _polls(process: Popen) -> None:
    wait_for(lambda: process.poll() is not None, "the end")


def test_the_end_with_another_process_has_its_grace() -> None:
    other = subprocess.Popen(["sleep", "60"])
    script = "trap 'echo bye; exit 5' TERM; echo up; while :; do sleep .01; done"
    process = Popen(script, shell=True, stdout=PIPE, grace=SOON, die_with=other.pid)
    assert process.stdout is not None
    process.stdout.readline()
    other.kill()
    other.wait()
    assert process.communicate()[0] == b"bye\n"
    report = process.finish()
    assert report is not None and (report.returncode, report.cause) == (5, "stopped")


def test_a_process_to_die_with_has_to_be_there() -> None:
    other = subprocess.Popen(["true"])
    other.wait()
    with pytest.raises(ProcessLookupError, match=f"die with process {other.pid}: it has ended"):
        Popen(["touch", "/nonexistent/never"], die_with=other.pid)
    with pytest.raises(tidy_process.PartnerGone):
        run(["true"], die_with=other.pid)
    for never in (0, -1, 2**31):
        with pytest.raises(ValueError, match=f"die_with is {never}"):
            run(["true"], die_with=never)
    assert run(["true"], die_with=os.getppid()).returncode == 0
