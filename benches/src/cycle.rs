//! Spawn, wait and teardown of `/bin/true`: in a tight loop and now and then, from a small caller
//! and from one with 1 GiB touched.

use std::time::Duration;

use tidy_process::{Command, Containment, Sandbox, Supervisor};

use crate::Res;
use crate::options::Options;
use crate::peers;
use crate::python::Python;
use crate::raw::Raw;
use crate::sample::{Entry, Rounds, interleave};
use crate::table;
use crate::targets::Targets;

const GIB: usize = 1 << 30;
const LIMIT: &str = "raw system calls";
const ALL: &str = "raw system calls, all that tidy-process makes";
const KEPT: &str = "tidy-process, by a keeper";
const FENCED: &str = "tidy-process, in a fence";

pub(crate) fn measure(options: &Options, targets: &mut Targets) -> Res {
    let supervisor = Supervisor::builder().build()?;
    callers(options, &supervisor, targets, "small caller", 0, 600)?;
    let mut ballast = vec![0u8; if options.quick { GIB / 16 } else { GIB }];
    ballast.iter_mut().step_by(4096).for_each(|byte| *byte = 1);
    callers(options, &supervisor, targets, "caller with 1 GiB", ballast.len(), 100)
}

fn callers(
    options: &Options,
    supervisor: &Supervisor,
    targets: &mut Targets,
    caller: &str,
    ballast: usize,
    count: usize,
) -> Res {
    let tight = Rounds::tight(options.rounds(count));
    let seldom = Rounds {
        count: options.rounds(60),
        pause: Duration::from_millis(if options.quick { 1 } else { 50 }),
        ..Rounds::tight(1)
    };
    for (how, rounds) in [("tight loop", tight), ("one per 50 ms", seldom)] {
        let mut entries = entries(options, supervisor, ballast)?;
        interleave(&mut entries, rounds)?;
        let title = format!("Spawn + wait + teardown of /bin/true, {caller}, {how}");
        table::print(&title, &entries, &[LIMIT, "std"]);
        for (base, bound) in [(LIMIT, 1.05), ("std", 1.15)] {
            let what = format!("full cycle / {base}, {caller}, {how}");
            targets.at_most(&what, bound, "", table::ratio(&entries, "tidy-process", base));
        }
        let what = format!("by a keeper / std, {caller}, {how}");
        targets.at_most(&what, 1.5, "", table::ratio(&entries, KEPT, "std"));
        // Without Landlock's scopes there is none.
        if entries.iter().any(|entry| entry.name == FENCED) {
            let what = format!("in a fence / plain, {caller}, {how}");
            let ratio = table::ratio(&entries, FENCED, "tidy-process");
            targets.at_most(&what, 1.25, "", ratio);
        }
    }
    Ok(())
}

fn entries<'a>(
    options: &Options,
    supervisor: &'a Supervisor,
    ballast: usize,
) -> Res<Vec<Entry<'a>>> {
    let raw = Raw::new(supervisor.path().unwrap())?;
    let mut python = Python::start(&options.python, supervisor, ballast)?;
    let all = Raw::new(supervisor.path().unwrap())?;
    let mut entries = vec![
        Entry::new(LIMIT, move || raw.cycle(c"raw", &[])),
        Entry::new(ALL, move || all.cycle_with_all(c"all", c"all/cpu.stat")),
    ];
    entries.extend(peers::entries(supervisor)?);
    let keepers = Supervisor::builder().containment(Containment::Keeper).build()?;
    entries.push(Entry::new(KEPT, move || {
        Command::new("/bin/true").supervisor(&keepers).run()?;
        Ok(())
    }));
    let fence = Sandbox::fence();
    if fence.plan().is_ok() {
        entries.push(Entry::new(FENCED, move || {
            Command::new("/bin/true").supervisor(supervisor).sandbox(&fence).run()?;
            Ok(())
        }));
    }
    entries.push(Entry::partly("Python: subprocess + psutil", move || {
        python.ask("cycle", &["/bin/true"])
    }));
    Ok(entries)
}
