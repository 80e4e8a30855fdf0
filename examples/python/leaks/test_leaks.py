"""Ten kinds of leaks: each of these tests passes, and leaves a process that sleeps."""

import asyncio
import ctypes
import multiprocessing
import os
import subprocess
import sys
import threading
import time

import pytest


def test_popen():
    subprocess.Popen(["sleep", "301"])


def test_daemon():
    subprocess.run(["setsid", "-f", "sleep", "302"], check=True)


def test_fork():
    if os.fork() == 0:
        time.sleep(303)
        os._exit(0)


def test_c_library():
    ctypes.CDLL(None).system(b"sleep 304 &")


def test_multiprocessing():
    work = multiprocessing.get_context("fork").Process(target=time.sleep, args=(305,))
    work.daemon = True
    work.start()


def test_forkserver():
    # The server is multiprocessing's own and no leak; what it has forked is.
    work = multiprocessing.get_context("forkserver").Process(target=time.sleep, args=(306,))
    work.daemon = True
    work.start()


def test_asyncio():
    async def start():
        await asyncio.create_subprocess_exec("sleep", "307")

    asyncio.run(start())


def test_thread():
    thread = threading.Thread(target=subprocess.Popen, args=(["sleep", "308"],))
    thread.start()
    thread.join()


def test_grandchild():
    script = "import subprocess; subprocess.Popen(['sleep', '309'])"
    subprocess.run([sys.executable, "-c", script], check=True)


@pytest.fixture(scope="module")
def server():
    # The shell is killed, and its child is not.
    process = subprocess.Popen(["sh", "-c", "sleep 310 & echo; wait"], stdout=subprocess.PIPE)
    process.stdout.readline()
    yield process
    process.kill()
    process.wait()
    process.stdout.close()


def test_server(server):
    assert server.poll() is None
