"""Dask: every fault for commands of plain tasks and of ours, and many commands while workers die."""

import sys
from pathlib import Path

sys.path[:0] = [str(Path(__file__).resolve().parent), str(Path(__file__).resolve().parent.parent)]
from engine import OFTEN, Dask, reach  # noqa: E402
from faults import FATAL, HARMLESS, VICTIM, give_up, play  # noqa: E402
from many import cost, emitted_many, many, script  # noqa: E402
from nodes import HOME, Cluster  # noqa: E402
from table import HEAD, Table  # noqa: E402


PARTS = ("faults", "fatal", "script", "costs", "many", "emitted")


def main():
    args = sys.argv[1:]
    # For work on one part: its name, instead of all.
    parts = [word for word in args if word in PARTS] or PARTS
    table = Table("dask")
    victim = HOME / "bin/victim"
    victim.write_text(VICTIM)
    victim.chmod(0o755)
    with Cluster() as cluster:
        reach(cluster)
        print(HEAD, flush=True)
        if "faults" in parts:
            with Dask(cluster) as dask:
                for fault, strike in HARMLESS.items():
                    play(dask, table, fault, strike)
                    dask.wipe()
                give_up(dask, table)
        for fault, strike in FATAL.items() if "fatal" in parts else ():
            with Dask(cluster) as dask:
                play(dask, table, fault, strike)
        if {"script", "costs", "many", "emitted"} & set(parts):
            often(cluster, table, parts, 2000 if "--long" in args else 200)
    return table.close()


def often(cluster, table, parts, count):
    with Dask(cluster, OFTEN, workers=4) as dask:
        if "script" in parts:
            script(dask, table)
        if "costs" in parts:
            cost(dask, table)
        if "many" in parts:
            many(dask, table, count)
        if "emitted" in parts:
            emitted_many(dask, table, count // 4)


if __name__ == "__main__":
    sys.exit(main())
