"""An experiment with a real Flask application, as often as you like on one port.

    python experiment.py PORT [--times N] [--fail] [--pause]

In debug mode Flask's reloader is the process that is started, and its child the one that serves:
who kills the first leaves the second, and the port is taken. Here the block ends both, however it
is left: at its end, by an exception, by Ctrl-C; and if Python itself is killed, its guard does.
"""

import argparse
import json
import sys
import tempfile
import urllib.request
from pathlib import Path

from tidy_process import tidy_process

APP = Path(__file__).resolve().parent.parent / "flask" / "app.py"


def ask(port: int, number: int) -> int:
    url = f"http://127.0.0.1:{port}/square/{number}"
    with urllib.request.urlopen(url, timeout=10) as answer:
        return int(json.load(answer)["square"])


def experiment(port: int, fail: bool, pause: bool) -> None:
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        with tidy_process([sys.executable, APP, str(port)], stdout=out, stderr=err) as proc:
            proc.wait_ready(http=f"http://127.0.0.1:{port}/", timeout=60)
            print("serving:", *(process.pid for process in proc.processes()), flush=True)
            squares = [ask(port, number) for number in range(10)]
            if fail:
                raise ValueError("something went wrong in the middle")
            assert squares == [number * number for number in range(10)]
            if pause:
                input("Enter ends it, and so does Ctrl-C: ")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("port", type=int)
    parser.add_argument("--times", type=int, default=1)
    parser.add_argument("--fail", action="store_true")
    parser.add_argument("--pause", action="store_true")
    options = parser.parse_args()
    for _ in range(options.times):
        experiment(options.port, options.fail, options.pause)
    print(f"{options.times} times, and nothing is left")


if __name__ == "__main__":
    main()
