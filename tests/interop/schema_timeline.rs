//! Timelines of the tool against docs/timeline.schema.json, by a validator that is not ours.

use std::fs;
use std::path::PathBuf;
use std::process::{Command as StdCommand, Stdio};

use serde_json::{Value, json};
use serial_test::parallel;

use crate::runners::tool;
use crate::schema::{document, fields, strict_of};
use crate::support::{Alone, Stage};

const SCHEMA: &str = "timeline.schema.json";

/// The timeline of a run of the tool.
fn timeline(stage: &Stage, args: &[&str]) -> Value {
    let file = PathBuf::from(env!("CARGO_TARGET_TMPDIR"));
    let file = file.join(format!("timeline-{}-{args:p}.json", std::process::id()));
    let mut command = StdCommand::new(tool());
    let (sub, rest) = args.split_first().unwrap();
    stage.mark_std(command.args([sub, "-q", "--timeline"]).arg(&file).args(rest));
    let output = command.stdin(Stdio::null()).output().unwrap();
    let text = fs::read(&file).unwrap_or_else(|error| panic!("{args:?}: {error}: {output:?}"));
    fs::remove_file(file).unwrap();
    serde_json::from_slice(&text).unwrap()
}

const SERVE: &str = "python3 -c 'import socket, time
s = socket.create_server((\"127.0.0.1\", 0)); time.sleep(60)'";

#[test]
#[parallel]
fn timelines_are_as_their_schema_has_them() {
    let Some(stage) = Stage::set() else { return };
    let (_, validator) = strict_of(SCHEMA);
    let server = ["with", "--server", SERVE, "--ready", "tcp", "--name", "db", "--", "true"];
    let table: &[(&[&str], &str, Value)] = &[
        (&["run", "sh", "-c", "sleep 0.1; exit 3"], "/lanes/0/status/code", 3.into()),
        (&["run", "sh", "-c", "kill -TERM $$"], "/lanes/0/cause", "signaled".into()),
        (&["run", "-t", "0.2", "sleep", "20"], "/lanes/0/limits/timeout_seconds", 0.2.into()),
        (&["run", "-t", "0.2", "sleep", "20"], "/lanes/0/events/1/signal", 15.into()),
        (&["run", "sh", "-c", "sleep 25 & exit 0"], "/lanes/0/left_count", 1.into()),
        (&["run", "--cpu-time", "9", "true"], "/lanes/0/limits/cpu_seconds", json!(9.0)),
        (&["run", "--containment", "keeper", "true"], "/lanes/0/memory_from", "processes".into()),
        (&["run", "--name", "a", "true"], "/lanes/0/name", "a".into()),
        (&["run", "flsk"], "/lane_count", 0.into()),
        (&["run", "sh", "-c", &format!(": {}; sleep 0.1", "x".repeat(5000))], "/v", 1.into()),
        (
            &["run", "sh", "-c", "n=0; while [ $n -lt 2500 ]; do n=$((n+1)); (:); done"],
            "/v",
            1.into(),
        ),
        (&server, "/lanes/0/processes/0/ports/0/protocol", "tcp".into()),
        (&server, "/lanes/1/status/code", 0.into()),
    ];
    for (args, place, wanted) in table {
        let timeline = timeline(&stage, args);
        if let Err(error) = validator.validate(&timeline) {
            let here = error.instance_path();
            panic!("{args:?}: {error} at {here}: {:?}", timeline.pointer(here.as_str()));
        }
        let found = timeline.pointer(place);
        // A shell that starts the server is its first process.
        let found =
            found.or_else(|| timeline.pointer(&place.replace("processes/0", "processes/1")));
        assert_eq!(found, Some(wanted), "{args:?} {place}: {timeline}");
    }
    stage.close(Alone::No);
}

/// A schema that takes anything would say nothing.
#[test]
#[parallel]
fn what_is_no_timeline_is_refused() {
    let Some(stage) = Stage::set() else { return };
    let (_, validator) = strict_of(SCHEMA);
    let right = timeline(&stage, &["run", "-t", "0.2", "sh", "-c", "sleep 25 & sleep 20"]);
    assert!(validator.is_valid(&right), "{right}");
    let wrong: &[(&str, Value)] = &[
        ("/v", 2.into()),
        ("/wall_seconds", (-1).into()),
        ("/lanes", json!({})),
        ("/lanes/0/births", "known".into()),
        ("/lanes/0/cause", "bored".into()),
        ("/lanes/0/status", json!({ "code": 0, "signal": 9 })),
        ("/lanes/0/memory_from", "rumour".into()),
        ("/lanes/0/limits", json!({ "memory": 1 })),
        ("/lanes/0/processes/0/pid", "1".into()),
        ("/lanes/0/processes/0/left", 1.into()),
        ("/lanes/0/samples/0", json!({ "at": 0 })),
        ("/lanes/0/events/0/event", "party".into()),
        ("/lanes/0/events/0", json!({ "at": 0, "until": 0, "count": 1, "event": "stop-signal" })),
    ];
    for (place, value) in wrong {
        let mut timeline = right.clone();
        *timeline.pointer_mut(place).unwrap() = value.clone();
        assert!(!validator.is_valid(&timeline), "{place} may be {value}");
    }
    stage.close(Alone::No);
}

#[test]
#[parallel]
fn every_field_of_a_timeline_is_explained() {
    let (schema, _) = strict_of(SCHEMA);
    let mut all = Vec::new();
    fields(&schema, &mut all);
    assert!(all.len() > 50, "{all:?}");
    let text = document("timeline.md");
    for field in all {
        assert!(text.contains(&format!("`{field}`")), "docs/timeline.md does not have {field}");
    }
}
