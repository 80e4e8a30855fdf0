"""Many commands over ssh while servers are killed; the scripts that `pool --emit parallel` prints."""

import random
import statistics
import subprocess
import time

from crowd import Strikes, left, numbers, prepare, tell
from emitted import check, check_reports, emitted, emitted_crowd
from engine import FAR
from faults import children, kill
from nodes import HOME, until, words_of


def sessions(nodes):
    """The servers that stand behind commands."""
    return [pid for node in nodes for pid in node.pids() if words_of(pid).startswith("sshd: root@")]


class One:
    """Kills a server; one that has started something, if there is such."""

    def __init__(self, nodes):
        self.nodes = nodes

    def __call__(self):
        all_of_them = sessions(self.nodes)
        busy = [pid for pid in all_of_them if children(pid)] or all_of_them
        if busy:
            kill(random.choice(busy))
        return bool(busy)


class Early:
    """Kills so many servers as soon as they have started something: what was sent there has hardly begun."""

    def __init__(self, nodes, number):
        self.nodes, self.number, self.seen = nodes, number, set()

    def __call__(self):
        for pid in sessions(self.nodes) if len(self.seen) < self.number else ():
            if pid not in self.seen and children(pid):
                self.seen.add(pid)
                kill(pid)
                return True
        return False


def through(ssh, count, is_ours, seconds=0.2):
    """So many commands, through parallel."""
    command = prepare(seconds)
    words = ["-j4", "--retries", "20", f"exec {FAR if is_ours else ''}{command} {{}}"]
    client = ssh.parallel(ssh.nodes, *words, held=is_ours, stdin=subprocess.PIPE, text=True)
    client.stdin.write("".join(f"{number}\n" for number in range(1, count + 1)))
    client.stdin.close()
    try:
        client.wait(60 + 3 * count)
    finally:
        client.kill()


def early(ssh, table, count=24):
    """Servers killed before anybody has looked for them. Each command is sent again, and so has run on if it is done twice, or
    meets itself."""
    ran_on = []
    for is_ours in (False, True):
        with Strikes(Early(ssh.nodes, count // 2), pause=0.005):
            # Long enough that none has ended by itself when its server is killed.
            through(ssh, count, is_ours, seconds=2)
        # What runs on is over by then.
        time.sleep(3)
        done = numbers("done")
        ran_on.append(len(done) - len(set(done)) + len(numbers("twice")))
        for node in ssh.nodes:
            node.wipe()
    table.row(f"parallel: {count // 2} servers killed at the start: commands that ran on", *ran_on)


def many(ssh, table, count):
    left_by = []
    for is_ours in (False, True):
        through(ssh, 12, is_ours)
        left_by.append(left(ssh.nodes))
        for node in ssh.nodes:
            node.wipe()
    table.row("parallel: 12 commands, nothing killed", *left_by)
    with Strikes(One(ssh.nodes)) as strikes:
        through(ssh, count, True)
    until(lambda: not left(ssh.nodes))
    tell(table, "parallel", count, strikes, ssh.nodes, "servers")


def costs(ssh, table):
    """A command of no duration beside plain, in turns; medians."""
    took = {"": [], FAR: []}
    for _ in range(15):
        for tool, times in took.items():
            begun = time.monotonic()
            assert ssh.ssh(ssh.nodes[0], f"exec {tool}true").wait(60) == 0
            times.append(time.monotonic() - begun)
    plain, ours = (statistics.median(times) * 1000 for times in took.values())
    table.say("ssh: median ms of a command, plain and ours", f"{plain:.1f} {ours:.1f}")


def run_script(ssh, file, *more):
    """A script of `pool --emit parallel`, on all nodes."""
    hosts = ",".join(node.name for node in ssh.nodes)
    variables = {**ssh.environment, "PATH": f"{HOME}/bin:/usr/bin:/bin"}
    call = ["env", *(f"{key}={value}" for key, value in variables.items()), "sh", file]
    options = ["--ssh", f"ssh -F {ssh.config}", "--sshlogin", hosts, *more]
    return ssh.head.run([*call, *options], timeout=7200, stdin=subprocess.DEVNULL)


def script(ssh, table):
    """What `pool --emit parallel` prints."""
    run_script(ssh, emitted(ssh.head, "parallel"))
    check(ssh, table, "parallel")


def emitted_many(ssh, table, count):
    """Many commands by such a script."""
    file = emitted_crowd(ssh.head, "parallel", prepare(), count, "-j", "4", "--retries", "20")
    with Strikes(One(ssh.nodes)) as strikes:
        said = run_script(ssh, file)
    table.check(f"the script of pool --emit parallel has run {said.stdout[-300:]}", said.returncode == 0)
    until(lambda: not left(ssh.nodes))
    tell(table, "parallel (emitted)", count, strikes, ssh.nodes, "servers")
    check_reports(ssh.head, table, "parallel", count)
