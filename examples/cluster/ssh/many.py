"""Many commands over ssh while servers are killed, and the script that `pool --emit parallel` prints."""

import subprocess
import time

from crowd import left, outcome, prepare
from emitted import check, emitted
from engine import FAR
from faults import children, kill
from nodes import HOME, until, words_of


def sessions(nodes):
    """The servers that stand behind commands."""
    return [pid for node in nodes for pid in node.pids() if words_of(pid).startswith("sshd: root@")]


class NowAndThen:
    """Kills one server each second."""

    pause = 1.0

    def __init__(self, nodes):
        self.nodes, self.deaths = nodes, 0

    def __call__(self):
        for pid in sessions(self.nodes)[:1]:
            kill(pid)
            self.deaths += 1


class Early:
    """Kills so many servers as soon as they have started something: what was sent there has hardly begun."""

    pause = 0.005

    def __init__(self, nodes, number):
        self.nodes, self.number, self.deaths, self.seen = nodes, number, 0, set()

    def __call__(self):
        if self.deaths == self.number:
            return
        for pid in sessions(self.nodes):
            if pid not in self.seen and children(pid):
                self.seen.add(pid)
                kill(pid)
                self.deaths += 1
                return


def through(ssh, count, is_ours, strike=None):
    """So many commands; returns seconds, and what they have written."""
    command = prepare()
    begun = time.monotonic()
    words = ["-j4", "--retries", "20", f"exec {FAR if is_ours else ''}{command} {{}}"]
    numbers = "".join(f"{number}\n" for number in range(count))
    client = ssh.parallel(ssh.nodes, *words, held=is_ours, stdin=subprocess.PIPE, text=True)
    client.stdin.write(numbers)
    client.stdin.close()
    while client.poll() is None:
        try:
            client.wait(strike.pause if strike else None)
        except subprocess.TimeoutExpired:
            strike()
    return time.monotonic() - begun, *outcome()


def early(ssh, table, count=12):
    """Servers killed before anybody has looked for them. Each command is sent again, and so has run on if it is done twice."""
    ran_on = []
    for is_ours in (False, True):
        strike = Early(ssh.nodes, count // 2)
        through(ssh, count, is_ours, strike)
        # What runs on is over by then.
        time.sleep(1)
        done, _ = outcome()
        ran_on.append(len(done) - len(set(done)))
        for node in ssh.nodes:
            node.wipe()
    table.row(f"parallel: {count // 2} servers killed at the start: commands that ran on", *ran_on)


def many(ssh, table, count):
    strike = NowAndThen(ssh.nodes)
    took, done, twice = through(ssh, count, True, strike)
    until(lambda: not left(ssh.nodes))
    left_by_ours = left(ssh.nodes)
    plain, *_ = through(ssh, 12, False)
    left_by_plain = left(ssh.nodes)
    for node in ssh.nodes:
        node.wipe()
    ours, *_ = through(ssh, 12, True)
    table.row(f"parallel: {count} commands, {strike.deaths} servers killed", left_by_plain, left_by_ours, f"{took:.0f} s")
    table.check(f"none of {count} commands is lost", set(done) == {str(number) for number in range(count)})
    table.check(f"none of them runs twice at a time ({len(twice)})", not twice)
    table.say("parallel: done again after it was done", str(len(done) - len(set(done))))
    table.say("parallel: seconds for 12 commands, plain and ours", f"{plain:.1f} {ours:.1f}")


def script(ssh, table):
    """What `pool --emit parallel` prints, on all nodes."""
    script = emitted(ssh.head, "parallel")
    hosts = ",".join(node.name for node in ssh.nodes)
    variables = {**ssh.environment, "PATH": f"{HOME}/bin:/usr/bin:/bin"}
    call = ["env", *(f"{key}={value}" for key, value in variables.items()), "sh", script]
    options = ["--ssh", f"ssh -F {ssh.config}", "--sshlogin", hosts]
    ssh.head.run([*call, *options], stdin=subprocess.DEVNULL)
    check(ssh, table, "parallel")
