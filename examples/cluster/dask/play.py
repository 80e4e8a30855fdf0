"""Dask: every fault for commands of plain tasks and of ours, and many commands while workers die."""

import sys
from pathlib import Path

sys.path[:0] = [str(Path(__file__).resolve().parent), str(Path(__file__).resolve().parent.parent)]
from engine import Dask, reach  # noqa: E402
from faults import FATAL, HARMLESS, VICTIM, give_up, play  # noqa: E402
from many import cost, many, script  # noqa: E402
from nodes import HOME, Cluster  # noqa: E402
from table import HEAD, Table  # noqa: E402


def main():
    table = Table("dask")
    victim = HOME / "bin/victim"
    victim.write_text(VICTIM)
    victim.chmod(0o755)
    is_long = "--long" in sys.argv
    with Cluster() as cluster:
        reach(cluster)
        print(HEAD, flush=True)
        with Dask(cluster) as dask:
            for fault, strike in HARMLESS.items():
                play(dask, table, fault, strike)
                dask.wipe()
            give_up(dask, table)
        for fault, strike in FATAL.items():
            with Dask(cluster) as dask:
                play(dask, table, fault, strike)
        with Dask(cluster, failures=1000) as dask:
            script(dask, table)
            cost(dask, table)
            many(dask, table, *((2000, 1) if is_long else (200, 4)))
    return table.close()


if __name__ == "__main__":
    sys.exit(main())
