//! The Python package against Python's own subprocess and asyncio, what importing it takes, and
//! what its pytest plugin costs a test that leaves nothing.

use tidy_process::Supervisor;

use crate::Res;
use crate::options::Options;
use crate::python::Python;
use crate::sample::{Entry, Rounds, interleave};
use crate::table;
use crate::targets::Targets;

const PROGRAM: &str = include_str!("package.py");
const STD: &str = "subprocess.run";
const BLOCK: &str = "with tidy_process";
const ASYNCIO: &str = "asyncio";
const AIO: &str = "tidy_process.aio";
const OFF: &str = "a test, --tidy=off";
const REPORT: &str = "a test, --tidy=report";
const IMPORT: &str = "import tidy_process after subprocess";

/// By its name in the table, and in the program.
const CALLS: [(&str, &str); 5] =
    [(STD, "subprocess"), (BLOCK, "block"), ("run", "run"), (ASYNCIO, "asyncio"), (AIO, "aio")];

pub(crate) fn measure(options: &Options, targets: &mut Targets) -> Res {
    calls(options, targets, 0, "small caller")?;
    calls(options, targets, 1 << 30, "1 GiB touched")?;
    starts(options, targets)
}

fn calls(options: &Options, targets: &mut Targets, ballast: usize, caller: &str) -> Res {
    let supervisor = Supervisor::builder().build()?;
    let python = Python::play(&options.package, PROGRAM, &supervisor, ballast)?;
    let python = std::cell::RefCell::new(python);
    let mut entries = CALLS
        .map(|(name, what)| Entry::partly(name, || python.borrow_mut().ask(what, &["/bin/true"])));
    interleave(&mut entries, Rounds::tight(options.rounds(400)))?;
    table::print(&format!("Python: /bin/true, {caller}"), &entries, &[STD, ASYNCIO]);
    let mut at_most = |what: &str, bound, ours, theirs| {
        let what = format!("{what}, {caller}");
        targets.at_most(&what, bound, "", table::ratio(&entries, ours, theirs));
    };
    at_most("with tidy_process / subprocess.run", 1.25, BLOCK, STD);
    at_most("tidy_process.aio / asyncio", 0.9, AIO, ASYNCIO);
    Ok(())
}

/// What is paid once, and for each test.
fn starts(options: &Options, targets: &mut Targets) -> Res {
    let supervisor = Supervisor::builder().build()?;
    let python = Python::play(&options.package, PROGRAM, &supervisor, 0)?;
    let python = std::cell::RefCell::new(python);
    let ask = |what: &'static str, word: &'static str| {
        let python = &python;
        move || python.borrow_mut().ask(what, &[word])
    };
    let mut entries = [
        Entry::partly(IMPORT, ask("import", "")),
        Entry::partly(OFF, ask("test", "--tidy=off")),
        Entry::partly(REPORT, ask("test", "--tidy=report")),
    ];
    interleave(&mut entries, Rounds::tight(options.rounds(15)))?;
    table::print("Python: the import, and clean tests of pytest", &entries, &[OFF]);
    targets.at_most(IMPORT, 2.0, "ms", table::median(&entries, IMPORT) * 1e3);
    let clean = table::median(&entries, REPORT) - table::median(&entries, OFF);
    targets.at_most("a clean test of the pytest plugin", 100.0, "us", clean * 1e6);
    Ok(())
}
