//! What the library adds to a build and to an executable.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

use crate::Res;
use crate::options::Options;
use crate::table::table;
use crate::targets::Targets;

/// No clean build in a quick run: one from what is there proves as much.
pub(crate) fn measure(options: &Options, targets: &mut Targets) -> Res {
    let crates = crates(&options.root)?;
    targets.at_most("crates in the library's tree", 15.0, "", crates as f64);
    let hello = options.root.join("benches/hello");
    let target = options.target.join("hello");
    if !options.quick && target.exists() {
        fs::remove_dir_all(&target)?;
    }
    let start = Instant::now();
    cargo(
        &hello,
        &[
            "build",
            "--release",
            "--examples",
            "--quiet",
            "--target-dir",
            &target.display().to_string(),
        ],
    )?;
    let took = start.elapsed().as_secs_f64();
    let mut rows = vec![
        vec!["crates in the default tree".to_owned(), crates.to_string()],
        vec!["clean release build, with them".to_owned(), format!("{took:.1} s")],
    ];
    for name in ["hello-std", "hello-tidy"] {
        let size = fs::metadata(target.join("release/examples").join(name))?.len();
        rows.push(vec![format!("{name}, stripped"), format!("{} KiB", size >> 10)]);
    }
    println!("\n## Build\n\n{}", table(&["", ""], &rows));
    if !options.quick {
        targets.at_most("clean release build", 15.0, "s", took);
    }
    Ok(())
}

fn crates(root: &Path) -> Res<usize> {
    let said = cargo(root, &["tree", "-e", "normal", "--no-dedupe", "--prefix", "none"])?;
    let mut names: Vec<&str> = said.lines().filter_map(|line| line.split(' ').next()).collect();
    names.sort_unstable();
    names.dedup();
    Ok(names.into_iter().filter(|name| *name != "tidy-process" && !name.is_empty()).count())
}

fn cargo(dir: &Path, args: &[&str]) -> Res<String> {
    let output =
        Command::new("cargo").args(args).current_dir(dir).stderr(Stdio::inherit()).output()?;
    if !output.status.success() {
        return Err(format!("cargo {}: {}", args.join(" "), output.status).into());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
