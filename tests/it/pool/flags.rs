//! The table of docs/pool.md: what people type for xargs and parallel, and what to type here. Each
//! row is run both ways, and must print the same.

use std::path::Path;
use std::process::Command as StdCommand;

use serial_test::parallel;

use super::Scratch;
use crate::support::{Alone, Stage, tool};

/// The commands of a cell.
fn code(cell: &str) -> Vec<String> {
    let parts = cell.split('`').skip(1).step_by(2);
    parts.map(|part| part.replace("\\|", "|")).collect()
}

/// What a line prints, its lines sorted, and whether it succeeded.
fn runs(stage: &Stage, dir: &Scratch, line: &str) -> (Vec<String>, bool) {
    let path = std::env::var("PATH").unwrap();
    let bin = Path::new(tool()).parent().unwrap().display().to_string();
    let mut command = StdCommand::new("bash");
    stage.mark_std(command.args(["-c", line]).current_dir(dir));
    command.env("PATH", format!("{bin}:{path}")).env("PARALLEL", "--will-cite");
    let output = command.output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
    lines.sort();
    (lines, output.status.success())
}

#[test]
#[parallel]
fn each_row_of_the_table_does_the_same() {
    let Some(stage) = Stage::set() else { return };
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/pool.md");
    let page = std::fs::read_to_string(page).unwrap();
    let rows: Vec<&str> = page.lines().filter(|line| line.starts_with("| `")).collect();
    let (mut tested, mut absent) = (0, 0);
    for row in rows {
        let cells: Vec<&str> = row.trim_matches('|').split(" | ").collect();
        let [theirs, ours, ..] = cells[..] else { panic!("{row}") };
        if ours.contains("not there") {
            absent += 1;
            continue;
        }
        let Some(ours) = code(ours).into_iter().next() else { panic!("{row}") };
        for theirs in code(theirs) {
            let (dir, other) = (Scratch::new(), Scratch::new());
            for dir in [&dir, &other] {
                std::fs::write(dir.path("args"), "a.x\nb.x\n").unwrap();
                std::fs::write(dir.path("commands"), "echo 1\necho 2\n").unwrap();
            }
            let wanted = runs(&stage, &dir, &theirs);
            assert!(!wanted.0.is_empty() || !wanted.1, "{theirs} shows nothing");
            assert_eq!(runs(&stage, &other, &ours), wanted, "{theirs}: {ours}");
            tested += 1;
        }
    }
    assert!(tested > 25 && absent > 5, "{tested} rows tested, {absent} not there");
    stage.close(Alone::No);
}
