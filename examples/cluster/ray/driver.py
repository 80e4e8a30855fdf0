"""What a user of Ray runs: tasks with commands. Lines on standard input say what is to be done with them."""

import subprocess
import sys
import time

import ray
import tidy_process


def tool(words):
    """As docs/clusters.md has it."""
    process = subprocess.Popen(["tidy-process", "run", "-q", "-k", "1", "--die-with-parent", "--", *words])
    try:
        while process.poll() is None:
            time.sleep(0.1)
    finally:
        process.terminate()
        process.wait()


WAYS = {"plain": subprocess.run, "run": tidy_process.run, "tool": tool}


def start(way, node, token):
    # One way on each node, which has a resource of its name.
    return ray.remote(WAYS[way]).options(resources={node: 1}, max_retries=0).remote(["/mnt/bin/victim", token])


def main():
    ray.init(address=sys.argv[1], _node_ip_address="10.77.0.1", log_to_driver=False, logging_level="ERROR")
    tasks = []
    print("there", flush=True)
    for line in sys.stdin:
        what, *words = line.split()
        if what == "start":
            tasks.append(start(*words))
        elif what == "cancel":
            for task in tasks:
                ray.cancel(task, force=bool(words))
        elif what == "forget":
            tasks.clear()
    ray.shutdown()


if __name__ == "__main__":
    main()
