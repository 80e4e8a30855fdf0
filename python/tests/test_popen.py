"""``Popen`` and ``run``: subprocess's behaviour, and what comes on top."""

from __future__ import annotations

import gc
import os
import selectors
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import warnings
from pathlib import Path
from typing import Any, Dict, List

import pytest
from conftest import SOON, alive, wait_for

import tidy_process
from tidy_process import (
    Error,
    Limits,
    Log,
    NotReady,
    Popen,
    PortTaken,
    Sandbox,
    Tree,
    free_port,
    run,
)

PIPE, DEVNULL = subprocess.PIPE, subprocess.DEVNULL


def test_run_ends_with_the_main_process_though_another_holds_the_pipe() -> None:
    begun = time.monotonic()
    done = run(["sh", "-c", "sleep 30 & echo hi"], capture_output=True, text=True)
    assert (done.stdout, done.returncode) == ("hi\n", 0)
    assert time.monotonic() - begun < 10
    assert done.report is not None
    assert [one.command[0] for one in done.report.leftovers] == ["sleep"]


def test_what_works_on_when_the_main_process_has_ended_is_read_to_its_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # However long a loaded machine takes.
    monkeypatch.setattr("tidy_process._communicate.SETTLE", SOON)
    # More than a pipe takes, so it is read in pieces.
    done = run("(seq 1 20000; exec >&-) & exit 3", shell=True, capture_output=True)
    assert (len(done.stdout), done.returncode) == (108894, 3)
    # It computes for longer than a pause, and what sleeps then is not waited for.
    compute = "i=0; while [ $i -lt 60000 ]; do i=$((i+1)); done; echo late; sleep 60"
    done = run(f"({compute}) & exit 3", shell=True, capture_output=True)
    assert done.stdout == b"late\n"


def test_linger_waits_for_all_that_hold_the_pipe() -> None:
    done = run("(sleep .3; echo late) &", shell=True, capture_output=True, linger=True)
    assert done.stdout == b"late\n"


def test_much_input_and_output_at_once() -> None:
    given = os.urandom(1_000_000)
    assert run(["cat"], input=given, capture_output=True).stdout == given
    assert run(["cat"], input="é\n", capture_output=True, encoding="latin-1").stdout == "é\n"


def test_a_timeout_kills_and_has_the_output_so_far() -> None:
    with pytest.raises(subprocess.TimeoutExpired) as expired:
        run("echo early; sleep 60", shell=True, capture_output=True, timeout=1)
    assert expired.value.stdout == b"early\n"


def test_check_raises_with_the_output() -> None:
    with pytest.raises(subprocess.CalledProcessError) as failed:
        run("echo out; exit 3", shell=True, capture_output=True, check=True)
    assert (failed.value.returncode, failed.value.stdout) == (3, b"out\n")


def test_exceptions_are_those_of_subprocess(tmp_path: Path) -> None:
    plain = tmp_path / "plain"
    plain.write_text("")
    cases = [
        ((["/no/such"],), {}),
        ((["no-such-program"],), {}),
        (([str(plain)],), {}),
        ((["true"],), {"cwd": "/no/dir"}),
        ((["true"],), {"cwd": str(plain)}),
        ((["tr\0ue"],), {}),
        ((["true"],), {"env": {"a=b": "c"}}),
        ((["true"],), {"user": 2**33}),
    ]
    for args, keywords in cases:
        told = []
        for popen in (subprocess.Popen, Popen):
            with pytest.raises(Exception) as raised:
                popen(*args, **keywords)
            error = raised.value
            where = getattr(error, "errno", None), getattr(error, "filename", None)
            told.append((type(error), *where))
        assert told[0] == told[1], (args, keywords)


def test_an_exec_error_carries_the_hint() -> None:
    if sys.version_info < (3, 11):
        pytest.skip("exceptions have notes from Python 3.11 on")
    with pytest.raises(FileNotFoundError) as raised:
        run(["no-such-program"])
    (note,) = raised.value.__notes__  # type: ignore[attr-defined]
    assert note.startswith("hint: is it installed")


def test_fds_session_umask_and_environment_go_to_the_child_as_with_subprocess() -> None:
    reader, writer = os.pipe()
    os.set_inheritable(reader, True)
    script = "ls /proc/self/fd; umask; echo $ONLY; ps -o sid= -p $$ | tr -d ' '; echo $$"
    try:
        done = run(
            script,
            shell=True,
            capture_output=True,
            text=True,
            pass_fds=[writer],
            umask=0o27,
            start_new_session=True,
            env={"ONLY": "x", "PATH": os.environ["PATH"]},
        )
    finally:
        os.close(reader)
        os.close(writer)
    *fds, mask, only, session, pid = done.stdout.split()
    assert str(writer) in fds and str(reader) not in fds
    assert (mask, only) == ("0027", "x")
    assert session == pid


def test_preexec_fn_runs_in_the_child_and_its_exception_is_one_here() -> None:
    done = run("ulimit -n", shell=True, capture_output=True, preexec_fn=lambda: _limit(37))
    assert done.stdout == b"37\n"
    with pytest.raises(subprocess.SubprocessError, match="preexec_fn"):
        run(["true"], preexec_fn=lambda: 1 / 0)


def _limit(number: int) -> None:
    import resource

    resource.setrlimit(resource.RLIMIT_NOFILE, (number, number))


def test_with_popen_waits_and_then_ends_the_tree(mark: str) -> None:
    with Popen("setsid -f sleep 60; exit 4", shell=True) as process:
        pass
    assert process.returncode == 4
    assert process.report is not None and process.report.leftover_count == 1
    assert not alive(mark)


def test_with_tidy_process_ends_the_tree_at_once(mark: str) -> None:
    with pytest.raises(KeyError):
        with tidy_process.tidy_process("setsid -f sleep 60; exec sleep 60", shell=True) as process:
            wait_for(lambda: len(process.processes()) == 2, "both sleeps")
            raise KeyError("an error of the block's")
    assert not alive(mark)
    assert process.report is not None and process.report.cause == "stopped"


def test_verbs_go_to_the_main_process_and_tree_verbs_to_all(mark: str) -> None:
    with Popen("sleep 60 & echo; wait", shell=True, stdout=PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        process.terminate()
        assert process.wait() == -signal.SIGTERM
        assert len(alive(mark)) == 1
        process.kill_tree()
        assert not alive(mark)


def test_a_grace_lets_the_tree_end_by_itself() -> None:
    script = "trap 'echo bye; exit 5' TERM; echo up; while :; do sleep .01; done"
    process = Popen(script, shell=True, stdout=PIPE, grace=SOON)
    assert process.stdout is not None
    process.stdout.readline()
    report = process.finish()
    assert report is not None and (report.returncode, report.cause) == (5, "stopped")


def test_a_deadline_is_kept_by_every_wait() -> None:
    process = Popen(["sleep", "60"], deadline=0.2)
    assert process.wait() == -signal.SIGKILL
    report = process.finish()
    assert report is not None and report.cause == "timed_out"
    assert report.interrupted[0].command == ("sleep", "60")


def test_a_deadline_is_kept_while_output_is_read(mark: str) -> None:
    done = run(["sh", "-c", "echo hi; sleep 60 & sleep 60"], capture_output=True, deadline=0.3)
    assert (done.returncode, done.stdout) == (-9, b"hi\n")
    assert done.report is not None and done.report.cause == "timed_out"
    # It reads nothing.
    script = "trap 'exit 5' TERM; sleep 60 & wait"
    process = Popen(script, shell=True, stdin=PIPE, deadline=0.3, grace=SOON)
    process.communicate(b"x" * (1 << 20))
    process.finish()
    assert process.returncode == 5 and not alive(mark)


def test_what_a_shared_tree_cannot_keep_is_refused() -> None:
    with Tree() as tree:
        given: List[Dict[str, Any]] = [{"deadline": 1}, {"grace": 1}, {"name": "n"}]
        for one in [*given, {"die_with": os.getppid()}, {"limits": tidy_process.Limits(cpus=1)}]:
            with pytest.raises(ValueError, match=next(iter(one))):
                Popen(["true"], tree=tree, **one)


def test_a_status_that_other_code_has_taken_is_no_success(mark: str) -> None:
    process = Popen("setsid -f sleep 60; exit 0", shell=True)
    os.waitpid(process.pid, 0)
    assert process.wait() == 255
    report = process.finish()
    assert report is not None and report.cause == "status_taken" and not report.success
    assert not alive(mark)


def test_readiness_is_that_of_the_tree(tmp_path: Path) -> None:
    port = free_port()
    command = [sys.executable, "-m", "http.server", "--bind", "127.0.0.1", str(port)]
    with tidy_process.tidy_process(command, stderr=DEVNULL, stdout=DEVNULL, cwd=tmp_path) as server:
        server.wait_ready(port=port)
        server.wait_ready(http=f"http://127.0.0.1:{port}/")
        assert [one.port for one in server.ports()] == [port]
        with tidy_process.tidy_process(["sleep", "60"]) as other:
            with pytest.raises(PortTaken) as taken:
                other.wait_ready(port=port)
            assert taken.value.holder is not None and taken.value.holder.pid == server.pid
    with pytest.raises(NotReady):
        Popen(["false"]).wait_ready(port=port, timeout=SOON)
    log = Log()
    with tidy_process.tidy_process("echo serving; sleep 60", shell=True, log=log) as shell:
        shell.wait_ready(line="serving")
        asked = []
        shell.wait_ready(when=lambda: asked.append(1) or len(asked) == 3)
        with pytest.raises(ZeroDivisionError):
            shell.wait_ready(when=lambda: 1 / 0)
        with pytest.raises(NotReady, match="serving"):
            shell.wait_ready(file=tmp_path / "never", timeout=0.05)
    assert log.text() == "serving\n"


def test_the_pidfd_is_for_selectors() -> None:
    process = Popen(["true"])
    with selectors.DefaultSelector() as selector:
        selector.register(process, selectors.EVENT_READ)
        assert selector.select(SOON)
    assert process.poll() == 0
    process.finish()


def test_a_dropped_object_ends_its_tree(mark: str) -> None:
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        process = Popen("setsid -f sleep 60; exec sleep 60", shell=True)
        wait_for(lambda: len(process.processes()) == 2, "both sleeps")  # noqa: F821
        del process
        categories = [one.category for one in seen]
        seen.clear()  # They hold their source.
        gc.collect()
    assert categories == [ResourceWarning]
    wait_for(lambda: not alive(mark), "the end of its tree")


def test_other_threads_run_while_one_waits() -> None:
    done = threading.Event()
    process = Popen(["cat"], stdin=PIPE)
    waiting = threading.Thread(target=lambda: (process.wait(), done.set()))
    waiting.start()
    assert process.stdin is not None
    process.stdin.close()  # With the GIL held by the wait this thread would not come here.
    assert done.wait(SOON)
    waiting.join()
    process.finish()


def test_a_limit_that_cannot_be_enforced_is_an_error_with_a_hint() -> None:
    try:
        run(["true"], limits=Limits(pids_max=10))
    except Error as error:
        assert isinstance(error, tidy_process.LimitError)
        assert error.hint
    with pytest.raises(ValueError, match="negative"):
        run(["true"], limits=Limits(pids_max=-1))
    process = Popen(["sh", "-c", "while :; do :; done"], limits=Limits(cpu_time=0.1))
    assert process.wait() == -signal.SIGKILL
    report = process.finish()
    assert report is not None and report.cause == "cpu_time_exceeded"


def test_a_sandbox_confines_or_the_command_is_not_run() -> None:
    # The user of a sandbox, who owns nothing, does not come through pytest's directory.
    tmp_path = Path(tempfile.mkdtemp(dir="/var/tmp"))
    tmp_path.chmod(0o755)
    secret = tmp_path / "secret"
    secret.write_text("s")
    try:
        done = run(["cat", str(secret)], sandbox=Sandbox(), capture_output=True, cwd="/")
    except Error as error:
        assert error.step is None or error.hint or "confine" in str(error)
    else:
        assert done.returncode == 1 and done.stdout == b""
        seen = run(
            ["cat", str(secret)], sandbox=Sandbox(read=[tmp_path]), capture_output=True, cwd="/"
        )
        assert seen.stdout == b"s"
    finally:
        shutil.rmtree(tmp_path)


def test_several_commands_share_a_tree(mark: str) -> None:
    with Tree("shared") as tree:
        one = Popen(["sleep", "60"], tree=tree)
        two = Popen("setsid -f sleep 60; exec sleep 60", shell=True, tree=tree)
        wait_for(lambda: len(tree.processes()) == 3, "three sleeps")
    assert (one.wait(), two.wait()) == (-9, -9)
    assert not alive(mark)
    assert tree.finish().leftover_count == 3


def test_a_detached_tree_lives_until_this_process_ends(mark: str) -> None:
    script = (
        "import tidy_process, sys; p = tidy_process.Popen(['sleep', '60']); p.detach(); del p;"
        "import gc; gc.collect(); input()"
    )
    with Popen([sys.executable, "-c", script], stdin=PIPE) as python:
        wait_for(lambda: len(alive(mark)) >= 2 + (_guards(mark)), "the sleep")
        assert python.stdin is not None
    assert python.returncode == 1  # EOFError of input()
    assert not alive(mark)


def _guards(mark: str) -> int:
    names = []
    for pid in alive(mark):
        try:
            names.append(Path(f"/proc/{pid}/comm").read_text())
        except OSError:
            pass
    return sum("tidy" in name for name in names)


def test_install_makes_the_standard_library_tidy(mark: str) -> None:
    tidy_process.install()
    try:
        assert subprocess.Popen is Popen
        subprocess.run("setsid -f sleep 60", shell=True, check=True)
        assert not alive(mark)
        assert subprocess.check_output(["echo", "hi"]) == b"hi\n"
    finally:
        tidy_process.uninstall()
    assert subprocess.Popen is not Popen
