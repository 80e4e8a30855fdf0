//! The command line, against a bare exec and others that wrap a command.

use std::path::Path;
use std::process::{Command, Stdio};

use crate::Res;
use crate::options::Options;
use crate::sample::{Entry, Rounds, interleave};
use crate::table;
use crate::targets::Targets;

const BARE: &str = "/bin/true alone";
const OURS: &str = "tidy-process run";

/// As the name in the table, and as words; those that are not installed are left out, and named.
const OTHERS: [&str; 7] = [
    "env /bin/true",
    "timeout 60 /bin/true",
    "setsid --wait /bin/true",
    "unshare --pid --fork --kill-child /bin/true",
    "bwrap --dev-bind / / --unshare-pid --die-with-parent /bin/true",
    "firejail --quiet --noprofile /bin/true",
    "runexec --no-container --output /dev/null /bin/true",
];

pub(crate) fn measure(options: &Options, targets: &mut Targets) -> Res {
    let tool = options.tool.display().to_string();
    let mut entries = vec![
        entry(BARE, "/bin/true"),
        entry(OURS, &format!("{tool} run -- /bin/true")),
        // What its exec costs before it does anything: CPUID traps in a virtual machine.
        entry("tidy-process --version", &format!("{tool} --version")),
        entry("tidy-process run --no-guard", &format!("{tool} run --no-guard -- /bin/true")),
        entry(
            "tidy-process run --containment keeper",
            &format!("{tool} run --containment keeper -- /bin/true"),
        ),
    ];
    let venv = options.python.parent().unwrap_or(Path::new("/"));
    let mut absent = Vec::new();
    for line in OTHERS {
        // From the same place as psutil: PyPI's tools are not in PATH.
        let line = line.replacen("runexec", &venv.join("runexec").display().to_string(), 1);
        let name = line
            .rsplit_once("bin/runexec")
            .map_or(line.clone(), |(_, args)| format!("runexec{args}"));
        match once(&line) {
            Ok(()) => entries.push(entry(&name, &line)),
            Err(error) => absent.push(format!("`{name}`: {error}")),
        }
    }
    interleave(&mut entries, Rounds::tight(options.rounds(200)))?;
    table::print("The command line: one /bin/true", &entries, &[BARE]);
    if !absent.is_empty() {
        println!("Not measured: {}.", absent.join("; "));
    }
    println!("`systemd-run` needs a running systemd: `ci/systemd trixie cost` measures it.");
    let over = table::median(&entries, OURS) - table::median(&entries, BARE);
    targets.at_most("the command line over bare exec", 1.0, "ms", over * 1e3);
    Ok(())
}

fn entry(name: &str, line: &str) -> Entry<'static> {
    let line = line.to_owned();
    Entry::new(name, move || once(&line))
}

fn once(line: &str) -> Res {
    let mut words = line.split(' ');
    let mut command = Command::new(words.next().unwrap_or_default());
    command.args(words).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let status = command.status()?;
    if status.success() { Ok(()) } else { Err(format!("it ended with {status}").into()) }
}
