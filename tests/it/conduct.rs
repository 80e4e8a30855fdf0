//! How the tool conducts itself where `env`, `timeout` and shells have long decided what is right:
//! each row of the table is also run under those, and must come out the same.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command as StdCommand, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use serial_test::parallel;

use crate::support::{Alone, Stage, tool};

/// One command line, what comes of it, and the reference that agrees (empty: there is none).
pub(crate) struct Row {
    options: &'static [&'static str],
    command: &'static [&'static str],
    like: &'static [&'static str],
    status: i32,
    /// What standard output is, and the file `f`.
    out: &'static str,
    f: &'static str,
    /// What standard error has in it.
    says: &'static str,
}

pub(crate) const fn row(
    options: &'static [&'static str],
    command: &'static [&'static str],
    like: &'static [&'static str],
    status: i32,
) -> Row {
    Row { options, command, like, status, out: "", f: "old\n", says: "" }
}

impl Row {
    pub(crate) const fn out(self, out: &'static str) -> Self {
        Self { out, ..self }
    }

    pub(crate) const fn f(self, f: &'static str) -> Self {
        Self { f, ..self }
    }

    pub(crate) const fn says(self, says: &'static str) -> Self {
        Self { says, ..self }
    }
}

const BOTH: &[&str] = &["sh", "-c", "echo a; echo b >&2; echo c"];

const FILES: &[Row] = &[
    row(&["--stdout", "f"], &["echo", "a"], &["sh", "-c", "echo a >f"], 0).f("a\n"),
    row(
        &["--stdout", "f", "--stderr", "f"],
        BOTH,
        &["sh", "-c", "(echo a; echo b >&2; echo c) >f 2>&1"],
        0,
    )
    .f("a\nb\nc\n"),
    row(&["--stderr", "f", "--stdout", "./d/../f"], BOTH, &[], 0).f("a\nb\nc\n"),
    row(&["--stdout", "f", "--stderr", "hard"], BOTH, &[], 0).f("a\nb\nc\n"),
    row(&["--stdout", "soft", "--stderr", "f"], BOTH, &[], 0).f("a\nb\nc\n"),
    row(&["--output", "f"], BOTH, &["sh", "-c", "(echo a; echo b >&2; echo c) >f 2>&1"], 0)
        .f("a\nb\nc\n"),
    row(
        &["--output", "f", "--append"],
        BOTH,
        &["sh", "-c", "(echo a; echo b >&2; echo c) >>f 2>&1"],
        0,
    )
    .f("old\na\nb\nc\n"),
    row(&["--append", "--stdout", "f"], &["echo", "a"], &["sh", "-c", "echo a >>f"], 0)
        .f("old\na\n"),
    row(&["--append", "--stdout", "f", "--stderr", "hard"], BOTH, &[], 0).f("old\na\nb\nc\n"),
    row(&["--output", "-"], BOTH, &["sh", "-c", "(echo a; echo b >&2; echo c) 2>&1"], 0)
        .out("a\nb\nc\n"),
    row(
        &["--stdout", "-", "--stderr", "f"],
        BOTH,
        &["sh", "-c", "(echo a; echo b >&2; echo c) 2>f"],
        0,
    )
    .out("a\nc\n")
    .f("b\n"),
    row(&["--stdin", "f", "--stdout", "-"], &["cat"], &["sh", "-c", "cat <f"], 0).out("old\n"),
    row(&["--stdin", "-"], &["cat"], &["cat"], 0).out("input\n"),
    row(&["--stdin", "none"], &["cat"], &[], 125).says("open \"none\": No such file"),
    row(&["--stdin", "none"], &["cat"], &[], 125).says("(ENOENT)"),
    row(&["--output", "f", "--stdout", "f"], &["cat"], &[], 125).says("cannot be used with"),
];

const SCRIPTS: &[Row] = &[
    row(&[], &["./script", "x y"], &["env", "./script", "x y"], 5).out("script x y\n"),
    row(&["--"], &["d/../script"], &["env", "--", "d/../script"], 5).out("script \n"),
    row(&["-C", "d"], &["../script"], &["env", "-C", "d", "../script"], 5).out("script \n"),
    row(
        &["-E", "PATH=.:/usr/bin:/bin"],
        &["script"],
        &["env", "PATH=.:/usr/bin:/bin", "script"],
        5,
    )
    .out("script \n"),
    row(&["-E", "PATH=d::/bin"], &["script"], &["env", "PATH=d::/bin", "script"], 5)
        .out("script \n"),
    row(&["-E", "PATH=:/bin", "--"], &["-dash"], &["env", "PATH=:/bin", "./-dash"], 6)
        .out("dash\n"),
    row(&["--force-join"], &["./script"], &["env", "./script"], 5).out("script \n"),
    row(&["--containment", "keeper"], &["./script"], &["env", "./script"], 5).out("script \n"),
    row(&[], &["./elf"], &["bash", "-c", "./elf 2>/dev/null"], 126).says("exec \"./elf\""),
    row(&[], &["./nul"], &["bash", "-c", "./nul 2>/dev/null"], 126).says("ENOEXEC"),
    row(&[], &["./empty"], &[], 126).says("neither a program"),
    row(&["--containment", "keeper"], &["./empty"], &[], 126).says("ENOEXEC"),
    row(&[], &["./f"], &["env", "./f"], 126).says("EACCES"),
    row(&[], &["./none"], &["env", "./none"], 127).says("ENOENT"),
    row(&[], &["./loader"], &["env", "./loader"], 127).says("interpreter"),
];

const STATUS: &[Row] = &[
    row(&[], &["true"], &["env", "true"], 0),
    row(&[], &["sh", "-c", "exit 42"], &["timeout", "9", "sh", "-c", "exit 42"], 42),
    row(&[], &["sh", "-c", "kill -TERM $$"], &["sh", "-c", "sh -c 'kill -TERM $$'; exit $?"], 143),
    row(&["-E", "A=1=2"], &["sh", "-c", "echo $A"], &["env", "A=1=2", "sh", "-c", "echo $A"], 0)
        .out("1=2\n"),
    row(&["-E", "A="], &["sh", "-c", "echo ${A-x}"], &["env", "A=", "sh", "-c", "echo ${A-x}"], 0)
        .out("\n"),
    row(&["-C", "/usr"], &["pwd"], &["env", "-C", "/usr", "pwd"], 0).out("/usr\n"),
    row(&["-C", "/none"], &["pwd"], &["env", "-C", "/none", "pwd"], 125),
    row(&["-t", "0.1"], &["sleep", "20"], &["timeout", "0.1", "sleep", "20"], 124),
    row(&["-t", "inf"], &["true"], &["timeout", "inf", "true"], 0),
    row(&["-t", "0"], &["true"], &["timeout", "0", "true"], 0),
    row(&["-k", "inf"], &["true"], &["timeout", "-k", "inf", "9", "true"], 0),
    row(&["--cpu-time", "inf"], &["true"], &[], 0),
    row(&["-t", "1m30s"], &["true"], &[], 0),
    row(&["-t", "-5"], &["true"], &["timeout", "--", "-5", "true"], 125)
        .says("a duration is not negative"),
    row(&["-t", "-5s"], &["true"], &[], 125).says("a duration is not negative"),
    row(&["-t", "5x"], &["true"], &["timeout", "5x", "true"], 125).says("30s or 1m30s"),
    row(&["-t", "1m30"], &["true"], &["timeout", "1m30", "true"], 125).says("needs its unit"),
    row(&["-k", "-1"], &["true"], &["timeout", "-k", "-1", "9", "true"], 125).says("not negative"),
    row(&["-s", "NOPE"], &["true"], &["timeout", "-s", "NOPE", "9", "true"], 125)
        .says("no such signal"),
    row(&["-s", "-9"], &["true"], &[], 125).says("1 to 64"),
    row(&["-m", "-5"], &["true"], &[], 125).says("a size is not negative"),
    row(&["-m", "512X"], &["true"], &[], 125).says("512M or 1.5G"),
    row(&["-m", "101%"], &["true"], &[], 125).says("from 0% to 100%"),
    row(&["--cpus", "0%"], &["true"], &[], 125).says("as in 150%"),
    row(&["--cpus", "-1"], &["true"], &[], 125).says("as in 150%"),
    row(&["--pids", "-1"], &["true"], &[], 125).says("a whole number, or max"),
    row(&["--cpu-weight", "0"], &["true"], &[], 125).says("from 1 to 10000"),
    row(&["-E", "x"], &["true"], &[], 125).says("NAME=VALUE"),
];

/// Longer than any file's name.
const LONG: &str = concat!(
    "echo aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
    " bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb",
    " cccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccc",
    " ddddddddddddddddddddddddddddddddddd | cat"
);

const WORDS: &[Row] = &[
    row(&[], &["echo hi | cat"], &["env", "echo hi | cat"], 127)
        .says("takes a shell: tidy-process run --json report -- sh -c 'echo hi | cat'"),
    row(&["-q"], &["echo hi"], &["env", "echo hi"], 127).says("run --json report -q -- echo hi\n"),
    row(&[], &["FOO=bar", "env"], &[], 127).says("run --json report -E FOO=bar -- env\n"),
    row(&["--"], &["cd", "/tmp"], &["env", "cd", "/tmp"], 127).says("-- sh -c 'cd /tmp'\n"),
    row(&[], &["source", "x"], &["env", "source", "x"], 127).says("-- bash -c 'source x'\n"),
    row(&[], &[LONG], &["env", LONG], 126).says("takes a shell: tidy-process run"),
    row(&[], &["/etc/passwd/x; ls"], &["env", "/etc/passwd/x; ls"], 126).says("takes a shell"),
    row(&[], &["flsk"], &["env", "flsk"], 127).says("is it installed"),
];

/// A directory to run in, the same for each run.
pub(crate) struct Scene(pub(crate) PathBuf);

impl Scene {
    pub(crate) fn set(name: &str) -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let dir = format!("tidy-{name}-{}-{number}", std::process::id());
        let dir = std::env::temp_dir().join(dir);
        let _ = fs::remove_dir_all(&dir);
        fs::create_dir_all(dir.join("d")).unwrap();
        let files: [(&str, &[u8], u32); 10] = [
            (
                "mini",
                b"trap 'sleep .3; echo cleaned; exit' TERM; echo up; while :; do sleep .05; done",
                0o644,
            ),
            (
                "halted",
                b"trap 'echo cleaned; exit' TERM; echo up; kill -STOP $$; sleep 20 & wait",
                0o644,
            ),
            ("f", b"old\n", 0o644),
            ("in", b"input\n", 0o644),
            ("script", b"echo \"script $1\"\nexit 5\n", 0o755),
            ("-dash", b"echo dash\nexit 6\n", 0o755),
            ("empty", b"", 0o755),
            ("nul", b"echo \0\n", 0o755),
            ("elf", b"\x7fELF\x02\x01\x01 of another machine", 0o755),
            ("loader", b"#!/no/such/loader\n", 0o755),
        ];
        for (name, bytes, mode) in files {
            fs::write(dir.join(name), bytes).unwrap();
            fs::set_permissions(dir.join(name), fs::Permissions::from_mode(mode)).unwrap();
        }
        fs::hard_link(dir.join("f"), dir.join("hard")).unwrap();
        std::os::unix::fs::symlink("f", dir.join("soft")).unwrap();
        Self(dir)
    }

    fn run(&self, mut command: StdCommand) -> Output {
        let input = fs::File::open(self.0.join("in")).unwrap();
        command.current_dir(&self.0).stdin(input).output().unwrap()
    }

    fn read(&self, name: &str) -> String {
        fs::read_to_string(self.0.join(name)).unwrap_or_default()
    }
}

impl Drop for Scene {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

pub(crate) fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

pub(crate) fn check(stage: &Stage, row: &Row) {
    let line = format!("{:?} {:?}", row.options, row.command);
    let scene = Scene::set("conduct");
    let mut command = stage.tool(&["run", "--json", "report"]);
    command.args(row.options).args(row.command);
    let output = scene.run(command);
    let came = |output: &Output, scene: &Scene| {
        let out = String::from_utf8_lossy(&output.stdout).into_owned();
        (output.status.code(), out, scene.read("f"))
    };
    let wanted = (Some(row.status), row.out.to_owned(), row.f.to_owned());
    assert_eq!(came(&output, &scene), wanted, "{line}: {}", said(&output));
    assert!(said(&output).contains(row.says), "{line}: {}", said(&output));
    stage.assert_clean(&line);
    if row.status != 125 {
        let report: serde_json::Value = serde_json::from_str(&scene.read("report")).unwrap();
        assert_eq!(report["v"], 1, "{line}");
        assert_eq!(report["exit"], row.status, "{line}");
        assert_eq!(report["command"], serde_json::json!(row.command), "{line}");
        assert!(report["command_escaped"].is_null(), "{line}");
    }
    if let Some((program, args)) = row.like.split_first() {
        let scene = Scene::set("conduct");
        let mut command = StdCommand::new(program);
        command.args(args);
        let output = scene.run(command);
        assert_eq!(came(&output, &scene), wanted, "the reference {:?} differs", row.like);
    }
}

#[test]
#[parallel]
fn the_table_holds_and_the_references_agree() {
    let Some(stage) = Stage::set() else { return };
    for row in [FILES, SCRIPTS, STATUS, WORDS].into_iter().flatten() {
        check(&stage, row);
    }
    stage.close(Alone::No);
}

/// An option that would do nothing is a mistake.
#[test]
#[parallel]
fn append_wants_a_file_to_add_to() {
    let Some(stage) = Stage::set() else { return };
    let output = stage.tool(&["run", "--append", "--stdin", "/dev/null", "true"]).output().unwrap();
    assert_eq!(output.status.code(), Some(125));
    assert!(said(&output).contains("--output <FILE>"), "{}", said(&output));
    stage.close(Alone::No);
}

/// The tool, found as a shell finds it.
fn typed(stage: &Stage, line: &str) -> Output {
    let dir = Path::new(tool()).parent().unwrap();
    let mut command = StdCommand::new("bash");
    stage.mark_std(command.args(["-c", line]));
    let path = format!("{}:{}", dir.display(), std::env::var("PATH").unwrap());
    command.env("PATH", path).stdin(Stdio::null()).output().unwrap()
}

/// What is typed wrongly, and what the line that is shown for it prints.
#[test]
#[parallel]
fn the_line_that_is_shown_works() {
    let Some(stage) = Stage::set() else { return };
    let table: &[(&str, i32, &str)] = &[
        ("tidy-process run 'echo a | cat'", 127, "a\n"),
        ("tidy-process run \"echo 'a  b'\"", 127, "a  b\n"),
        ("tidy-process run $'echo a\\necho b'", 127, "a\nb\n"),
        ("tidy-process run 'echo a'", 127, "a\n"),
        ("tidy-process run -- FOO=bar sh -c 'echo $FOO'", 127, "bar\n"),
        ("tidy-process run 'FOO=bar sh -c \"echo x$FOO\"'", 127, "x\n"),
        ("tidy-process run ulimit -n", 127, ""),
        ("tidy-process run -- cd /tmp", 127, ""),
        ("tidy-process with --server 'sleep 9' -- 'echo a | cat'", 127, "a\n"),
        ("tidy-process with --server 'sleep 9' -- FOO=bar sh -c 'echo $FOO'", 127, "bar\n"),
        ("tidy-process echo a b", 125, "a b\n"),
        ("tidy-process -t 5 echo a", 125, "a\n"),
        ("tidy-process -q -- echo a", 125, "a\n"),
        ("tidy-process 'echo a | cat'", 125, "a\n"),
        ("tidy-process FOO=bar sh -c 'echo $FOO'", 125, "bar\n"),
    ];
    for (line, status, printed) in table {
        let wrong = typed(&stage, line);
        assert_eq!(wrong.status.code(), Some(*status), "{line}: {}", said(&wrong));
        let said = said(&wrong);
        let at =
            said.find("hint: ").and_then(|at| Some(at + said[at..].find(": tidy-process ")? + 2));
        let right = &said[at.unwrap_or_else(|| panic!("{line}: {said}"))..];
        let output = typed(&stage, right);
        assert_eq!(output.status.code(), Some(0), "{right}: {}", self::said(&output));
        let out = String::from_utf8_lossy(&output.stdout);
        assert!(out == *printed || printed.is_empty(), "{right}: {out}");
    }
    // A typing error within a subcommand is that.
    for line in ["tidy-process run --bogus true", "tidy-process doctor x", "tidy-process --bogus"] {
        let output = typed(&stage, line);
        assert_eq!(output.status.code(), Some(125), "{line}");
        assert!(!said(&output).contains("to run a command"), "{line}: {}", said(&output));
    }
    stage.close(Alone::No);
}

#[test]
#[parallel]
fn output_and_report_may_share_a_file() {
    let Some(stage) = Stage::set() else { return };
    let scene = Scene::set("shared");
    let f = scene.0.join("f");
    let check = |line: &str, before: &str| {
        fs::write(&f, "old\n").unwrap();
        let output = typed(&stage, &format!("cd {:?}; {line}", scene.0));
        assert_eq!(output.status.code(), Some(0), "{line}: {}", said(&output));
        let written = scene.read("f");
        let report = written.strip_prefix(before).unwrap_or_else(|| panic!("{line}: {written}"));
        let report: serde_json::Value = serde_json::from_str(report).unwrap();
        assert_eq!(report["exit"], 0, "{line}");
    };
    check(
        "tidy-process run --json f --stdout f --stderr hard sh -c 'echo a; echo b >&2'",
        "a\nb\n",
    );
    check("tidy-process run --json soft --output f sh -c 'echo a; echo b >&2'", "a\nb\n");
    check("tidy-process run --json f --append --output f echo a", "old\na\n");
    check("tidy-process run --json f echo a >f", "a\n");
    check("tidy-process run --json f --stdout hard sh -c 'echo a; echo b >&2' 2>f", "a\nb\n");
    check("tidy-process run --json - echo a >f", "a\n");
    stage.close(Alone::No);
}

/// A pipe has no position to share, and its reader waits for the end.
#[test]
#[parallel]
fn a_pipe_that_is_written_to_ends_with_the_command() {
    let Some(stage) = Stage::set() else { return };
    let scene = Scene::set("pipe");
    let fifo = scene.0.join("fifo");
    nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).unwrap();
    let script = "echo a; echo b >&2; exec >&- 2>&-; read x; exit 7";
    let mut command = stage.tool(&["run", "-q", "-t", "20", "--output"]);
    command.arg(&fifo).args(["sh", "-c", script]).stdin(Stdio::piped());
    let mut tool = command.spawn().unwrap();
    // If the tool kept it open, this would last until the timeout.
    assert_eq!(fs::read_to_string(&fifo).unwrap(), "a\nb\n");
    drop(tool.stdin.take());
    assert_eq!(tool.wait().unwrap().code(), Some(7));
    stage.close(Alone::No);
}

#[test]
#[parallel]
fn two_servers_do_not_empty_each_others_log() {
    let Some(stage) = Stage::set() else { return };
    let server = ["--server", "true", "--log", "/dev/null"];
    let output = stage.tool(&["with"]).args(server).args(server).arg("true").output().unwrap();
    assert_eq!(output.status.code(), Some(125));
    assert!(said(&output).contains("the same --log"), "{}", said(&output));
    stage.close(Alone::No);
}
