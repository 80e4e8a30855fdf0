"""What can die between a client and its commands on other machines, and what is left there then."""

import os
import signal
import subprocess

from engine import FAR
from nodes import HOME, until, words_of

# Children of all kinds: one that stays, one in a session of its own, a daemon that has forked twice.
VICTIM = """\
#!/bin/sh
exec </dev/null >/dev/null 2>&1
sleep 400.$1 &
setsid sleep 401.$1 &
setsid sh -c "sleep 402.$1 & exit"
: >/mnt/victims/$1
[ "$2" = ends ] || exec sleep 403.$1
"""

# Plain has had its time: a lost client is noticed after 3 s, and the grace is 1 s.
PLAIN_SETTLES = 6.0


class Run:
    """Victims behind one client."""

    number = 100

    def __init__(self, ssh, nodes, is_ours, parallel, ends):
        Run.number += 1
        self.ssh, self.nodes, self.is_ours = ssh, nodes, is_ours
        how = "ends" if ends else "stays"
        tool = FAR if is_ours else ""
        if parallel:
            # Three digits and one: no token is a part of another.
            self.tokens = [f"{Run.number}{job}" for job in range(3)]
            line = f"exec {tool}{HOME}/bin/victim {{}} {how}"
            words = ["-j3", line, ":::", *self.tokens]
            self.client = ssh.parallel(nodes, *words, held=is_ours, stdout=subprocess.DEVNULL)
        else:
            self.tokens = [f"{Run.number}0"]
            self.client = ssh.ssh(nodes[0], f"exec {tool}{HOME}/bin/victim {self.tokens[0]} {how}")

    def ready(self):
        files = [HOME / "victims" / token for token in self.tokens]
        assert until(lambda: all(file.exists() for file in files)), f"not all have begun: {self.tokens}"
        return self

    def left(self):
        """What has a token in its words, on any of the nodes."""
        all_words = {pid: words for node in self.nodes for pid, words in node.strangers().items()}
        return {pid for pid, words in all_words.items() if any(token in words for token in self.tokens)}

    def parallel(self):
        """The pid of GNU parallel: the client itself, or what the tool runs."""
        found = [pid for pid in [self.client.pid, *children(self.client.pid)] if is_parallel(words_of(pid))]
        assert len(found) == 1, found
        return found[0]

    def sessions(self):
        """The servers that stand behind the commands."""
        return [pid for node in self.nodes for pid, words in node.strangers().items() if words.startswith("sshd: root")]

    def close(self):
        for pid in [*self.left(), self.client.pid]:
            kill(pid)
        self.client.wait()


def is_parallel(words):
    program, *rest = words.split(" ")[:3]
    return program.endswith("perl") and any(word.endswith("/parallel") for word in rest)


def children(pid):
    try:
        with open(f"/proc/{pid}/task/{pid}/children") as file:
            return [int(child) for child in file.read().split()]
    except OSError:
        return []


def kill(pid, number=signal.SIGKILL):
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        pass


def sessions(run):
    found = run.sessions()
    for pid in found:
        kill(pid)
    return len(found)


def cut(run):
    for node in run.nodes:
        node.cut()


SSH = {
    "the command ends": None,
    "kill -9 ssh": lambda run: kill(run.client.pid),
    "kill ssh": lambda run: kill(run.client.pid, signal.SIGTERM),
    "kill -9 the server's session": sessions,
    "the link is cut": cut,
}

PARALLEL = {
    "the commands end": None,
    "kill -9 parallel": lambda run: kill(run.parallel()),
    "kill parallel": lambda run: kill(run.parallel(), signal.SIGTERM),
    "kill -9 what stands around parallel": lambda run: kill(run.client.pid),
    "kill -9 the server's sessions": sessions,
    "the link is cut": cut,
}


def play(ssh, table, engine, fault, end):
    """Plain on the first node, ours on the others, at the same time."""
    node1, *others = ssh.nodes
    plain = Run(ssh, [node1], False, engine == "parallel", end is None)
    ours = Run(ssh, others, True, engine == "parallel", end is None)
    for run in (plain, ours):
        run.ready()
    if end:
        for run in (plain, ours):
            end(run)
    until(lambda: not ours.left())
    until(lambda: not plain.left(), patience=PLAIN_SETTLES)
    table.row(f"{engine}: {fault}", len(plain.left()), len(ours.left()))
    for node in ssh.nodes:
        node.join()
    for run in (plain, ours):
        run.close()
    for node in ssh.nodes:
        rest = until(lambda node=node: not node.strangers(), patience=5) or node.strangers()
        if rest is not True:
            table.check(f"{node.name} has nothing of {fault} but {rest}", node is node1)
            node.wipe()
