//! `stop`, `kill`, `freeze` and `thaw`: what `top` does at a key, done to the trees of a name.

use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt;
use std::thread;
use std::time::{Duration, Instant};

use clap::Args;
use clap_complete::ArgValueCompleter;
use nix::unistd::geteuid;
use tidy_process::cli_support::{Held, kill_by_name, quoted};
use tidy_process::{TreeInfo, list};

use crate::candidates;
use crate::exit::Failure;
use crate::place::scope::everywhere;
use crate::ps::name;
use crate::values::duration;

/// How long a tree may take until all its processes stand still: one may be in a call that cannot
/// be interrupted.
const STILL_WITHIN: Duration = Duration::from_secs(2);

/// Between two looks: no one event tells of several trees.
const PAUSE: Duration = Duration::from_millis(10);

#[derive(Debug, Args)]
pub(crate) struct NamedArgs {
    /// The name given by --name, a tree's number if only one has it, OWNER/NAME as ps shows them,
    /// or its directory
    #[arg(value_parser = clap::builder::OsStringValueParser::new())]
    #[arg(add = ArgValueCompleter::new(candidates::trees))]
    name: OsString,

    /// Mean other users' trees of this name too (as root); not needed with a tree's whole path
    #[arg(long)]
    all_users: bool,

    /// Look below this cgroup2 directory [default: $TIDY_PROCESS_PARENT, else the own cgroup; under
    /// systemd the whole hierarchy]
    #[arg(long, value_name = "CGROUP")]
    parent: Option<std::path::PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct StopArgs {
    #[command(flatten)]
    named: NamedArgs,

    /// Time between SIGTERM and the kill; 0 is at once
    #[arg(short, long, value_name = "DUR", value_parser = duration, default_value = "2s")]
    #[arg(allow_hyphen_values = true)]
    kill_after: Duration,
}

impl NamedArgs {
    fn is_meant(&self, owner: u32, tree: &TreeInfo) -> bool {
        let named = name(&tree.path);
        let owned = [owner.to_string().as_bytes(), b"/", named.as_bytes()].concat();
        let by_name = named == self.name || self.name.as_bytes() == owned;
        by_name || self.is_path() && tree.path.ends_with(&self.name)
    }

    fn is_path(&self) -> bool {
        self.name.as_bytes().contains(&b'/')
    }

    /// Finds the trees of this name; a number, OWNER/NAME or a directory has to be one tree's.
    /// Other users' trees are meant only with `--all-users`, or by a whole path.
    fn find(&self, verb: &'static str) -> Result<Vec<TreeInfo>, Failure> {
        let roots = list(everywhere(self.parent.as_deref()).as_deref())?;
        let mut found = Vec::new();
        for root in roots {
            let trees = root.trees.into_iter();
            let trees = trees.filter(|tree| self.is_meant(root.owner, tree));
            found.extend(trees.map(|tree| (root.uid, tree)));
        }
        let is_found = !found.is_empty();
        let all_users = self.all_users || self.name.as_bytes().starts_with(b"/");
        found.retain(|(uid, _)| all_users || *uid == geteuid().as_raw());
        let is_number = self.name.as_bytes().iter().all(u8::is_ascii_digit);
        let name = || self.name.to_string_lossy().into_owned();
        match found.len() {
            0 if is_found => Err(Failure::OthersTree { verb, name: name() }),
            0 => Err(Failure::NoSuchTree { verb, name: name() }),
            2.. if self.is_path() || is_number => Err(Failure::SeveralTrees { verb, name: name() }),
            _ => Ok(found.into_iter().map(|(_, tree)| tree).collect()),
        }
    }

    /// Takes hold of them: what has a name by then that one of them had is another.
    fn hold(&self, verb: &'static str) -> Result<Vec<Held>, Failure> {
        let held: Vec<Held> =
            self.find(verb)?.iter().map(Held::of_tree).collect::<Result<_, _>>()?;
        match held.iter().find(|held| held.has_this_process()) {
            Some(own) if verb != "thaw" => Err(Failure::Nowhere {
                what: format!(
                    "{verb}: this tidy-process runs in {}: it would be its own victim",
                    quoted(&own.path().to_string_lossy())
                ),
                hint: "run it outside of that tree".into(),
            }),
            _ => Ok(held),
        }
    }
}

/// Does it to each, whether or not another one fails.
fn each<T>(
    trees: &[T],
    mut act: impl FnMut(&T) -> tidy_process::Result<()>,
) -> Result<(), Failure> {
    let results: Vec<_> = trees.iter().map(&mut act).collect();
    results.into_iter().collect::<Result<(), _>>().map_err(Failure::from)
}

pub(crate) fn kill(args: &NamedArgs) -> Result<(), Failure> {
    each(&args.find("kill")?, kill_by_name)
}

/// Returns when nothing is left of them.
pub(crate) fn stop(args: &StopArgs) -> Result<(), Failure> {
    let held = args.named.hold("stop")?;
    let stopped = each(&held, |tree| tree.stop().map(drop));
    wait(args.kill_after, || !held.iter().any(Held::is_populated));
    let rest: Vec<&Held> = held.iter().filter(|tree| tree.is_populated()).collect();
    stopped.and(each(&rest, |tree| tree.kill()))
}

/// Returns when they stand still.
pub(crate) fn freeze(args: &NamedArgs) -> Result<(), Failure> {
    let held = args.hold("freeze")?;
    each(&held, |tree| tree.set_frozen(true))?;
    if wait(STILL_WITHIN, || held.iter().all(Held::is_still)) {
        return Ok(());
    }
    let busy: Vec<String> = held.iter().filter(|tree| !tree.is_still()).map(path).collect();
    let what = format!("freeze: a process of {} does not stand still yet", busy.join(", "));
    Err(Failure::Nowhere { what, hint: "it is in a call that cannot be interrupted".into() })
}

pub(crate) fn thaw(args: &NamedArgs) -> Result<(), Failure> {
    each(&args.hold("thaw")?, |tree| tree.set_frozen(false))
}

fn path(tree: &Held) -> String {
    quoted(&tree.path().to_string_lossy())
}

/// Whether it becomes true in that time.
fn wait(patience: Duration, is_so: impl Fn() -> bool) -> bool {
    let until = Instant::now().checked_add(patience);
    while !is_so() {
        if until.is_some_and(|until| Instant::now() >= until) {
            return false;
        }
        thread::sleep(PAUSE);
    }
    true
}
