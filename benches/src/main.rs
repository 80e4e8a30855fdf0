//! What tidy-process costs: against the raw system calls (the limit), against its peers, and at
//! scale. `ci/bench` builds and runs it; every table is Markdown, every ratio is of two figures of
//! the same run.

mod build;
mod capture;
mod ceiling;
mod cli;
mod confined;
mod cycle;
mod instructions;
mod layers;
mod live;
mod machine;
mod many;
mod options;
mod package;
mod peers;
mod pool;
mod python;
mod raw;
mod sample;
mod table;
mod targets;
mod teardown;
mod timeline;
mod top;
mod victim;

use std::error::Error;
use std::process::ExitCode;

use crate::options::{Options, Section};
use crate::targets::Targets;

type Res<T = ()> = Result<T, Box<dyn Error>>;

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    match start(&words) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench: {error}");
            ExitCode::FAILURE
        }
    }
}

/// This program also plays what is measured: victims, and a process that holds many trees.
fn start(words: &[String]) -> Res {
    let mut each = words.iter().map(String::as_str);
    match each.next() {
        Some("victim") => victim::play(&each.collect::<Vec<_>>()),
        Some("instructions") => instructions::play(&each.collect::<Vec<_>>()),
        Some("live") => live::play(&each.collect::<Vec<_>>()),
        _ => bench(&Options::parse(words)?),
    }
}

fn bench(options: &Options) -> Res {
    println!("{}", machine::describe(words_as_typed(options)));
    let mut targets = Targets::default();
    for time in 1..=options.times {
        if options.times > 1 {
            println!("\n# Run {time} of {}", options.times);
        }
        targets.begin();
        run(options, &mut targets)?;
    }
    println!("\n## Targets\n\n{}", targets.table());
    println!("Load at the end: {}.", machine::load());
    Ok(())
}

fn run(options: &Options, targets: &mut Targets) -> Res {
    for (section, measure) in SECTIONS {
        if options.wants(section) {
            measure(options, targets)?;
        }
    }
    Ok(())
}

type Measure = fn(&Options, &mut Targets) -> Res;

const SECTIONS: [(Section, Measure); 14] = [
    ("instructions", instructions::measure),
    ("cycle", cycle::measure),
    ("confined", confined::measure),
    ("layers", layers::measure),
    ("teardown", teardown::measure),
    ("capture", capture::measure),
    ("cli", cli::measure),
    ("live", live::measure),
    ("many", many::measure),
    ("pool", pool::measure),
    ("timeline", timeline::measure),
    ("top", top::measure),
    ("python", package::measure),
    ("build", build::measure),
];

fn words_as_typed(options: &Options) -> String {
    ["ci/bench"]
        .into_iter()
        .chain(options.words.iter().map(String::as_str))
        .collect::<Vec<_>>()
        .join(" ")
}
