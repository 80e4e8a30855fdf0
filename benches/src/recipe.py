import subprocess
import sys
import time

import psutil

ballast = bytearray(int(sys.argv[1]))
for i in range(0, len(ballast), 4096):
    ballast[i] = 1


def kill_tree(process, children):
    for each in [*children, process]:
        try:
            each.kill()
        except psutil.NoSuchProcess:
            pass
    # Not for the children: they become zombies of PID 1, which may take seconds to reap them.
    process.wait()


def cycle(command):
    start = time.perf_counter_ns()
    process = psutil.Popen(command)
    try:
        children = process.children(recursive=True)
    except psutil.NoSuchProcess:
        children = []
    process.wait()
    kill_tree(process, children)
    return time.perf_counter_ns() - start


def teardown(command):
    process = psutil.Popen(command, stdout=subprocess.PIPE)
    process.stdout.read(1)
    start = time.perf_counter_ns()
    kill_tree(process, process.children(recursive=True))
    took = time.perf_counter_ns() - start
    process.stdout.close()
    return took


def output(command):
    start = time.perf_counter_ns()
    subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True)
    return time.perf_counter_ns() - start


for line in sys.stdin:
    what, *command = line.rstrip("\n").split("\t")
    print({"cycle": cycle, "teardown": teardown, "output": output}[what](command), flush=True)
