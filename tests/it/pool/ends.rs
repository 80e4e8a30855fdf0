//! How a pool ends, and what its options do.

use std::time::{Duration, Instant};

use serial_test::parallel;

use super::Scratch;
use super::run::{exits, lines, out, pool, said};
use crate::support::{Alone, Stage};

#[test]
#[parallel]
fn the_exit_status_says_whether_all_succeeded() {
    let Some(stage) = Stage::set() else { return };
    let table: &[(&[&str], i32)] = &[
        (&["--", "sh", "-c", "exit {}", ":::", "0", "0"], 0),
        (&["--", "sh", "-c", "exit {}", ":::", "0", "3"], 1),
        (&["--", "no-such-program", ":::", "a"], 1),
        (&["-t", "0.1", "--", "sleep", ":::", "60"], 1),
        (&["--leaks=fail", "--", "sh", "-c", "sleep 60 &", ":::", "a"], 123),
        (&["--leaks=fail", "--", "sh", "-c", "sleep 60 & exit 3", ":::", "a"], 1),
        (&["--", "sh", "-c", "sleep 60 &", ":::", "a"], 0),
        (&["--", "true", ":::"], 0),
        (&["--bogus"], 125),
        (&["--", "echo {} | wc", ":::", "a"], 125),
        (&["-a", "/no/such/file", "--", "true"], 125),
        (&["--halt", "now", "--", "sh", "-c", "exit {}", ":::", "7"], 7),
        (&["--halt", "soon", "-t", "0.1", "--", "sleep", ":::", "60"], 124),
        (&["--halt", "soon", "--", "no-such-program", ":::", "a"], 127),
        (&["--learn", "/tmp/x", "--", "true", ":::", "a"], 125),
    ];
    for (args, status) in table {
        exits(&stage, args, *status);
    }
    stage.close(Alone::No);
}

#[test]
#[parallel]
fn halts_are_never_soon_or_now() {
    let Some(stage) = Stage::set() else { return };
    let dir = Scratch::new();
    // The first one fails when the second one runs, which would go on for a while.
    let script = "case {} in
        1) until [ -e $D/2 ]; do sleep 0.01; done; exit 5;;
        2) : >$D/2; trap 'echo stopped; exit' TERM; for i in 1 2 3 4 5; do sleep 0.1; done; echo 2;;
        *) echo {};; esac";
    let variable = format!("D={}", dir.path("."));
    let run = |halt: &str, jobs: &str| {
        let _ = std::fs::remove_file(dir.path("2"));
        let args = ["-E", &variable, "-j", jobs, "--halt", halt, "--", "sh", "-c", script];
        let output = pool(&stage, &[&args[..], &[":::", "1", "2", "3", "4"]].concat());
        (output.status.code(), lines(&output))
    };
    let owned = |all: &[&str]| all.iter().map(|&it| it.to_owned()).collect::<Vec<_>>();
    assert_eq!(run("never", "2"), (Some(1), owned(&["2", "3", "4"])));
    assert_eq!(run("soon", "2"), (Some(5), owned(&["2"])));
    assert_eq!(run("now", "2"), (Some(5), owned(&["stopped"])));
    assert_eq!(run("now,fail=2", "2"), (Some(1), owned(&["2", "3", "4"])));
    stage.close(Alone::No);
}

#[test]
#[parallel]
fn a_command_that_fails_is_tried_again() {
    let Some(stage) = Stage::set() else { return };
    let dir = Scratch::new();
    // It succeeds at the third try; what the others wrote is not printed.
    let script = "echo try >>$D/{}; echo $(wc -l <$D/{}); [ $(wc -l <$D/{}) = 3 ]";
    let variable = format!("D={}", dir.path("."));
    let run = |tries: &str, status| {
        let _ = std::fs::remove_file(dir.path("a"));
        let args = ["-E", &variable, "--retries", tries, "--", "sh", "-c", script, ":::", "a"];
        let lines = exits(&stage, &args, status);
        (lines, dir.read("a").lines().count())
    };
    assert_eq!(run("3", 0), (vec!["3".to_owned()], 3));
    assert_eq!(run("9", 0), (vec!["3".to_owned()], 3));
    assert_eq!(run("2", 1), (vec!["2".to_owned()], 2));
    let args = ["--retries", "2", "-q", "--json", "-", "--", "no-such-program", ":::", "a"];
    let told = out(&pool(&stage, &args));
    assert_eq!(told.matches("\"retried\":true").count(), 1, "{told}");
    stage.close(Alone::No);
}

/// Each writes when it begins and ends: the most that were there at a time.
#[test]
#[parallel]
fn so_many_run_at_a_time() {
    let Some(stage) = Stage::set() else { return };
    let dir = Scratch::new();
    let script = "mkdir $D/run-{}; ls -d $D/run-* | wc -l; sleep 0.1; rmdir $D/run-{}";
    let variable = format!("D={}", dir.path("."));
    for (jobs, wanted) in [("3", 3), ("1", 1)] {
        let args = ["-E", &variable, "-j", jobs, "--", "sh", "-c", script];
        let all = [&args[..], &[":::", "1", "2", "3", "4", "5", "6", "7", "8", "9"]].concat();
        let most = exits(&stage, &all, 0).iter().map(|it| it.trim().parse().unwrap()).max();
        assert_eq!(most, Some(wanted), "-j {jobs}");
    }
    stage.close(Alone::No);
}

#[test]
#[parallel]
fn starts_wait_for_time_load_and_memory() {
    let Some(stage) = Stage::set() else { return };
    let start = Instant::now();
    exits(&stage, &["-j4", "--delay", "0.1", "--", "true", ":::", "1", "2", "3"], 0);
    assert!(start.elapsed() >= Duration::from_millis(200));
    // Nothing is ever started: a signal ends it.
    for never in [&["--load", "0.0001"][..], &["--mem-free", "100T"]] {
        let mut command = stage.tool(&["pool", "-q"]);
        let mut tool = command.args(never).args(["--", "true", ":::", "x"]).spawn().unwrap();
        std::thread::sleep(Duration::from_millis(300));
        // Of the load this holds where something else runs, too.
        let runs = tool.try_wait().unwrap().is_some();
        let pid = nix::unistd::Pid::from_raw(tool.id().cast_signed());
        let _ = nix::sys::signal::kill(pid, nix::sys::signal::SIGTERM);
        tool.wait().unwrap();
        assert!(!runs || never[0] == "--load", "{never:?}");
    }
    exits(&stage, &["--load", "100000", "--mem-free", "1K", "--", "true", ":::", "1"], 0);
    stage.close(Alone::No);
}

#[test]
#[parallel]
fn commands_have_what_run_gives_them() {
    let Some(stage) = Stage::set() else { return };
    let dir = Scratch::new();
    let args = ["-E", "A=1", "-C", dir.as_ref().to_str().unwrap(), "--", "sh", "-c"];
    let lines = exits(&stage, &[&args[..], &["echo $A; pwd; cat", ":::", "x"]].concat(), 0);
    assert_eq!(lines, [dir.as_ref().to_str().unwrap(), "1"]);
    let args = ["--name", "n", "--", "sh", "-c", "cat /proc/self/cgroup", ":::", "x", "y"];
    let said = exits(&stage, &args, 0).concat();
    assert!(said.contains("n-1") && said.contains("n-2"), "{said}");
    for args in [&["--containment", "keeper"][..], &["--no-guard"], &["--leaks=stop", "-k", "1"]] {
        let args =
            [args, &["-q", "--", "sh", "-c", "setsid sleep 60 & echo a", ":::", "1"]].concat();
        assert_eq!(exits(&stage, &args, 0), ["a"]);
        stage.assert_clean(args[0]);
    }
    stage.close(Alone::No);
}

#[test]
#[parallel]
fn commands_may_be_fenced() {
    let Some(stage) = Stage::set() else { return };
    let args = ["--fence", "--", "sh", "-c", "grep NoNewPrivs /proc/self/status", ":::", "1"];
    let output = pool(&stage, &args);
    match output.status.code() {
        Some(0) => assert!(out(&output).contains('1'), "{}", out(&output)),
        _ => crate::support::lacks("fence", &said(&output)),
    }
    let plan = pool(&stage, &["--fence", "--plan"]);
    assert!(out(&plan).contains("fence"), "{}", out(&plan));
    stage.close(Alone::No);
}

#[test]
#[parallel]
fn the_closing_table_says_what_became_of_them() {
    let Some(stage) = Stage::set() else { return };
    let script = "case {} in 1) sleep 60 & ;; 2) exit 3;; 3) sleep 60;; 4) sleep 0.3;; esac";
    let args = ["-t", "2", "-j4", "--", "sh", "-c", script, ":::", "1", "2", "3", "4", "5"];
    let told = said(&pool(&stage, &args));
    let head = "3 succeeded, 1 failed, 1 timed out; 1 left processes running (1 killed)";
    assert!(told.contains(head), "{told}");
    for row in ["slowest 2", "(exited with 3)", "(timed out)", "leaked  1: ", "sleep 60"] {
        assert!(told.contains(row), "{row}: {told}");
    }
    let quiet = said(&pool(&stage, &[&["-q"], &args[..]].concat()));
    assert_eq!(quiet, "");
    assert_eq!(said(&pool(&stage, &["--", "true", ":::", "1"])), "");
    let told = said(&pool(&stage, &["-v", "--", "echo", ":::", "\u{1b}[31m"]));
    assert!(told.contains("1 command in") && !told.contains('\u{1b}'), "{told:?}");
    stage.close(Alone::No);
}
