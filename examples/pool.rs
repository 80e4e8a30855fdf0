//! Runs each line of standard input by sh, four at a time; what one leaves running is killed.
//!
//! `printf 'make\nsleep 9 &\n' | cargo run --example pool`. `tidy-process pool` does more of this.

#![expect(clippy::print_stdout, reason = "an example says what it does")]

use std::io::{BufRead, BufReader, stdin};

use tidy_process::{Command, Pool, Stdio};

fn main() -> tidy_process::Result<()> {
    let lines = BufReader::new(stdin()).lines().map_while(Result::ok);
    let commands = lines.map(|line| {
        let mut command = Command::new("sh");
        command.args(["-c", &line]).stdin(Stdio::null());
        (line, command)
    });
    Pool::new(4).run(commands, |line, result| match result {
        Ok(report) => println!("{line}: {}, {} left", report.status, report.leftover_count),
        Err(error) => println!("{line}: {error:#}"),
    })
}
