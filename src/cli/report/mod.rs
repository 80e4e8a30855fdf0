//! `tidy-process report`: many JSON reports as one page.

mod gather;
mod page;

use std::path::PathBuf;

use clap::Args;

use crate::exit::Failure;
use crate::print::json::Sink;
use crate::report::gather::gather;
use crate::run::files::Files;
use crate::wait::open::Opener;
use crate::wait::signals::Signals;

const REPORT: &str = "\
DIR is searched for files that end in .json, .jsonl or .ndjson: reports of run --json and with
--json, events of pool --json, the report.json files of pool --results. Links are not followed;
what is no report is counted and left out. The page needs nothing but itself.

Exit status: 0; 125 if nothing was found, or something failed.

Examples:
  tidy-process run --json reports/$(date +%s).json -- make test
  tidy-process report reports -o report.html";

#[derive(Debug, Args)]
#[command(after_help = REPORT)]
pub(crate) struct ReportArgs {
    /// Write the page to FILE; "-" is standard output
    #[arg(short, long, value_name = "FILE", default_value = "-")]
    output: PathBuf,

    /// The directory of the reports
    #[arg(value_name = "DIR")]
    dir: PathBuf,
}

pub(crate) fn report(args: &ReportArgs) -> Result<(), Failure> {
    let signals = Signals::collect()?;
    let opener = Opener { signals: &signals, deadline: None };
    let found = gather(&args.dir, || signals.answer_alone())?;
    if found.runs == 0 {
        return Err(Failure::Nowhere {
            what: format!("no report in {:?}", args.dir),
            hint: "make some: tidy-process run --json DIR/NAME.json -- CMD".into(),
        });
    }
    let mut files = Files::new(&opener, false);
    let sink = Sink::open(Some(&args.output), |path| files.writing(path))?;
    sink.text(&page::page(&found))
}
