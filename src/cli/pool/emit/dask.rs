//! A program for Dask's distributed.

use crate::exit::Failure;
use crate::pool::emit::script::{Lines, put};

const BEGIN: &str = r#"#!/usr/bin/env python3
"""Runs commands on a Dask cluster: python SCRIPT ADDRESS, as in tcp://head:8786

Without ADDRESS the one is used that Dask is configured with (DASK_SCHEDULER_ADDRESS).
Workers need the packages tidy-process and distributed. The status is 1 if a command has failed.
"""

import sys

from distributed import Client, as_completed

from tidy_process.dask import TidyPlugin, run

COMMANDS = [
"#;

const END: &str = r#"]


def main() -> int:
    failed = 0
    with Client(*sys.argv[1:2]) as client:
        client.register_plugin(TidyPlugin())
        words = [["/bin/sh", "-c", command] for command in COMMANDS]
        # A report still asked for when its worker dies is one whose command Dask runs again:
        # no task is kept, and none is fetched, since it is a file as well.
        tasks = as_completed(client.map(run, words, check=True, pure=False, retries=RETRIES))
        for task in tasks:
            if task.status in ("error", "cancelled"):
                failed += 1
                print(task.exception() or task, file=sys.stderr)
            del task
    return min(failed, 1)


if __name__ == "__main__":
    sys.exit(main())
"#;

pub(crate) fn write(tries: u32, lines: Lines<'_>) -> Result<(), Failure> {
    put(BEGIN.as_bytes())?;
    // The escapes of a Rust byte string are Python's.
    lines(&mut |line| put(format!("    b\"{}\",\n", line.escape_ascii()).as_bytes()))?;
    put(END.replace("RETRIES", &(tries - 1).to_string()).as_bytes())
}
