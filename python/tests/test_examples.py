"""The examples run, again and again on one port, and leave nothing however they end."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import SOON, alive, wait_for

from tidy_process import free_port

EXAMPLES = Path(__file__).resolve().parent.parent.parent / "examples" / "python"
# 20 rounds by hand; each starts two Pythons with Flask.
TIMES = os.environ.get("TIDY_PYTHON_TIMES", "3")


def start(port: int, *options: str) -> "subprocess.Popen[str]":
    command = [sys.executable, str(EXAMPLES / "experiment.py"), str(port), *options]
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, stdin=subprocess.PIPE, text=True
    )


def serving(process: "subprocess.Popen[str]") -> None:
    assert process.stdout is not None
    line = process.stdout.readline()
    # The reloader and what it watches over.
    assert line.startswith("serving:") and len(line.split()) == 3, process.communicate()


def is_free(port: int) -> bool:
    with socket.socket() as server:
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            server.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True


def test_the_experiment_leaves_its_port_free_however_it_ends(mark: str) -> None:
    pytest.importorskip("flask")
    port = free_port()
    out, err = start(port, "--times", TIMES).communicate(timeout=20 * SOON)
    assert f"{TIMES} times, and nothing is left" in out, err
    out, err = start(port, "--fail").communicate(timeout=3 * SOON)
    assert "something went wrong in the middle" in err
    assert not alive(mark)
    for number in (signal.SIGINT, signal.SIGKILL):
        process = start(port, "--pause")
        serving(process)
        process.send_signal(number)
        process.communicate(timeout=SOON)
        wait_for(lambda: not alive(mark), "the end of the server")
    # A dying process gives up its memory, by which it is looked for, before its sockets.
    wait_for(lambda: is_free(port), "a free port")


def test_the_asyncio_server_test_passes(mark: str) -> None:
    command = [sys.executable, str(EXAMPLES / "test_server.py")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=5 * SOON)
    assert done.returncode == 0, done.stderr
    assert not alive(mark)
