import asyncio
import os
import subprocess
import sys
import tempfile
import time

import tidy_process
from tidy_process import aio

ballast = bytearray(int(sys.argv[1]))
for i in range(0, len(ballast), 4096):
    ballast[i] = 1

loop = asyncio.new_event_loop()


def block(command):
    with tidy_process.tidy_process(command) as process:
        process.wait()


def asyncio_of(command):
    async def main():
        await (await asyncio.create_subprocess_exec(*command)).wait()

    loop.run_until_complete(main())


def aio_of(command):
    loop.run_until_complete(aio.run(command))


def timed(call, command):
    start = time.perf_counter_ns()
    call(command)
    return time.perf_counter_ns() - start


IMPORT = """
import subprocess, time
start = time.perf_counter_ns()
import tidy_process
print(time.perf_counter_ns() - start)
"""


def importing(_):
    return int(subprocess.check_output([sys.executable, "-c", IMPORT]))


# Its loop over the tests alone; once it is warm.
CONFTEST = """
import pytest, time

@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtestloop(session):
    start = time.perf_counter_ns()
    result = yield
    print("\\ntook", (time.perf_counter_ns() - start) // len(session.items))
    return result
"""
TESTS = "import pytest\n@pytest.mark.parametrize('n', range(1000))\ndef test_it(n): pass\n"


def testing(mode):
    with tempfile.TemporaryDirectory() as home:
        for name, text in ("conftest.py", CONFTEST), ("test_it.py", TESTS), ("pytest.ini", "[pytest]"):
            with open(os.path.join(home, name), "w") as file:
                file.write(text)
        pytest = [sys.executable, "-m", "pytest", "-qs", "-p", "no:cacheprovider", *mode, home]
        told = subprocess.check_output(pytest, text=True, cwd=home)
    return next(int(line.split()[1]) for line in told.splitlines() if line.startswith("took"))


CALLS = {
    "block": lambda command: timed(block, command),
    "run": lambda command: timed(tidy_process.run, command),
    "subprocess": lambda command: timed(subprocess.run, command),
    "aio": lambda command: timed(aio_of, command),
    "asyncio": lambda command: timed(asyncio_of, command),
    "import": importing,
    "test": testing,
}

for line in sys.stdin:
    what, *command = line.rstrip("\n").split("\t")
    print(CALLS[what](command), flush=True)
