"""How a Python program may end, fork and be interrupted: nothing of its trees outlives it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
from typing import List

import pytest
from conftest import SOON, alive, wait_for

# A server that leaves a daemon beside it.
SERVER = "['sh', '-c', 'setsid -f sleep 300; echo; exec sleep 300']"


def python(script: str, **keywords: object) -> "subprocess.Popen[str]":
    command = [sys.executable, "-W", "error", "-c", textwrap.dedent(script)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, **keywords)  # type: ignore


def ended(process: "subprocess.Popen[str]") -> List[str]:
    out, _ = process.communicate(timeout=3 * SOON)
    return out.split()


ENDS = {
    "the end of the script": "",
    "an exception": "raise SystemExit(3)",
    "os._exit": "import os; os._exit(3)",
    "SIGKILL": "import os; os.kill(os.getpid(), 9)",
    "SIGTERM": "import os; os.kill(os.getpid(), 15)",
    "a crash": "import ctypes; ctypes.string_at(0)",
}


@pytest.mark.parametrize("how", ENDS)
def test_nothing_outlives_python_however_that_ends(how: str, mark: str) -> None:
    process = python(f"""
        import subprocess, tidy_process
        proc = tidy_process.Popen({SERVER}, stdout=subprocess.PIPE)
        proc.stdout.readline()
        print("up", flush=True)
        import warnings; warnings.simplefilter("ignore")
        {ENDS[how]}
    """)
    assert ended(process) == ["up"]
    wait_for(lambda: not alive(mark), "the end of the tree")


WAITS = {
    "wait": "proc.wait()",
    "communicate": "proc.communicate()",
    "wait_ready": "proc.wait_ready(port=1, timeout=60)",
    "finish with a grace": "proc.finish()",
    "stop with a grace": "proc.stop(60)",
}


@pytest.mark.parametrize("what", WAITS)
def test_ctrl_c_ends_every_wait_at_once(what: str, mark: str) -> None:
    process = python(f"""
        import signal, subprocess, threading, time, tidy_process, os
        # Deaf to the stop signal, so a grace lasts.
        proc = tidy_process.Popen("trap '' TERM; echo; sleep 300; sleep 300", shell=True,
                                  stdout=subprocess.PIPE, grace=60)
        proc.stdout.readline()
        sent = []
        def interrupt():
            time.sleep(.3)  # by then the main thread waits
            sent.append(time.monotonic())
            os.kill(os.getpid(), signal.SIGINT)
        threading.Thread(target=interrupt).start()
        try:
            {WAITS[what]}
        except KeyboardInterrupt:
            print(time.monotonic() - sent[0])
        finally:
            proc.kill_tree()
    """)
    (late,) = ended(process)
    # 5 ms, times ten for a loaded machine, and the time that a kill takes there.
    assert float(late) < 0.25
    assert not alive(mark)


def test_ctrl_c_ends_the_block_and_its_tree(mark: str) -> None:
    process = python(f"""
        import subprocess, time, tidy_process
        try:
            with tidy_process.tidy_process({SERVER}, stdout=subprocess.PIPE) as proc:
                proc.stdout.readline()
                print("up", flush=True)
                time.sleep(60)
        except KeyboardInterrupt:
            print(proc.report.cause)
    """)
    assert process.stdout is not None
    assert process.stdout.readline() == "up\n"
    process.send_signal(signal.SIGINT)
    assert ended(process) == ["stopped"]
    assert not alive(mark)


def test_a_fork_has_trees_of_its_own_and_leaves_its_parents_alone(mark: str) -> None:
    process = python(f"""
        import os, subprocess, tidy_process
        proc = tidy_process.Popen({SERVER}, stdout=subprocess.PIPE)
        proc.stdout.readline()
        pid = os.fork()
        if pid == 0:
            try:
                proc.wait()
            except RuntimeError:
                print("not-mine", flush=True)
            done = tidy_process.run(["echo", "own"], capture_output=True)
            print(done.stdout.decode(), flush=True)
            proc.returncode = 0
            del proc
            tidy_process._native.shutdown()
            os._exit(0)
        os.waitpid(pid, 0)
        print(len(proc.processes()), flush=True)
        proc.finish()
    """)
    assert ended(process) == ["not-mine", "own", "2"]
    assert not alive(mark)


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_multiprocessing_works_beside_it(
    method: str, tmp_path: "os.PathLike[str]", mark: str
) -> None:
    path = os.path.join(tmp_path, "main.py")
    with open(path, "w") as file:
        file.write(
            textwrap.dedent(f"""
            import multiprocessing, tidy_process
            def work(number):
                done = tidy_process.run(["sh", "-c", f"sleep 300 & echo {{number}}"],
                                        capture_output=True, text=True)
                return int(done.stdout)
            if __name__ == "__main__":
                tidy_process.run(["true"])
                with multiprocessing.get_context({method!r}).Pool(2) as pool:
                    print(*pool.map(work, range(4)))
        """)
        )
    out = subprocess.run([sys.executable, path], capture_output=True, text=True, timeout=3 * SOON)
    assert out.stdout.split() == ["0", "1", "2", "3"], out.stderr
    wait_for(lambda: not alive(mark), "the end of its workers")


def test_a_subinterpreter_gets_a_clean_import_error() -> None:
    process = python(
        """
        import sys, tidy_process
        code = (
            "try:\\n import tidy_process\\n"
            "except ImportError as error:\\n print('clean', flush=True)"
        )
        try:
            import _xxsubinterpreters as interpreters
        except ImportError:
            import _interpreters as interpreters
        # A legacy one, that shares the GIL, and an isolated one.
        for isolated in [False, True] if sys.version_info < (3, 13) else ["legacy", "isolated"]:
            if sys.version_info < (3, 13):
                own = interpreters.create(isolated=isolated)
            else:
                own = interpreters.create(isolated)
            interpreters.run_string(own, code)
            interpreters.destroy(own)
    """,
        stderr=subprocess.PIPE,
    )
    out, err = process.communicate(timeout=SOON)
    if "No module named" in err:
        pytest.skip("this Python has no way to make a subinterpreter")
    assert out.split() == ["clean", "clean"], err


def test_a_drop_never_blocks_other_threads(mark: str) -> None:
    process = python("""
        import threading, time, tidy_process, warnings
        warnings.simplefilter("ignore")
        # Deaf to the stop signal: its end takes the whole grace.
        proc = tidy_process.Popen("trap '' TERM; sleep 300; sleep 300", shell=True, grace=1)
        time.sleep(.2)  # it has set its trap
        begun = time.monotonic()
        del proc
        print(time.monotonic() - begun)
    """)
    (took,) = ended(process)
    assert float(took) < 0.5
    wait_for(lambda: not alive(mark), "the end of the tree")


def test_the_import_brings_nothing_that_costs_much() -> None:
    script = """
        import subprocess, sys
        before = set(sys.modules)
        import tidy_process
        print(*sorted(name for name in set(sys.modules) - before if "tidy" not in name))
        print(tidy_process.Limits, tidy_process.free_port, tidy_process.Tree, file=sys.stderr)
    """
    brought = ended(python(script, stderr=subprocess.DEVNULL))
    assert set(brought) <= {"__future__", "atexit"}


def test_a_thread_that_changes_the_environment_takes_nothing_from_a_child() -> None:
    # putenv moves the C library's table, which a spawn without the GIL would read meanwhile.
    process = python("""
        import os, subprocess, threading, time, tidy_process
        kept = {f"TIDY_KEPT_{number}": "x" * 20 for number in range(8000)}
        os.environ.update(kept)
        changed = {f"TIDY_KEPT_{number}" for number in range(20)}
        over = threading.Event()
        def change():
            # The first ones: each that goes moves all behind it.
            while not over.is_set():
                for number in range(20):
                    os.environ.pop(f"TIDY_KEPT_{number}", None)
                for number in range(20):
                    os.environ[f"TIDY_KEPT_{number}"] = "y" * 50
        changing = threading.Thread(target=change)
        changing.start()
        lost = 0
        until = time.monotonic() + 3
        while time.monotonic() < until:
            told = tidy_process.run(["/usr/bin/env"], capture_output=True, text=True).stdout
            names = {line.partition("=")[0] for line in told.splitlines()}
            lost += len(kept.keys() - names - changed)
        over.set()
        changing.join()
        print(lost)
    """)
    assert (ended(process), process.returncode) == (["0"], 0)
