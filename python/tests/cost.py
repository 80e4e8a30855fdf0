"""What it costs beside the standard library: interleaved, the median; for a quiet machine.

python cost.py [ROUNDS]
"""

import asyncio
import statistics
import subprocess
import sys
import time

from tidy_process import aio, run, tidy_process

ROUNDS = int(sys.argv[1]) if len(sys.argv) > 1 else 300
TRUE = ["/bin/true"]


def block() -> None:
    with tidy_process(TRUE) as process:
        process.wait()


def compare(name: str, ours: object, theirs: object) -> None:
    times: dict = {ours: [], theirs: []}
    for _ in range(ROUNDS):
        for one in (ours, theirs):
            begun = time.perf_counter()
            one()  # type: ignore[operator]
            times[one].append(time.perf_counter() - begun)
    mine, other = (statistics.median(times[one]) * 1e3 for one in (ours, theirs))
    print(f"{name}: {mine:.2f} ms, the standard library {other:.2f} ms: {mine / other:.2f}")


def main() -> None:
    compare("with tidy_process", block, lambda: subprocess.run(TRUE))
    compare("run", lambda: run(TRUE), lambda: subprocess.run(TRUE))
    loop = asyncio.new_event_loop()

    async def theirs() -> None:
        process = await asyncio.create_subprocess_exec(*TRUE)
        await process.wait()

    compare(
        "aio.run",
        lambda: loop.run_until_complete(aio.run(TRUE)),
        lambda: loop.run_until_complete(theirs()),
    )
    ballast = bytearray(1 << 30)
    ballast[::4096] = b"x" * len(ballast[::4096])
    compare("with tidy_process, 1 GiB touched", block, lambda: subprocess.run(TRUE))
    code = "import subprocess, time; t = time.perf_counter(); import tidy_process; "
    code += "print(time.perf_counter() - t)"
    took = [float(subprocess.check_output([sys.executable, "-c", code])) for _ in range(20)]
    print(f"import over that of subprocess: {statistics.median(took) * 1e3:.2f} ms")


if __name__ == "__main__":
    main()
