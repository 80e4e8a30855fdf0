"""Ray: what is left of tasks' commands when they are cancelled, or something dies."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from nodes import HOME, Cluster, until, words_of  # noqa: E402
from table import HEAD, Table  # noqa: E402

ADDRESS = "10.77.0.1:6379"
WAYS = ("plain", "run", "tool")
VICTIM = """\
#!/bin/sh
exec </dev/null >/dev/null 2>&1
sleep 400.$1 &
setsid sleep 401.$1 &
setsid sh -c "sleep 402.$1 & exit"
exec sleep 403.$1
"""


class Ray:
    """A head without CPUs, where the driver is, and a node for each way to run a command."""

    def __init__(self, cluster):
        self.head, self.nodes = cluster.head, dict(zip(WAYS, cluster.nodes))
        # All that Ray writes is in the cluster's home, and no word goes to its makers.
        more = {"RAY_TMPDIR": f"{HOME}/tmp", "RAY_USAGE_STATS_ENABLED": "0", "RAY_raylet_start_wait_time_s": "120"}
        self.environment = {**os.environ, **more, "PATH": f"{HOME}/bin:{Path(sys.executable).parent}:{os.environ['PATH']}"}
        self.number = 100

    def _start(self, node, *options):
        words = [Path(sys.executable).parent / "ray", "start", "--block", f"--node-ip-address={node.address}", *options]
        node.daemon(words, self.log(node), env=self.environment, cwd=HOME)

    def log(self, node):
        return HOME / f"log/ray-{node.name}"

    def wait_for(self, node):
        """Until it is up, and blocks."""
        assert until(lambda: "--block" in self.log(node).read_text(), patience=120), self.log(node).read_text()

    def __enter__(self):
        os.mkdir(HOME / "tmp")
        self._start(self.head, "--head", "--port=6379", "--num-cpus=0", "--include-dashboard=false")
        self.wait_for(self.head)
        for node in self.nodes.values():
            # One after another: two raylets that begin in one directory may wait for each other's socket.
            self._start(node, f"--address={ADDRESS}", "--num-cpus=2", f'--resources={{"{node.name}": 1}}')
            self.wait_for(node)
        words = [sys.executable, Path(__file__).with_name("driver.py"), ADDRESS]
        log = open(HOME / "log/driver", "wb")
        self.driver = self.head.popen(
            words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True, env=self.environment, cwd=HOME
        )
        assert self.driver.stdout.readline() == "there\n", (HOME / "log/driver").read_text()
        return self

    def __exit__(self, *_):
        for node in [self.head, *self.nodes.values()]:
            (node.cgroup / "cgroup.kill").write_text("1")

    def tell(self, line):
        self.driver.stdin.write(f"{line}\n")
        self.driver.stdin.flush()

    def begin(self):
        """A job on each node; all of what each has started is there."""
        self.number += 1
        self.token = str(self.number)
        self.tell("forget")
        for way, node in self.nodes.items():
            self.tell(f"start {way} {node.name} {self.token}")
        begun = until(lambda: all(len(self.left(way)) == 4 for way in WAYS), patience=120)
        assert begun, ({way: self.left(way) for way in WAYS}, (HOME / "log/driver").read_text()[-2000:])

    def left(self, way):
        words = self.nodes[way].strangers(f".{self.token}")
        return {pid: what for pid, what in words.items() if what.startswith("sleep 40")}

    def kill(self, is_it):
        for node in self.nodes.values():
            for pid in node.pids():
                if is_it(words_of(pid)):
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGKILL)

    def end(self):
        """The driver's."""
        self.driver.stdin.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.driver.wait(60)


# In this order: the last two end it.
EVENTS = {
    "ray.cancel(task)": lambda ray: ray.tell("cancel"),
    "ray.cancel(task, force=True)": lambda ray: ray.tell("cancel force"),
    "kill -9 worker": lambda ray: ray.kill(lambda words: words.startswith(("ray::run", "ray::tool"))),
    "kill -9 raylet": lambda ray: ray.kill(lambda words: "/raylet/raylet " in words),
    "then ray.shutdown()": Ray.end,
}
# A worker goes on without its raylet, and so does what it has started.
GOES_ON = "kill -9 raylet"


def play(ray, table, event, strike):
    if not event.startswith("then"):
        ray.begin()
    strike(ray)
    until(lambda: not ray.left("tool"), patience=15)
    time.sleep(3)
    plain, run, tool = (len(ray.left(way)) for way in WAYS)
    note = f"tidy_process.run: {run}"
    if event == GOES_ON:
        table.say(f"ray: {event}", f"plain {plain}, {note}, the tool: {tool}")
    else:
        table.row(f"ray: {event}", plain, tool, note)
    if event != GOES_ON:
        for node in ray.nodes.values():
            node.wipe("sleep 40")


def main():
    table = Table("ray")
    victim = HOME / "bin/victim"
    victim.write_text(VICTIM)
    victim.chmod(0o755)
    with Cluster() as cluster, Ray(cluster) as ray:
        print(HEAD, flush=True)
        for event, strike in EVENTS.items():
            play(ray, table, event, strike)
    return table.close()


if __name__ == "__main__":
    sys.exit(main())
