"""The plugin's fixtures, and the processes that libraries keep."""

from __future__ import annotations

from pathlib import Path

from conftest import alive
from plugged import pytest_on


def test_what_the_fixtures_start_ends_with_the_test(tmp_path: Path, mark: str) -> None:
    ran = pytest_on(
        """
        import pytest, socket, subprocess, sys, tidy_process

        SERVE = [sys.executable, "-u", "-m", "http.server", "--bind", "127.0.0.1"]

        def test_start(tidy_process):
            global started
            started = tidy_process(["sh", "-c", "sleep 301 & sleep 302"])
            assert started.poll() is None

        def test_it_has_ended():
            assert started.returncode is not None

        def test_any_port(tidy_server):
            server = tidy_server([*SERVE, "0"], port=0)
            socket.create_connection(("127.0.0.1", server.ports()[0].port)).close()

        def test_line(tidy_server, tidy_port):
            tidy_server([*SERVE, str(tidy_port)], line="Serving HTTP")
            socket.create_connection(("127.0.0.1", tidy_port)).close()

        def test_http(tidy_server, tidy_port):
            tidy_server([*SERVE, str(tidy_port)], http=f"http://127.0.0.1:{tidy_port}/")

        def test_it_is_not_ready(tidy_server):
            with pytest.raises(tidy_process.NotReady, match="what it has written"):
                tidy_server(["sh", "-c", "echo what it has written; exit 3"], port=0)
        """,
        tmp_path,
        "--tidy=fail",
    )
    assert (ran.failed(), ran.status) == ([], 0), ran.text
    assert not alive(mark)


def test_a_helper_is_known_by_its_command_and_its_parent(tmp_path: Path, mark: str) -> None:
    # As loky starts its workers.
    package = tmp_path / "loky" / "backend"
    package.mkdir(parents=True)
    # Found before the one that is installed, which a package without this is not.
    for directory in (package.parent, package):
        (directory / "__init__.py").touch()
    (package / "popen_loky_posix.py").write_text("import time; time.sleep(300)\n")
    ran = pytest_on(
        """
        import shlex, subprocess, sys

        WORKER = [sys.executable, "-m", "loky.backend.popen_loky_posix", "--pipe", "3"]

        def test_own():
            global kept
            kept = subprocess.Popen(WORKER)

        def test_of_another_program():
            subprocess.run(["sh", "-c", shlex.join(WORKER) + " & exit"])

        def test_it_lives():
            assert kept.poll() is None
            kept.kill()
            kept.wait()
        """,
        tmp_path,
        "--tidy=fail",
    )
    assert ran.failed() == ["test_of_another_program"], ran.text
    assert not alive(mark)
