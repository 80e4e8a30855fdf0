//! Spawn, wait and teardown of `/bin/true` at each level of confinement, beside other sandboxes
//! with the same features; from a small caller and from one with 1 GiB touched.

use std::path::Path;
use std::process::{Command as StdCommand, Stdio};

use tidy_process::{Command, Network, Sandbox, Supervisor};

use crate::Res;
use crate::options::Options;
use crate::sample::{Entry, Rounds, interleave};
use crate::table;
use crate::targets::Targets;

const GIB: usize = 1 << 30;
const TRUE: &str = "/bin/true";
const PLAIN: &str = "tidy-process";
const FENCE: &str = "tidy-process, fence";
const NO_NETWORK: &str = "tidy-process, sandbox without a network";
const ALL: &str = "tidy-process, sandbox with its own loopback";
const BWRAP: &str = "bwrap, all namespaces, its own view";

/// The same as `ALL`: all namespaces, /usr and /etc to be read, a directory to be written to, its
/// own /proc, /dev, /tmp and /dev/shm, an environment that is cleared. Those that are not
/// installed are left out: Debian has neither nsjail nor minijail.
const OTHERS: [(&str, &str); 4] = [
    (
        BWRAP,
        "bwrap --unshare-all --die-with-parent --ro-bind /usr /usr --ro-bind /etc /etc \
         --symlink usr/bin /bin --symlink usr/sbin /sbin --symlink usr/lib /lib \
         --symlink usr/lib64 /lib64 --proc /proc --dev /dev --tmpfs /tmp --tmpfs /dev/shm \
         --bind DIR DIR --chdir / --clearenv /bin/true",
    ),
    (
        "firejail, the same",
        "firejail --quiet --noprofile --net=none --private-tmp --private-dev --private-cwd=/ \
         --caps.drop=all --nonewprivs --seccomp --ipc-namespace /bin/true",
    ),
    (
        "nsjail, the same",
        "nsjail -Mo --really_quiet -R /usr -R /etc -s usr/bin:/bin -s usr/lib:/lib \
         -s usr/lib64:/lib64 -B DIR -T /tmp -T /dev/shm -- /bin/true",
    ),
    ("minijail, the same", "minijail0 -v -p -l -e -N -r -t -n --uts /bin/true"),
];

pub(crate) fn measure(options: &Options, targets: &mut Targets) -> Res {
    let supervisor = Supervisor::builder().build()?;
    let dir = std::env::temp_dir().join(format!("tidy-bench-{}", std::process::id()));
    std::fs::create_dir_all(&dir)?;
    let dir = dir.canonicalize()?;
    let small = level(options, &supervisor, &dir, targets, "small caller")?;
    let mut ballast = vec![0u8; if options.quick { GIB / 16 } else { GIB }];
    ballast.iter_mut().step_by(4096).for_each(|byte| *byte = 1);
    let large = level(options, &supervisor, &dir, targets, "caller with 1 GiB")?;
    std::hint::black_box(&ballast);
    std::fs::remove_dir(&dir)?;
    for ((name, small), (_, large)) in small.into_iter().zip(large) {
        targets.at_most(&format!("{name}, 1 GiB / small"), 1.10, "", large / small);
    }
    Ok(())
}

/// The median of each of ours over that of the plain cycle, so that two runs can be compared.
type Medians = Vec<(&'static str, f64)>;

fn level(
    options: &Options,
    supervisor: &Supervisor,
    dir: &Path,
    targets: &mut Targets,
    caller: &str,
) -> Res<Medians> {
    let mut entries = ours(supervisor, dir);
    entries.extend(OTHERS.iter().filter_map(|(name, line)| other(name, line, dir)));
    interleave(&mut entries, Rounds::tight(options.rounds(200)))?;
    let title = format!("Spawn + wait + teardown of /bin/true, confined, {caller}");
    table::print(&title, &entries, &[PLAIN, BWRAP]);
    let has = |name: &str| entries.iter().any(|entry| entry.name == name);
    let bounds = [(FENCE, PLAIN, 1.25), (NO_NETWORK, PLAIN, 2.0), (ALL, BWRAP, 0.45)];
    for (name, base, bound) in bounds.into_iter().filter(|(name, base, _)| has(name) && has(base)) {
        let ratio = table::ratio(&entries, name, base);
        targets.at_most(&format!("{name} / {base}, {caller}"), bound, "", ratio);
    }
    let ours = [FENCE, NO_NETWORK, ALL].into_iter().filter(|name| has(name));
    Ok(ours.map(|name| (name, table::ratio(&entries, name, PLAIN))).collect())
}

/// Levels that cannot be had here are left out.
fn ours<'a>(supervisor: &'a Supervisor, dir: &Path) -> Vec<Entry<'a>> {
    let plain = Entry::new(PLAIN, || {
        Command::new(TRUE).supervisor(supervisor).run()?;
        Ok(())
    });
    let view = |network| Sandbox::new().system().read_write(dir).network(network);
    let levels = [
        (FENCE, Sandbox::fence()),
        (NO_NETWORK, view(Network::None)),
        (ALL, view(Network::Loopback)),
        ("tidy-process, sandbox with the host's network", view(Network::Host)),
    ];
    let confined = levels.into_iter().filter_map(|(name, sandbox)| {
        let run = move || -> Res {
            let mut command = Command::new(TRUE);
            let report = command.supervisor(supervisor).sandbox(&sandbox).current_dir("/").run()?;
            if report.success() { Ok(()) } else { Err(report.to_string().into()) }
        };
        run().is_ok().then(|| Entry::new(name, run))
    });
    [plain].into_iter().chain(confined).collect()
}

fn other<'a>(name: &str, line: &str, dir: &Path) -> Option<Entry<'a>> {
    let line = line.replace("DIR", &dir.display().to_string());
    let words: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
    let run = move || -> Res {
        let mut command = StdCommand::new(&words[0]);
        let status =
            command.args(&words[1..]).stdin(Stdio::null()).stderr(Stdio::null()).status()?;
        if status.success() { Ok(()) } else { Err(format!("{}: {status}", words[0]).into()) }
    };
    match run() {
        Ok(()) => Some(Entry::new(name, run)),
        Err(error) => {
            eprintln!("left out: {name}: {error}");
            None
        }
    }
}
