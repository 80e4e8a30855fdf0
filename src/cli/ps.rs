//! `ps` and `sweep`: the trees of all supervisors, and what dead supervisors left.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use serde_json::{Value, json};
use tidy_process::cli_support::{LINE, quoted, shortened};
use tidy_process::{RunRoot, StaleRunRoot, TreeInfo, list};

use crate::exit::Failure;
use crate::place::scope::everywhere;
use crate::print::json::{VERSION, insert_word, process};
use crate::print::text::{self, print, print_json};

/// Characters of a row besides the name and the command.
const COLUMNS: usize = 37;

#[derive(Debug, Args)]
pub(crate) struct PsArgs {
    /// Write JSON
    #[arg(long)]
    pub(crate) json: bool,

    /// Look below this cgroup2 directory [default: $TIDY_PROCESS_PARENT, else the own cgroup; under
    /// systemd the whole hierarchy]
    #[arg(long, value_name = "CGROUP")]
    pub(crate) parent: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct SweepArgs {
    /// Print what would be removed, and remove nothing
    #[arg(long)]
    pub(crate) dry_run: bool,

    #[command(flatten)]
    pub(crate) ps: PsArgs,
}

pub(crate) fn ps(args: &PsArgs) -> Result<(), Failure> {
    let roots = list(everywhere(args.parent.as_deref()).as_deref())?;
    if args.json { print_json(&roots_json(&roots)) } else { print(&table(&roots)) }
}

fn table(roots: &[RunRoot]) -> String {
    let mut text = format!(
        "{:<16} {:>8} {:>10} {:>5} {:>10} COMMAND\n",
        "NAME", "OWNER", "AGE", "PROCS", "MEMORY"
    );
    for root in roots {
        let owner = if root.owner_lives { root.owner.to_string() } else { "gone".to_owned() };
        for tree in &root.trees {
            let age = tree.age.map_or("-".to_owned(), age);
            let memory = tree.memory.map_or("-".to_owned(), text::mebibytes);
            let count = tree.process_count;
            // Quoted before its width is counted: what is quoted later would move the columns.
            let name = quoted(&tree.name);
            let command = tree.processes.first().map(ToString::to_string).unwrap_or_default();
            let command = command.split_once(' ').map_or("", |(_, command)| command);
            let row = format!("{name:<16} {owner:>8} {age:>10} {count:>5} {memory:>10} {command}");
            text += &(shortened(&row, LINE.max(name.chars().count() + COLUMNS)) + "\n");
        }
    }
    text
}

fn age(age: Duration) -> String {
    format!("{:.1} s", age.as_secs_f64())
}

fn roots_json(roots: &[RunRoot]) -> Value {
    let each = roots.iter().map(|root| {
        let mut value = json!({
            "owner": root.owner,
            "uid": root.uid,
            "owner_lives": root.owner_lives,
            "trees": root.trees.iter().map(tree_json).collect::<Vec<_>>(),
        });
        insert_word(&mut value, "path", root.path.as_os_str());
        value
    });
    json!({ "v": VERSION, "run_roots": each.collect::<Vec<_>>() })
}

/// Makes the JSON of a tree; a value that is not known is absent.
fn tree_json(tree: &TreeInfo) -> Value {
    let mut value = json!({
        "processes": tree.processes.iter().map(process).collect::<Vec<_>>(),
        "process_count": tree.process_count,
    });
    insert_word(&mut value, "path", tree.path.as_os_str());
    insert_word(&mut value, "name", name(&tree.path));
    if let Some(object) = value.as_object_mut() {
        if let Some(age) = tree.age {
            object.insert("age_seconds".to_owned(), age.as_secs_f64().into());
        }
        if let Some(memory) = tree.memory {
            object.insert("memory_bytes".to_owned(), memory.into());
        }
    }
    value
}

pub(crate) fn sweep(args: &SweepArgs) -> Result<(), Failure> {
    let found =
        tidy_process::sweep(everywhere(args.ps.parent.as_deref()).as_deref(), args.dry_run)?;
    let failed = found.iter().filter(|stale| stale.removed.is_err()).count();
    if args.ps.json {
        print_json(&stale_json(&found))?;
    } else {
        print(&stale_lines(&found, args.dry_run))?;
    }
    for error in found.iter().filter_map(|stale| stale.removed.as_ref().err()) {
        text::line(error);
    }
    if failed > 0 { Err(Failure::Unswept(failed)) } else { Ok(()) }
}

fn stale_lines(found: &[StaleRunRoot], dry_run: bool) -> String {
    let mut text = String::new();
    for stale in found.iter().filter(|stale| stale.removed.is_ok()) {
        let verb = if dry_run { "would remove" } else { "removed" };
        let (path, owner) = (quoted(&stale.path.to_string_lossy()), stale.owner);
        let count = stale.process_count;
        text += &format!("{verb} {path}: owner {owner} is gone, {count} processes\n");
        for process in &stale.processes {
            text += &format!("  {process:.198}\n");
        }
        if count > stale.processes.len() {
            text += &format!("  and {} more\n", count - stale.processes.len());
        }
    }
    text
}

fn stale_json(found: &[StaleRunRoot]) -> Value {
    let each = found.iter().map(|stale| {
        let mut value = json!({
            "owner": stale.owner,
            "processes": stale.processes.iter().map(process).collect::<Vec<_>>(),
            "process_count": stale.process_count,
            "removed": matches!(stale.removed, Ok(true)),
        });
        insert_word(&mut value, "path", stale.path.as_os_str());
        if let (Err(error), Some(object)) = (&stale.removed, value.as_object_mut()) {
            object.insert("error".to_owned(), error.to_string().into());
        }
        value
    });
    json!({ "v": VERSION, "swept": each.collect::<Vec<_>>() })
}

/// The name that a tree was given, byte for byte, or its number.
pub(crate) fn name(path: &Path) -> &OsStr {
    let dir = path.file_name().unwrap_or_default();
    match dir.as_bytes().iter().position(|&byte| byte == b'-') {
        Some(dash) => OsStr::from_bytes(dir.as_bytes().get(dash + 1..).unwrap_or_default()),
        None => dir,
    }
}
