//! `pool --emit`: the scripts say the same as the pool does, whatever bytes words are made of.

use std::ffi::OsString;
use std::fs;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command as StdCommand, Output, Stdio};

use serial_test::parallel;

use super::Scratch;
use super::run::{fed, out, said};
use crate::support::{Alone, Stage, tool};

/// What a shell, Python or GNU parallel might take for something else.
const ODD: &[&[u8]] = &[
    b"a b",
    b"it's",
    b"$(touch injected) `touch injected` $HOME",
    b"\"; touch injected #",
    b"two\nlines",
    b"{} {#} {%} {1} {=1=} [] ::: +",
    b"--help",
    b"\\n\\0\\",
    b"esac ;; *) touch injected",
    b"\xff\x80 \xc3\xa4",
    b"'''\"\"\"",
    b"*",
    b"\ttab and \x1b[31m",
    b"DOS\r\nlines\r",
];

fn emitted(stage: &Stage, dir: &Scratch, engine: &str, args: &[&str]) -> Vec<u8> {
    let results = dir.path("re'sults");
    let script = fed(
        stage,
        &[&["-q", "-0", "--emit", engine, "--results", &results][..], args].concat(),
        &ODD.join(&0),
    );
    assert!(script.status.success(), "{}", said(&script));
    assert!(!Path::new(&results).exists(), "--emit made something");
    script.stdout
}

/// With the tool in PATH, in a directory of the test.
fn runs(stage: &Stage, dir: &Scratch, program: &str, args: &[&str]) -> Output {
    let path = std::env::var("PATH").unwrap();
    let bin = Path::new(tool()).parent().unwrap().display().to_string();
    let mut command = StdCommand::new(program);
    stage.mark_std(command.args(args).current_dir(dir).stdin(Stdio::null()));
    command.env("PATH", format!("{bin}:{path}")).env("PARALLEL", "--will-cite");
    command.output().unwrap()
}

fn saved(dir: &Scratch, name: &str, script: &[u8]) -> String {
    fs::write(dir.path(name), script).unwrap();
    dir.path(name)
}

/// Each command has printed its argument, and nothing else has come of it.
fn assert_printed(stage: &Stage, dir: &Scratch) {
    for (number, wanted) in (1..).zip(ODD) {
        let at = |name: &str| dir.path(&format!("re'sults/{number}/{name}"));
        assert_eq!(fs::read(at("stdout")).unwrap(), [wanted, &b"."[..]].concat(), "{number}");
        assert_eq!(fs::read(at("stderr")).unwrap(), b"", "{number}");
    }
    assert!(!Path::new(&dir.path("injected")).exists());
    let report = stage.tool(&["report", dir.as_ref().to_str().unwrap()]).output().unwrap();
    let wanted = format!("{0} runs of {0} commands", ODD.len());
    assert!(out(&report).contains(&wanted), "{}", said(&report));
}

#[test]
#[parallel]
fn the_call_of_parallel_does_what_the_pool_would() {
    let Some(stage) = Stage::set() else { return };
    let dir = Scratch::new();
    let log = dir.path("job log");
    let args = ["-j", "2", "--joblog", &log, "-t", "60", "--", "printf", "%s."];
    let script = emitted(&stage, &dir, "parallel", &args);
    assert!(!Path::new(&log).exists(), "--emit made the log");
    let script = saved(&dir, "script", &script);
    let output = runs(&stage, &dir, "sh", &[&script, "--retries", "1"]);
    assert!(output.status.success(), "{}", said(&output));
    assert_printed(&stage, &dir);
    // One argument is no text.
    let log = String::from_utf8_lossy(&fs::read(&log).unwrap()).into_owned();
    assert_eq!(log.lines().filter(|line| line.contains("--timeout=60")).count(), ODD.len());
    stage.close(Alone::No);
}

#[test]
#[parallel]
fn the_array_of_slurm_has_a_task_for_each_command() {
    let Some(stage) = Stage::set() else { return };
    let dir = Scratch::new();
    let script = emitted(&stage, &dir, "slurm", &["-j", "4", "-E-x=1", "--", "printf", "%s."]);
    let text = String::from_utf8_lossy(&script).into_owned();
    assert!(text.starts_with("#!/bin/sh\n#SBATCH --array=1-14%4\n"), "{text}");
    assert!(!text.contains('\r'), "sbatch refuses what has lines of DOS");
    let script = saved(&dir, "script", &script);
    assert!(runs(&stage, &dir, "sh", &["-n", &script]).status.success());
    for number in 1..=ODD.len() {
        let output = runs(&stage, &dir, "sh", &[&script, &number.to_string()]);
        assert!(output.status.success(), "{number}: {}", said(&output));
    }
    assert_eq!(runs(&stage, &dir, "sh", &[&script, "15"]).status.code(), Some(125));
    assert_printed(&stage, &dir);
    stage.close(Alone::No);
}

#[test]
#[parallel]
fn an_array_has_no_more_tasks_than_slurm_allows() {
    let Some(stage) = Stage::set() else { return };
    let dir = Scratch::new();
    let lines: String =
        (1..=2500).map(|number| format!("echo {number}; exit {}\n", number % 2)).collect();
    let results = dir.path("results");
    let args = ["--emit", "slurm", "--results", &results];
    let script = fed(&stage, &args, lines.as_bytes());
    let text = out(&script);
    assert!(text.contains("\n#SBATCH --array=1-1000\n"), "{}", said(&script));
    assert!(said(&script).contains("tidy-process report"), "{}", said(&script));
    let script = saved(&dir, "script", text.as_bytes());
    let odd = runs(&stage, &dir, "sh", &[&script, "499"]);
    let even = runs(&stage, &dir, "sh", &[&script, "500"]);
    assert_eq!((odd.status.code(), even.status.code()), (Some(1), Some(0)), "{}", said(&odd));
    let mut made: Vec<u32> = fs::read_dir(&results)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().to_str().unwrap().parse().unwrap())
        .collect();
    made.sort_unstable();
    assert_eq!(made, [499, 500, 1499, 1500, 2499, 2500]);
    assert_eq!(dir.read("results/1499/stdout"), "1499\n");
    for none in [&[&*script][..], &[&script, "0"], &[&script, "1001"], &[&script, "1x"]] {
        let output = runs(&stage, &dir, "sh", none);
        assert_eq!(output.status.code(), Some(125), "{none:?}: {}", said(&output));
    }
    stage.close(Alone::No);
}

/// sbatch hands the environment on, and a command may be one that submits another such script.
#[test]
#[parallel]
fn each_task_of_an_array_in_an_array_has_a_tree_of_its_own() {
    let Some(stage) = Stage::set() else { return };
    let dir = Scratch::new();
    let results = dir.path("results");
    let args = ["--emit", "slurm", "--results", &results];
    let inner = out(&fed(&stage, &args, "cat /proc/self/cgroup\n".repeat(1001).as_bytes()));
    let inner = saved(&dir, "inner", inner.as_bytes());
    let depth = || dir.read("results/2/stdout").matches("/tidy-process-").count();
    assert!(runs(&stage, &dir, "sh", &[&inner, "2"]).status.success());
    let alone = depth();
    let again = dir.path("again");
    let args = ["--emit", "slurm", "--results", &again];
    let outer = out(&fed(&stage, &args, format!("sh {inner} 2\n").repeat(1001).as_bytes()));
    let outer = saved(&dir, "outer", outer.as_bytes());
    assert!(runs(&stage, &dir, "sh", &[&outer, "2"]).status.success());
    // Below the trees of the outer task and its command are those of the inner ones.
    assert_eq!(depth(), alone + 2);
    stage.close(Alone::No);
}

#[test]
#[parallel]
fn a_command_that_is_too_long_for_one_argument_is_refused() {
    let Some(stage) = Stage::set() else { return };
    let dir = Scratch::new();
    let results = dir.path("results");
    let long = "b ".repeat(70_000);
    for (engine, status) in [("dask", 125), ("parallel", 125), ("slurm", 0)] {
        let args = ["-0", "--emit", engine, "--results", &results, "--", "printf", "%s"];
        let output = fed(&stage, &args, &long.as_bytes()[..131_000]);
        assert_eq!(output.status.code(), Some(status), "{engine}: {}", said(&output));
        assert!(status == 0 || said(&output).contains("command 1"), "{}", said(&output));
    }
    stage.close(Alone::No);
}

/// GNU parallel ends at one that it does not take, and runs none of those that follow.
#[test]
#[parallel]
fn parallel_takes_the_longest_commands_that_are_not_refused_behind_ssh_too() {
    let Some(stage) = Stage::set() else { return };
    let dir = Scratch::new();
    let results = dir.path("results");
    let ssh = dir.path("ssh");
    // What sshd starts is in a session of its own.
    fs::write(&ssh, "#!/bin/sh\nshift 2\nexec setsid -w sh -c \"$*\"\n").unwrap();
    fs::set_permissions(&ssh, fs::Permissions::from_mode(0o755)).unwrap();
    let far = ["--ssh", &ssh, "--sshlogin", "node"];
    for letter in ["a", "\\", "'", "\n"] {
        let args = ["-0", "-q", "--emit", "parallel", "--results", &results, "--", "printf", "%s"];
        let taken = (1..130).rev().map(|kilo| letter.repeat(kilo * 1000)).find_map(|word| {
            let script = fed(&stage, &args, word.as_bytes());
            script.status.success().then_some((word, script.stdout))
        });
        let (word, script) = taken.unwrap();
        let script = saved(&dir, "script", &script);
        for options in [&[][..], &far] {
            let output = runs(&stage, &dir, "sh", &[&[&*script][..], options].concat());
            assert!(output.status.success(), "{} of {letter:?}: {}", word.len(), said(&output));
            assert!(dir.read("results/1/stdout") == word, "{} of {letter:?}", word.len());
        }
    }
    stage.close(Alone::No);
}

#[test]
#[parallel]
fn the_program_for_dask_has_every_byte() {
    let Some(stage) = Stage::set() else { return };
    let dir = Scratch::new();
    let script = emitted(&stage, &dir, "dask", &["--retries", "3", "--", "printf", "%s."]);
    let text = String::from_utf8_lossy(&script).into_owned();
    assert!(text.contains("retries=2)") && text.is_ascii(), "{text}");
    let script = saved(&dir, "script.py", &script);
    // Without Dask: the program compiles, and its commands are run here.
    let check = "import ast, subprocess, sys\n\
        tree = ast.parse(open(sys.argv[1]).read())\n\
        [value] = [node.value for node in tree.body if isinstance(node, ast.Assign)]\n\
        for command in ast.literal_eval(value):\n\
        \x20   subprocess.run(['/bin/sh', '-c', command], check=True)\n";
    let output = runs(&stage, &dir, "python3", &["-c", check, &script]);
    assert!(output.status.success(), "{}", said(&output));
    assert_printed(&stage, &dir);
    stage.close(Alone::No);
}

#[test]
#[parallel]
fn options_of_run_are_handed_on_and_what_an_engine_has_not_is_refused() {
    let Some(stage) = Stage::set() else { return };
    let dir = Scratch::new();
    let results = dir.path("results");
    let json = dir.path("json");
    fs::write(&json, "kept").unwrap();
    let emit = |engine: &str, args: &[&str]| {
        let before = ["--emit", engine, "--results", &results];
        let output = fed(&stage, &[&before[..], args, &["--", "echo", ":::", "a"]].concat(), b"");
        (output.status.code(), out(&output), said(&output))
    };
    let args = ["-t", "5m", "-k1", "--fence", "-E", "A=b c", "--leaks", "fail", "--name", "n"];
    let (status, script, told) = emit("slurm", &args);
    assert_eq!(status, Some(0), "{told}");
    for wanted in ["--timeout=5m", "--kill-after=1", "--fence", "'-EA=b c'", "--leaks=fail"] {
        assert!(script.contains(&format!(" {wanted} ")), "{wanted}: {script}");
    }
    assert!(script.contains(" --name n-1 ") && script.contains(" --die-with-parent "), "{script}");
    let halt = ["--halt", "now", "--delay", "100ms", "--mem-free", "1M", "-j", "50%"];
    let (_, script, _) = emit("parallel", &halt);
    let wanted = "--jobs=50% --memfree=1048576 --delay=0.1 --halt=now,fail=1 \"$@\"";
    assert!(script.contains(wanted), "{script}");
    let refused: &[(&str, &[&str])] = &[
        ("slurm", &["--json", &json]),
        ("slurm", &["--halt", "now"]),
        ("slurm", &["-j", "50%"]),
        ("slurm", &["--retries", "2"]),
        ("dask", &["-j", "2"]),
        ("parallel", &["--junit", &json]),
        ("parallel", &["--dry-run"]),
        ("parallel", &["--tag"]),
    ];
    for (engine, args) in refused {
        let (status, script, told) = emit(engine, args);
        assert_eq!((status, &*script), (Some(125), ""), "{engine} {args:?}: {told}");
    }
    assert_eq!(fs::read_to_string(&json).unwrap(), "kept");
    let slot = fed(&stage, &["--emit", "dask", "--results", &results, "--", "echo", "{%}"], b"a\n");
    assert!(said(&slot).contains("{%}"), "{}", said(&slot));
    let alone = fed(&stage, &["--emit", "dask", "--", "echo"], b"a\n");
    assert_eq!(alone.status.code(), Some(125), "there are no results");
    stage.close(Alone::No);
}

#[test]
#[parallel]
fn a_directory_may_have_any_name() {
    let Some(stage) = Stage::set() else { return };
    let dir = Scratch::new();
    let odd = Path::new(&dir.path(".")).join(OsString::from_vec(b"-o'\n$(touch x)\xff".to_vec()));
    fs::create_dir(&odd).unwrap();
    for engine in ["slurm", "parallel"] {
        let mut pool = stage.tool(&["pool", "-q", "--emit", engine, "--results"]);
        pool.arg(odd.join(engine)).args(["--", "pwd", ":::", "a"]).current_dir(&odd);
        let script = saved(&dir, engine, &pool.output().unwrap().stdout);
        let task: &[&str] = if engine == "slurm" { &[&script, "1"] } else { &[&script] };
        let output = runs(&stage, &dir, "sh", task);
        assert!(output.status.success(), "{}", said(&output));
        let printed = fs::read(odd.join(engine).join("1/stdout")).unwrap();
        let wanted = fs::canonicalize(&odd).unwrap();
        assert_eq!(printed.strip_suffix(b"\n").unwrap(), wanted.as_os_str().as_bytes());
    }
    assert!(!Path::new(&dir.path("x")).exists() && !odd.join("x").exists());
    stage.close(Alone::No);
}
