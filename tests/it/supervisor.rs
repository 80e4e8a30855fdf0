//! Where trees live.

use std::path::Path;

use serial_test::parallel;
use tidy_process::{Supervisor, Tree, list};

use crate::support::{Alone, Stage};

#[test]
#[parallel]
fn a_run_root_is_private_named_after_us_and_leased() {
    use std::os::unix::fs::MetadataExt;
    let Some(stage) = Stage::set() else { return };
    let path = stage.supervisor.path().unwrap();
    let name = path.file_name().unwrap().to_str().unwrap();
    assert!(name.starts_with(&format!("tidy-process-{}-", std::process::id())), "{name}");
    assert_eq!(std::fs::metadata(path).unwrap().mode() & 0o777, 0o700);
    let other = std::fs::File::open(path).unwrap();
    assert!(other.try_lock().is_err(), "the lease is free");
    stage.close(Alone::No);
}

#[test]
#[parallel]
fn supervisors_do_not_share_their_run_roots() {
    let Some(stage) = Stage::set() else { return };
    let base = stage.supervisor.path().unwrap();
    let all: Vec<_> = (0..20).map(|_| Supervisor::builder().base(base).build().unwrap()).collect();
    assert_eq!(stage.cgroups(), 20);
    drop(all);
    stage.close(Alone::No);
}

#[test]
#[parallel]
fn a_run_root_in_a_run_root_is_no_tree_of_it() {
    let Some(stage) = Stage::set() else { return };
    let outer = stage.supervisor.path().unwrap();
    let inner = Supervisor::builder().base(outer).build().unwrap();
    let tree = Tree::within(&inner, Some("t")).unwrap();
    let roots = list(outer.parent()).unwrap();
    let of = |path: &Path| roots.iter().find(|root| root.path == path).unwrap();
    assert!(of(outer).trees.is_empty(), "{:?}", of(outer).trees);
    let names: Vec<&str> = of(inner.path().unwrap()).trees.iter().map(|tree| &*tree.name).collect();
    assert_eq!(names, ["t"]);
    drop((tree, inner));
    stage.close(Alone::No);
}

#[test]
#[parallel]
fn the_run_root_goes_with_the_last_handle_and_tree() {
    let Some(stage) = Stage::set() else { return };
    let supervisor = Supervisor::builder().base(stage.supervisor.path().unwrap()).build().unwrap();
    let path = supervisor.path().unwrap().to_owned();
    let mut command = stage.command("sleep");
    let child = command.arg("20").supervisor(&supervisor).spawn().unwrap();
    drop(command);
    drop(supervisor);
    assert!(path.exists(), "a tree is still in it");
    drop(child);
    assert!(!path.exists());
    stage.close(Alone::No);
}

#[test]
#[parallel]
fn trees_are_spawned_from_many_threads() {
    let Some(stage) = Stage::set() else { return };
    std::thread::scope(|scope| {
        for thread in 0..8 {
            let stage = &stage;
            scope.spawn(move || {
                for _ in 0..25 {
                    let mut command = stage.sh("sleep 20 & exit 9");
                    let report = command.force_join(thread == 0).run().unwrap();
                    assert_eq!((report.status.code(), report.leftovers.len()), (Some(9), 1));
                }
            });
        }
    });
    stage.close(Alone::No);
}

#[cfg(feature = "cli")]
#[test]
#[parallel]
fn the_base_is_found_without_making_anything() {
    use tidy_process::cli_support::find_base;
    let Some(stage) = Stage::set() else { return };
    let path = stage.supervisor.path().unwrap();
    assert_eq!(find_base(Some(path)).unwrap(), path);
    let error = find_base(Some("/tmp".as_ref())).unwrap_err();
    assert!(error.to_string().ends_with("not on a cgroup2 file system"), "{error}");
    assert_eq!(stage.cgroups(), 0);
    stage.close(Alone::No);
}
