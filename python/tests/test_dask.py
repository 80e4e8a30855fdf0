"""Commands as tasks of Dask: whatever dies, nothing of them is left on the node, looked at by the
node's cgroup; the same tasks without the package leave something each time."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Callable, Dict, Iterator, List, Set

import pytest
from conftest import SOON, wait_for
from distributed import Client, LocalCluster
from distributed.worker import Worker

from tidy_process import Popen, Tree
from tidy_process.dask import TidyPlugin, run

JOBS = 3


class Node:
    """A scheduler, and a worker with its nanny, in a cgroup that they do not leave."""

    def __init__(self, dir: Path) -> None:
        self.dir, self.tree = dir, Tree()
        file = ["--scheduler-file", str(dir / "scheduler.json")]
        self.scheduler = self._start("scheduler", "--host", "127.0.0.1", "--port", "0", *file)
        wait_for((dir / "scheduler.json").exists, "the scheduler's file")
        own = ["--nthreads", "4", "--memory-limit", "0", "--local-directory", str(dir)]
        self.nanny = self._start("worker", "--host", "127.0.0.1", *file, *own)
        self.client = Client(scheduler_file=file[1])
        self.client.wait_for_workers(1, timeout=SOON)

    def _start(self, what: str, *options: str) -> Popen:
        module = f"distributed.cli.dask_{what}"
        command = [sys.executable, "-m", module, "--no-dashboard", *options]
        log = open(self.dir / f"{what}.log", "wb")
        with log:
            return Popen(command, stdout=log, stderr=log, tree=self.tree, cwd=self.dir)

    def worker(self) -> int:
        (pid,) = self.client.run(os.getpid).values()
        return int(pid)

    def victims(self) -> Set[int]:
        """What commands have started, and what that has."""
        found = set()
        # Of what is removed meanwhile nothing is seen.
        for dir, *_ in os.walk(str(self.tree._native.path())):
            with contextlib.suppress(OSError):
                pids = Path(dir, "cgroup.procs").read_text().split()
                found.update(int(pid) for pid in pids if _command(pid).startswith(b"sleep\0"))
        return found

    def close(self) -> None:
        self.tree.finish()
        self.client.close(timeout=1)


def _command(pid: str) -> bytes:
    try:
        return Path("/proc", pid, "cmdline").read_bytes()
    except OSError:
        return b""


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Node]:
    node = Node(tmp_path)
    try:
        yield node
    finally:
        node.close()


def jobs(dir: Path) -> List[List[str]]:
    """Each has a daemon and a process in the background, and says when they are there."""
    script = "setsid -f sleep 300; sleep 300 & echo >>{}; exec sleep 300"
    return [["sh", "-c", script.format(dir / f"up-{number}")] for number in range(JOBS)]


def started(node: Node) -> Set[int]:
    wait_for(lambda: len(node.victims()) == 3 * JOBS, "the start of all jobs")
    return node.victims()


CLIENT = """
import subprocess, sys, time
from distributed import Client
from tidy_process.dask import run
client = Client(scheduler_file=sys.argv[1])
futures = [client.submit({call}, words, pure=False) for words in {jobs!r}]
time.sleep(300)
"""


def kill_client(node: Node, futures: Any, kept: Dict[str, Any]) -> None:
    kept["client"].kill()


def kill_worker(node: Node, *_: Any) -> None:
    os.kill(node.worker(), signal.SIGKILL)


FAULTS: Dict[str, Callable[[Node, List[Any], Dict[str, Any]], Any]] = {
    "worker -9": kill_worker,
    "nanny -9": lambda node, *_: node.nanny.kill(),
    "nanny TERM": lambda node, *_: node.nanny.terminate(),
    "restart": lambda node, *_: node.client.restart(wait_for_workers=False),
    "cancel": lambda node, futures, _: node.client.cancel(futures),
    "client -9": kill_client,
    "scheduler -9": lambda node, *_: node.scheduler.kill(),
}


@pytest.mark.parametrize("ours", [False, True], ids=["plain", "ours"])
@pytest.mark.parametrize("fault", FAULTS)
def test_nothing_of_a_task_is_left_whatever_dies(fault: str, ours: bool, node: Node) -> None:
    kept: Dict[str, Any] = {}
    if ours:
        node.client.register_plugin(TidyPlugin())
    function: Any = run if ours else subprocess.run
    futures = []
    if fault == "client -9":
        call = "run" if ours else "subprocess.run"
        code = CLIENT.format(call=call, jobs=jobs(node.dir))
        file = str(node.dir / "scheduler.json")
        kept["client"] = Popen([sys.executable, "-c", code, file], tree=node.tree)
    else:
        futures = [node.client.submit(function, words, pure=False) for words in jobs(node.dir)]
    before = started(node)
    FAULTS[fault](node, futures, kept)
    if ours:
        wait_for(lambda: not before & node.victims(), "the end of all that the jobs have started")
    else:
        time.sleep(2)  # more than ours takes
        assert before & node.victims() == before


@pytest.fixture
def client() -> Iterator[Client]:
    with LocalCluster(
        n_workers=1, threads_per_worker=2, processes=False, dashboard_address=None
    ) as cluster:
        with Client(cluster) as client:
            client.register_plugin(TidyPlugin())
            yield client


def test_a_task_returns_its_report(client: Client, tmp_path: Path) -> None:
    out = tmp_path / "out"
    report = client.submit(run, ["sh", "-c", "sleep 60 & echo hi; exit 3"], stdout=out).result()
    assert (report.returncode, report.cause, out.read_text()) == (3, "exited", "hi\n")
    assert [one.command for one in report.leftovers] == [("sleep", "60")]
    report = client.submit(run, ["sleep", "60"], deadline=0.1).result()
    assert report.cause == "timed_out"
    both = client.submit(run, ["sh", "-c", "echo a; echo b >&2"], stdout=out, stderr=out)
    both.result()
    assert out.read_text() == "a\nb\n"


def test_a_failure_is_tried_again(client: Client, tmp_path: Path) -> None:
    script = f"echo >>{tmp_path}/tries; [ $(wc -l <{tmp_path}/tries) = 3 ]"
    words = ["sh", "-c", script]
    assert client.submit(run, words, check=True, retries=2, pure=False).result().success
    (tmp_path / "tries").unlink()
    with pytest.raises(subprocess.CalledProcessError):
        client.submit(run, words, check=True, retries=1, pure=False).result()
    with pytest.raises(FileNotFoundError):
        client.submit(run, ["/nothing/here"], pure=False).result()


def test_a_task_that_is_asked_for_again_runs_again(client: Client, tmp_path: Path) -> None:
    # Deaf to the stop signal: it is there while its key is asked for again.
    script = f"trap '' TERM; echo >>{tmp_path}/up; while [ ! -e {tmp_path}/go ]; do sleep .1; done"
    words = ["sh", "-c", script]
    first = client.submit(run, words, grace=1, key="again")
    wait_for((tmp_path / "up").exists, "the start")
    first.cancel(force=True)
    wait_for(lambda: not client.run_on_scheduler(has, "again"), "the cancelling")
    # Another one's: the first client takes a late word of the cancelling for that of the second.
    other = Client(client.scheduler.address)
    again = other.submit(run, words, grace=1, key="again")
    wait_for(lambda: (tmp_path / "up").read_text() == "\n\n", "the second start")
    (tmp_path / "go").touch()
    assert again.result(timeout=SOON).success
    other.close()


def has(key: str, dask_scheduler: Any = None) -> bool:
    return key in dask_scheduler.tasks


def test_a_task_that_was_cancelled_before_it_starts_starts_nothing(
    client: Client, tmp_path: Path
) -> None:
    def late(words: List[str], dir: str) -> object:
        Path(dir, "here").touch()
        while not Path(dir, "go").exists():
            time.sleep(0.01)
        return run(words)

    future = client.submit(late, ["touch", f"{tmp_path}/ran"], str(tmp_path))
    wait_for((tmp_path / "here").exists, "the task")

    def states(dask_worker: Worker) -> List[str]:
        return [task.state for task in dask_worker.state.tasks.values()]

    future.cancel()
    # The worker runs in this process, and on its own loop.
    wait_for(lambda: "executing" not in sum(client.run(states).values(), []), "the cancelling")
    (tmp_path / "go").touch()
    wait_for(lambda: not sum(client.run(states).values(), []), "the end of the task")
    assert not (tmp_path / "ran").exists()


def guard(worker: int) -> int:
    """The process that ends a worker's trees when the worker is killed."""
    children = Path(f"/proc/{worker}/task/{worker}/children").read_text().split()
    (found,) = [int(one) for one in children if b"tidy" in Path(f"/proc/{one}/comm").read_bytes()]
    return found


def test_a_new_worker_sweeps_what_one_has_left_whose_guard_was_killed_too(node: Node) -> None:
    node.client.register_plugin(TidyPlugin())
    futures = [node.client.submit(run, words, pure=False) for words in jobs(node.dir)]
    before, worker = started(node), node.worker()
    # Stopped first: neither has time to see the other's end.
    os.kill(guard(worker), signal.SIGSTOP)
    for one in (guard(worker), worker):
        os.kill(one, signal.SIGKILL)
    wait_for(lambda: not before & node.victims(), "the new worker's sweep")
    assert len(futures) == JOBS
