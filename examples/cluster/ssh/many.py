"""Many commands over ssh while servers are killed, and the script that `pool --emit parallel` prints."""

import subprocess
import time

from crowd import left, outcome, prepare
from engine import OURS
from faults import sessions
from nodes import HOME, TOOL, until


class Nodes:
    """What `sessions` asks of a run."""

    def __init__(self, nodes):
        self.nodes = nodes

    def sessions(self):
        found = []
        for node in self.nodes:
            found += [pid for pid, words in node.strangers().items() if words.startswith("sshd: root")]
        return found[:1]


def through(ssh, count, is_ours, kills):
    """So many commands; returns seconds, deaths, and what they have written."""
    command = prepare()
    begun, deaths = time.monotonic(), 0
    tool = " ".join(map(str, OURS)) + " " if is_ours else ""
    words = ["-j4", "--retries", "20", f"exec {tool}{command} {{}}"]
    numbers = "".join(f"{number}\n" for number in range(count))
    client = ssh.parallel(ssh.nodes, *words, held=is_ours, stdin=subprocess.PIPE, text=True)
    client.stdin.write(numbers)
    client.stdin.close()
    while client.poll() is None:
        try:
            client.wait(1)
        except subprocess.TimeoutExpired:
            if kills:
                deaths += sessions(Nodes(ssh.nodes))
    took = time.monotonic() - begun
    return took, deaths, *outcome()


def many(ssh, table, count):
    took, deaths, done, twice = through(ssh, count, True, kills=True)
    until(lambda: not left(ssh.nodes))
    left_by_ours = left(ssh.nodes)
    plain = through(ssh, 12, False, kills=False)
    left_by_plain = left(ssh.nodes)
    for node in ssh.nodes:
        node.wipe()
    ours = through(ssh, 12, True, kills=False)
    table.row(f"parallel: {count} commands, {deaths} servers killed", left_by_plain, left_by_ours)
    table.check(f"none of {count} commands is lost", set(done) == {str(number) for number in range(count)})
    table.check(f"none of them runs twice at a time ({len(twice)})", not twice)
    table.say("parallel: seconds for 12 commands, plain and ours", f"{plain[0]:.1f} {ours[0]:.1f}")


def script(ssh, table):
    """The script of a pool, on all nodes; its reports are read here."""
    results = HOME / "results"
    numbers = [str(number) for number in range(6)]
    words = ["pool", "-q", "--emit", "parallel", "--results", results, "-t", "60", "--", "sh", "-c"]
    text = ssh.head.run([TOOL, *words, "setsid sleep 405.7 & echo {}; hostname", ":::", *numbers]).stdout
    (HOME / "script").write_text(text)
    hosts = ",".join(node.name for node in ssh.nodes)
    variables = {**ssh.environment, "PATH": f"{HOME}/bin:/usr/bin:/bin"}
    call = ["env", *(f"{key}={value}" for key, value in variables.items())]
    options = ["--ssh", f"ssh -F {ssh.config}", "--sshlogin", hosts]
    ssh.head.run([*call, "sh", HOME / "script", *options], stdin=subprocess.DEVNULL)
    printed = [(results / str(number) / "stdout").read_text() for number in range(1, 7)]
    table.check("the script of pool --emit has the output of each command", [text.split()[0] for text in printed] == numbers)
    page = ssh.head.run([TOOL, "report", results]).stdout
    table.check("its reports are read back", "6 runs of 6 commands" in page)
    left = sum(len(node.strangers("405.7")) for node in ssh.nodes)
    table.row("the script of pool --emit parallel", None, left)
