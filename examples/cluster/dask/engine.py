"""A Dask cluster on the three nodes: a scheduler on the head, a nanny with its worker on each node."""

import contextlib
import logging
import os
import subprocess
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from distributed import Client  # noqa: E402
from nodes import HOME, SOON, sh, until, words_of  # noqa: E402
from tidy_process.dask import TidyPlugin  # noqa: E402

# A scheduler that is killed is no news here.
logging.disable(logging.CRITICAL)

ADDRESS = "tcp://10.77.0.1:8786"
SETTINGS = {
    # A cut link is noticed after this time (less is refused), and not after half a minute.
    "DASK_DISTRIBUTED__COMM__TIMEOUTS__TCP": "11s",
    "PYTHONDONTWRITEBYTECODE": "1",
}


def reach(cluster):
    """An address for this process, which is the client: it holds the bridge, and stands on no node."""
    sh("ip", "address", "add", "10.77.0.254/24", "dev", "bridge")
    return cluster
# For workers that are killed all the time: many that begin again soon (the processes of a node are forked from one that has
# imported Dask), no long attempts to reach one that is gone, for which all other results wait, and no command that is given up.
OFTEN = {
    "DASK_DISTRIBUTED__COMM__TIMEOUTS__CONNECT": "3s",
    "DASK_DISTRIBUTED__WORKER__MULTIPROCESSING_METHOD": "forkserver",
    "DASK_DISTRIBUTED__SCHEDULER__ALLOWED_FAILURES": "1000",
}


class Dask:
    """Started anew for each fault: most of them end it."""

    def __init__(self, cluster, more=None, workers=1):
        self.head, self.nodes, self.workers_each = cluster.head, cluster.nodes, workers
        settings = {**SETTINGS, **(more or {})}
        path = f"{HOME}/bin:{os.environ['PATH']}"
        self.environment = {**os.environ, **settings, "PATH": path}
        self.daemons = []

    def _start(self, node, what, *options):
        words = [sys.executable, "-m", f"distributed.cli.dask_{what}", "--no-dashboard", *options]
        log = HOME / f"log/dask-{node.name}"
        process = node.daemon(words, log, env=self.environment, cwd=HOME)
        self.daemons.append((node, process))
        return process

    def __enter__(self):
        self.client = None
        try:
            self._up()
        except BaseException:
            self.__exit__()
            raise
        return self

    def _up(self):
        self.scheduler = self._start(self.head, "scheduler", "--host", "10.77.0.1", "--port", "8786")
        each = ["--nworkers", str(self.workers_each), "--nthreads", str(4 // self.workers_each)]
        own = [*each, "--memory-limit", "0", "--death-timeout", "30"]
        self.nannies = []
        for node in self.nodes:
            named = ["--name", node.name, "--local-directory", str(HOME / f"dask-{node.name}")]
            self.nannies.append(self._start(node, "worker", ADDRESS, *named, *own))
        self.client = Client(ADDRESS, timeout=3 * SOON)
        self.wait_for_workers()
        self.client.register_plugin(TidyPlugin())

    def wait_for_workers(self):
        """Until all are there."""
        self.client.wait_for_workers(3 * self.workers_each, timeout=6 * SOON)

    def workers(self):
        """The pids of the workers: what a nanny has spawned."""
        found = []
        for node in self.nodes:
            found += [pid for pid in node.pids() if "spawn_main" in words_of(pid)]
        return found

    def wipe(self):
        """Ends what jobs have left, and those that still run, until Dask knows of none: nobody asks for them any more."""

        def quiet():
            for node in self.nodes:
                node.wipe("sleep 40")
            return not any(self.client.processing().values())

        assert until(quiet), self.client.processing()

    def __exit__(self, *_):
        for node, process in self.daemons:
            process.kill()
            process.wait()
            node.daemons.discard(process.pid)
        if self.client:
            with contextlib.suppress(Exception):
                self.client.close(timeout=1)
        for node in [self.head, *self.nodes]:
            node.join()
            until(lambda node=node: not node.strangers(), patience=3)
            node.wipe()


def quiet():
    return dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.DEVNULL)
