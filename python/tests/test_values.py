"""Limits, sandboxes, and what reports say."""

from __future__ import annotations

import pickle
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Iterator

import pytest
from conftest import SOON

import tidy_process
from tidy_process import IoLimit, LimitError, Limits, Popen, Sandbox, Tree, run


@pytest.fixture
def open_dir() -> Iterator[Path]:
    """The user of a sandbox, who owns nothing, does not come through pytest's own directories."""
    made = Path(tempfile.mkdtemp(dir="/var/tmp"))
    made.chmod(0o755)
    yield made
    shutil.rmtree(made)


def sandboxed(sandbox: Sandbox, *args: str, **popen: object) -> tidy_process.CompletedProcess:
    """Skips where this machine cannot confine."""
    try:
        return run(args, sandbox=sandbox, capture_output=True, text=True, cwd="/", **popen)
    except tidy_process.Error as error:
        if error.step == "prepare":
            raise
        pytest.skip(str(error))


def test_a_limit_of_a_device_names_the_device() -> None:
    limits = Limits(io={"/dev/null": IoLimit(read_bytes=1 << 20, write_ops=5)})
    for start in (lambda: run(["true"], limits=limits), lambda: Tree(limits=limits)):
        with pytest.raises(LimitError, match="no block device has this path or number"):
            start()
    with pytest.raises(ValueError, match="read_ops is -1"):
        run(["true"], limits=Limits(io={"8:0": IoLimit(read_ops=-1)}))


def test_a_report_says_all_that_is_known() -> None:
    report = run(["sh", "-c", "sleep 60 & exit 3"]).report
    assert report is not None
    assert (report.returncode, report.cause, report.success) == (3, "exited", False)
    assert (report.leftover_count, len(report.leftovers)) == (1, 1)
    assert report.user is not None and report.wall > 0 and report.notes == ()
    # Without a limit nothing but CPU time is asked for.
    assert report.io_read is None and report.memory_peak is None
    assert (report.sandbox, report.changes, report.denied) == (None, (), ())
    assert str(report) == report.text and "killed 1 leftover" in report.text
    with Tree() as tree:
        Popen(["sleep", "60"], tree=tree)
    ended = tree.finish()
    assert ended.leftover_count == 1 and ended.text.startswith("ended after")


def test_a_timeout_says_what_it_has_interrupted() -> None:
    report = run(["sh", "-c", "sleep 60 & wait"], deadline=0.3).report
    assert report is not None and report.cause == "timed_out"
    assert report.interrupted_count == len(report.interrupted) == 2


def test_what_has_run_can_be_pickled() -> None:
    done = run(["sh", "-c", "sleep 60 & echo hi"], capture_output=True, text=True)
    again = pickle.loads(pickle.dumps(done))
    assert (again.args, again.returncode, again.stdout) == (done.args, 0, "hi\n")
    assert again.report == done.report and again.report.leftover_count == 1


def test_a_system_call_is_denied_and_another_allowed() -> None:
    assert sandboxed(Sandbox(fence=True), "uname").returncode == 0
    denied = sandboxed(Sandbox(fence=True, deny_syscalls=["uname"]), "uname")
    assert denied.returncode != 0 and "Operation not permitted" in denied.stderr
    allowed = sandboxed(Sandbox(fence=True, allow_syscalls=["ptrace"]), "true").report
    assert allowed is not None and allowed.sandbox is not None
    assert (allowed.sandbox.level, allowed.sandbox.excepted) == ("fence", ("ptrace",))
    with pytest.raises(tidy_process.Error, match="no_such_call"):
        run(["true"], sandbox=Sandbox(fence=True, deny_syscalls=["no_such_call"]))


def test_a_sandbox_explains_what_it_has_denied() -> None:
    done = sandboxed(Sandbox(explain=True), "sh", "-c", "echo >/usr/tidy")
    report = done.report
    assert report is not None and report.denied_count == len(report.denied) >= 1
    # A shell may look for other things besides.
    (denied,) = [one for one in report.denied if one.target == "/usr/tidy"]
    assert (denied.action, denied.remedy) == ("write", "--write /usr")
    assert denied.name == "sh" and denied.times == 1 and str(denied).startswith("write /usr/tidy")
    assert "seccomp" in Sandbox(explain=True).plan()


def test_what_is_written_in_an_overlay_is_listed_and_committed(open_dir: Path) -> None:
    (open_dir / "old").write_text("old")
    sandbox = Sandbox(overlay=[open_dir])
    report = sandboxed(sandbox, "sh", "-c", f"cd {open_dir} && rm old && echo 1 >new").report
    assert report is not None
    (changes,) = report.changes
    assert changes.dir == str(open_dir) and sorted(open_dir.iterdir()) == [open_dir / "old"]
    listed = changes.list()
    assert [(one.path, one.kind) for one in listed.changes] == [
        ("new", "added"),
        ("old", "removed"),
    ]
    assert (listed.count, listed.skipped) == (2, 0)
    assert changes.commit().count == 2
    assert [one.name for one in open_dir.iterdir()] == ["new"]


CONNECT = """
import socket
with socket.create_connection(("127.0.0.1", 8080), timeout=20) as peer:
    peer.sendall(b"from inside")
"""


def test_a_forwarded_port_is_served_from_outside() -> None:
    sandboxed(Sandbox(network="forward:8080"), "true")
    python = ["/usr/bin/python3", "-c", CONNECT]
    if not Path(python[0]).exists():
        pytest.skip("the sandbox shows /usr, and there is no Python in it")
    sandbox = Sandbox(network="forward:8080")
    with Popen(python, sandbox=sandbox, cwd="/", stderr=subprocess.PIPE) as process:
        listener = process.forwarded
        assert listener is not None and process.forwarded is listener
        listener.settimeout(SOON)
        peer, _ = listener.accept()
        with peer:
            assert peer.recv(100) == b"from inside"
        listener.close()
    assert process.returncode == 0
    with Popen(["true"]) as process:
        assert process.forwarded is None
    with pytest.raises(ValueError, match="forward:PORT"):
        run(["true"], sandbox=Sandbox(network="elsewhere"))


def test_a_sandbox_is_made_once_and_again_for_what_has_changed(open_dir: Path) -> None:
    shown = [open_dir / "one"]
    for name in ("one", "two"):
        (open_dir / name).write_text(name)
    sandbox = Sandbox(read=shown)
    assert sandboxed(sandbox, "cat", str(open_dir / "one")).stdout == "one"
    assert sandbox._native(()) is sandbox._native(())
    assert sandboxed(sandbox, "cat", str(open_dir / "two")).returncode != 0
    shown.append(open_dir / "two")
    assert sandboxed(sandbox, "cat", str(open_dir / "two")).stdout == "two"
    assert pickle.loads(pickle.dumps(sandbox)) == sandbox


def test_all_names_are_there_and_listed() -> None:
    for name in tidy_process.__all__:
        assert getattr(tidy_process, name) is not None and name in dir(tidy_process)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        tidy_process.nothing  # type: ignore[attr-defined]
    assert sys.modules["tidy_process._values"].Report is tidy_process.Report


def test_a_sandbox_shows_no_variable_but_what_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TIDY_SECRET", "a secret")
    assert "TIDY_SECRET=a secret" in run(["env"], capture_output=True, text=True).stdout
    assert "TIDY_SECRET" not in sandboxed(Sandbox(), "env").stdout
    assert "TIDY_SECRET=a secret" in sandboxed(Sandbox(keep_env=["TIDY_SECRET"]), "env").stdout
    own = sandboxed(Sandbox(), "env", env={"TIDY_OWN": "its own"}).stdout
    assert "TIDY_OWN=its own" in own and "TIDY_SECRET" not in own
