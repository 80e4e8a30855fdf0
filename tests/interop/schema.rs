//! Reports of the tool against docs/report.schema.json, by a validator that is not ours.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::process::{Command as StdCommand, Stdio};

use jsonschema::Validator;
use serde_json::{Value, json};
use serial_test::parallel;

use crate::runners::tool;
use crate::support::{Alone, Stage};

pub(crate) fn document(name: &str) -> String {
    let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs");
    fs::read_to_string(docs.join(name)).unwrap()
}

/// The schema lets later versions add fields; here a field that it does not name is a fault.
pub(crate) fn strict_of(name: &str) -> (Value, Validator) {
    let mut schema: Value = serde_json::from_str(&document(name)).unwrap();
    jsonschema::meta::validate(&schema).unwrap();
    close(&mut schema);
    let validator = jsonschema::validator_for(&schema).unwrap();
    (schema, validator)
}

fn strict() -> (Value, Validator) {
    strict_of("report.schema.json")
}

fn close(value: &mut Value) {
    if value.get("properties").is_some_and(Value::is_object) {
        value["additionalProperties"] = false.into();
    }
    match value {
        // What is asked only of some is no list of fields.
        Value::Object(all) => {
            all.iter_mut().filter(|(key, _)| *key != "if").for_each(|(_, part)| close(part));
        }
        Value::Array(all) => all.iter_mut().for_each(close),
        _ => {}
    }
}

fn report(stage: &Stage, args: &[&OsStr]) -> Value {
    report_of(stage, "run", args)
}

fn report_of(stage: &Stage, sub: &str, args: &[&OsStr]) -> Value {
    let mut command = StdCommand::new(tool());
    stage.mark_std(command.args([sub, "-q", "--json", "-"]).args(args));
    let output = command.stdin(Stdio::null()).stderr(Stdio::null()).output().unwrap();
    let report = serde_json::from_slice(&output.stdout);
    report.unwrap_or_else(|error| panic!("{args:?}: {error}: {output:?}"))
}

#[test]
#[parallel]
fn reports_of_with_are_too() {
    let Some(stage) = Stage::set() else { return };
    let (_, validator) = strict();
    let server = ["--server", "echo up; exec sleep 20", "--name", "web", "--ready", "log:up"];
    let check = |args: &[&str], place: &str, wanted: Value| {
        let args: Vec<&OsStr> = server.iter().chain(args).map(OsStr::new).collect();
        let report = report_of(&stage, "with", &args);
        if let Err(error) = validator.validate(&report) {
            panic!("{args:?}: {error} at {}: {report}", error.instance_path());
        }
        assert_eq!(report.pointer(place), Some(&wanted), "{args:?}: {report}");
    };
    check(&["true"], "/servers/0/cause", "stopped".into());
    check(&["flsk"], "/servers/0/name", "web".into());
    check(&["--server", "exit 3", "--ready", "tcp", "true"], "/servers/1/status/code", 3.into());
    check(&["--leaks=fail", "sh", "-c", "sleep 20 &"], "/exit", 123.into());
    stage.close(Alone::No);
}

#[test]
#[parallel]
fn reports_are_as_the_schema_has_them() {
    let Some(stage) = Stage::set() else { return };
    let (_, validator) = strict();
    let table: &[(&[&[u8]], &str, Value)] = &[
        (&[b"sh", b"-c", b"exit 3"], "/status/code", 3.into()),
        (&[b"sh", b"-c", b"kill -TERM $$"], "/cause", "signaled".into()),
        (&[b"-t", b"0.1", b"sleep", b"20"], "/cause", "timed-out".into()),
        (&[b"--cpu-time", b"0.1", b"sh", b"-c", b"while :; do :; done"], "/exit", 124.into()),
        (&[b"sh", b"-c", b"cd /usr; sleep 25 & exit 0"], "/leftovers/0/cwd", "/usr".into()),
        (&[b"-t", b"0.1", b"sleep", b"20"], "/interrupted/0/command/0", "sleep".into()),
        (&[b"-t", b"0.1", b"sleep", b"20"], "/interrupted_count", 1.into()),
        (&[b"--leaks=stop", b"sh", b"-c", b"sleep 25 &"], "/leftover_count", 1.into()),
        (&[b"--force-join", b"true"], "/placement", "joined".into()),
        (&[b"--containment", b"keeper", b"true"], "/mechanism", "keeper".into()),
        (&[b"--name", b"a\xff", b"true"], "/name", r"a\xff".into()),
        (&[b"true", b"\xff\\", b"\\"], "/command", json!(["true", r"\xff\\", "\\"])),
        (&[b"true", b"\xff\\", b"\\"], "/command_escaped", json!([1])),
        (&[b"flsk"], "/exit", 127.into()),
        (&[b"/etc/passwd"], "/exit", 126.into()),
        (&[b"a | b"], "/exit", 127.into()),
        (&[b"-C", b"/none", b"true"], "/exit", 125.into()),
    ];
    for (args, place, wanted) in table {
        let args: Vec<&OsStr> = args.iter().map(|word| OsStr::from_bytes(word)).collect();
        let report = report(&stage, &args);
        if let Err(error) = validator.validate(&report) {
            panic!("{args:?}: {error} at {}: {report}", error.instance_path());
        }
        assert_eq!(report.pointer(place), Some(wanted), "{args:?}: {report}");
    }
    stage.close(Alone::No);
}

/// Every event has the fields of its own; those of a command that has ended are a report besides.
#[test]
#[parallel]
fn events_of_a_pool_are_as_their_schema_has_them() {
    let Some(stage) = Stage::set() else { return };
    let (_, reports) = strict();
    let schema: Value = serde_json::from_str(&document("pool.schema.json")).unwrap();
    jsonschema::meta::validate(&schema).unwrap();
    let events = jsonschema::validator_for(&schema).unwrap();
    let script = "case $1 in 1) exit 3;; 2) sleep 25 & ;; 3) sleep 25;; 4) kill -9 $$;; esac";
    let mut command = StdCommand::new(tool());
    stage.mark_std(command.args(["pool", "-q", "-t", "1", "--retries", "2", "--json", "-", "--"]));
    command.args(["sh", "-c", script, "sh", ":::", "0", "1", "2", "3", "4"]);
    let output = command.arg(OsStr::from_bytes(b"\xff")).stderr(Stdio::null()).output().unwrap();
    let missing = ["pool", "-q", "--json", "-", "--", "no-such-program", ":::", "1"];
    let mut command = StdCommand::new(tool());
    stage.mark_std(command.args(missing));
    let failed = command.stderr(Stdio::null()).output().unwrap();
    let mut counts = [0, 0, 0];
    for line in [output.stdout, failed.stdout].concat().split(|&byte| byte == b'\n') {
        let Ok(mut event) = serde_json::from_slice::<Value>(line) else { continue };
        assert!(events.is_valid(&event), "{event}");
        let kinds = ["started", "ended", "over"];
        counts[kinds.iter().position(|&kind| event["event"] == kind).unwrap()] += 1;
        if event["event"] == "ended" {
            let fields = event.as_object_mut().unwrap();
            let own = ["event", "seq", "try", "retried", "time", "stdout_bytes", "stderr_bytes"];
            own.iter().for_each(|field| drop(fields.remove(*field)));
            assert!(reports.is_valid(&event), "{event}");
        }
        event["exit"] = 256.into();
        assert!(event["event"] == "started" || !events.is_valid(&event), "{event}");
    }
    // Three of six are tried twice.
    assert_eq!(counts, [9, 10, 2]);
    stage.close(Alone::No);
}

/// A schema that takes anything would say nothing.
#[test]
#[parallel]
fn what_is_no_report_is_refused() {
    let Some(stage) = Stage::set() else { return };
    let (_, validator) = strict();
    let right = report(&stage, &["sh", "-c", "sleep 25 & exit 0"].map(OsStr::new));
    assert!(validator.is_valid(&right), "{right}");
    let wrong: &[(&str, Value)] = &[
        ("/v", 2.into()),
        ("/exit", 256.into()),
        ("/exit", "0".into()),
        ("/command", json!([])),
        ("/cause", "bored".into()),
        ("/wall_seconds", (-1).into()),
        ("/status", json!({})),
        ("/status", json!({ "code": 0, "signal": 9 })),
        ("/usage", json!({ "user_minutes": 1 })),
        ("/leftovers/0/pid", "1".into()),
        ("/leftovers/0", json!({})),
    ];
    for (place, value) in wrong {
        let mut report = right.clone();
        *report.pointer_mut(place).unwrap() = value.clone();
        assert!(!validator.is_valid(&report), "{place} may be {value}");
    }
    for field in ["v", "exit", "command", "cause", "leftovers", "interrupted"] {
        let mut report = right.clone();
        report.as_object_mut().unwrap().remove(field).unwrap();
        assert!(!validator.is_valid(&report), "{field} may be absent");
    }
    stage.close(Alone::No);
}

/// The names of all fields in a schema.
pub(crate) fn fields(value: &Value, all: &mut Vec<String>) {
    if let Some(properties) = value.get("properties").and_then(Value::as_object) {
        all.extend(properties.keys().cloned());
    }
    match value {
        Value::Object(parts) => parts.values().for_each(|part| fields(part, all)),
        Value::Array(parts) => parts.iter().for_each(|part| fields(part, all)),
        _ => {}
    }
}

#[test]
#[parallel]
fn every_field_is_explained() {
    let (schema, _) = strict();
    let mut all = Vec::new();
    fields(&schema, &mut all);
    assert!(all.len() > 40, "{all:?}");
    let text = document("json.md");
    for field in all {
        assert!(text.contains(&format!("`{field}`")), "docs/json.md does not have {field}");
    }
}
