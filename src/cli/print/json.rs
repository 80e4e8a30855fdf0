//! `--json`: the report, stable and versioned. What could not be measured is absent, never 0.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};
use tidy_process::cli_support::steers;
use tidy_process::{
    Cause, ChangeList, Confined, Denied, Gap, Layer, ListeningPort, Missing, Note, Plan,
    ProcessInfo, Report, Usage,
};

use crate::exit::Failure;
use crate::print::patient::{Patient, forgiving, write_finally};

/// The version of the format.
pub(crate) const VERSION: u32 = 1;

/// Where the report goes; opened before the command starts, so that a bad path costs nothing.
pub(crate) struct Sink(Option<(String, OwnedFd)>);

/// What a report is about.
#[derive(Clone, Copy)]
pub(crate) struct Subject<'a> {
    pub(crate) command: &'a [OsString],
    pub(crate) name: Option<&'a OsStr>,
    /// The servers beside it, of `with`.
    pub(crate) servers: Option<&'a [Value]>,
    /// What it has changed in its overlays.
    pub(crate) changes: Option<&'a Value>,
}

impl Subject<'_> {
    pub(crate) fn value(self, exit: u8) -> Value {
        let mut value = json!({ "v": VERSION, "exit": exit });
        insert_words(&mut value, "command", self.command);
        if let Some(name) = self.name {
            insert_word(&mut value, "name", name);
        }
        if let Some(servers) = self.servers {
            insert(&mut value, "servers", servers.into());
        }
        if let Some(changes) = self.changes {
            insert(&mut value, "changes", changes.clone());
        }
        value
    }
}

impl Sink {
    /// `open` makes the file, or finds the end of one.
    pub(crate) fn open(
        path: Option<&Path>,
        open: impl FnOnce(&Path) -> Result<File, Failure>,
    ) -> Result<Self, Failure> {
        let Some(path) = path else {
            return Ok(Self(None));
        };
        if path.as_os_str() == "-" {
            let path = "standard output".to_owned();
            return match io::stdout().as_fd().try_clone_to_owned() {
                Ok(ours) => Ok(Self(Some((path, ours)))),
                Err(error) => Err(Failure::Open { path, error }),
            };
        }
        Ok(Self(Some((format!("{path:?}"), open(path)?.into()))))
    }

    pub(crate) fn is_open(&self) -> bool {
        self.0.is_some()
    }

    pub(crate) fn plan(&self, plan: &Plan) -> Result<(), Failure> {
        let layer = |layer: &Layer| {
            let properties: Vec<&str> = layer.properties.iter().map(|each| each.name()).collect();
            let mechanism = layer.mechanism;
            json!({ "mechanism": mechanism, "properties": properties, "details": layer.details })
        };
        let layers: Vec<Value> = plan.layers.iter().map(layer).collect();
        let plan = json!({ "level": plan.level.to_string(), "layers": layers });
        self.write(|| json!({ "v": VERSION, "plan": plan }))
    }

    pub(crate) fn report(
        &self,
        subject: Subject<'_>,
        exit: u8,
        report: &Report,
        scope: Option<String>,
    ) -> Result<(), Failure> {
        self.write(|| {
            let mut value = subject.value(exit);
            ended(&mut value, report);
            if let Some(scope) = scope {
                insert(&mut value, "scope", scope.into());
            }
            value
        })
    }

    pub(crate) fn failure(
        &self,
        subject: Subject<'_>,
        exit: u8,
        failure: &Failure,
        report: Option<&Report>,
    ) -> Result<(), Failure> {
        self.write(|| {
            let mut value = subject.value(exit);
            insert(&mut value, "error", failure.to_string().into());
            if let Some(hint) = failure.hint() {
                insert(&mut value, "hint", hint.into());
            }
            if let Some(report) = report {
                ended(&mut value, report);
            }
            value
        })
    }

    /// Writes this, if there is a place for it: to make it costs a run more than its teardown.
    pub(crate) fn write(&self, value: impl FnOnce() -> Value) -> Result<(), Failure> {
        if !self.is_open() {
            return Ok(());
        }
        self.text(&(text(&value()) + "\n"))
    }

    /// Writes lines, if there is a place for them.
    pub(crate) fn text(&self, lines: &str) -> Result<(), Failure> {
        self.bytes(lines.as_bytes())
    }

    pub(crate) fn bytes(&self, lines: &[u8]) -> Result<(), Failure> {
        self.written(|sink| write_finally(sink, lines))
    }

    /// As [`bytes`](Self::bytes), while commands run: no signal ends this process at that.
    pub(crate) fn bytes_meanwhile(&self, lines: &[u8]) -> Result<(), Failure> {
        self.written(|sink| Patient(sink).write_all(lines))
    }

    /// As [`write`](Self::write), while commands run.
    pub(crate) fn write_meanwhile(&self, value: impl FnOnce() -> Value) -> Result<(), Failure> {
        if !self.is_open() {
            return Ok(());
        }
        self.bytes_meanwhile((text(&value()) + "\n").as_bytes())
    }

    fn written(&self, write: impl FnOnce(&OwnedFd) -> io::Result<()>) -> Result<(), Failure> {
        let Some((path, sink)) = &self.0 else {
            return Ok(());
        };
        forgiving(write(sink)).map_err(|error| Failure::Report { path: path.clone(), error })
    }
}

/// How CMD ended.
pub(crate) fn ended(value: &mut Value, report: &Report) {
    let status = match (report.status.code(), report.status.signal()) {
        (Some(code), _) => json!({ "code": code }),
        (None, Some(signal)) => json!({ "signal": signal }),
        (None, None) => Value::Null,
    };
    let notes = report.notes.iter().copied().map(note).collect();
    let entries: [(&str, Value); 12] = [
        ("status", status),
        ("cause", cause(report.cause).into()),
        ("wall_seconds", report.wall.as_secs_f64().into()),
        ("placement", report.placement.to_string().into()),
        ("mechanism", report.mechanism.to_string().into()),
        ("usage", usage(&report.usage)),
        ("missing", report.usage.missing.iter().map(missing).collect()),
        ("notes", notes),
        ("leftovers", report.leftovers.iter().map(process).collect()),
        ("leftover_count", report.leftover_count.into()),
        ("interrupted", report.interrupted.iter().map(process).collect()),
        ("interrupted_count", report.interrupted_count.into()),
    ];
    for (key, entry) in entries {
        insert(value, key, entry);
    }
    if let Some(how) = &report.sandbox {
        insert(value, "sandbox", confined(how));
    }
    if report.denied_count > 0 {
        insert(value, "denied", report.denied.iter().map(denied).collect());
        insert(value, "denied_count", report.denied_count.into());
    }
}

fn denied(denied: &Denied) -> Value {
    let action = denied.action.to_string();
    let mut value = json!({ "action": action, "call": denied.call, "target": denied.target });
    let who = [("name", Value::from(&*denied.name)), ("pid", denied.pid.into())];
    let times = [("times", Value::from(denied.times))];
    let remedy = denied.remedy.as_deref().map(|it| ("remedy", Value::from(it)));
    let remark = denied.remark.as_deref().map(|it| ("remark", Value::from(it)));
    for (key, entry) in who.into_iter().chain(times).chain(remedy).chain(remark) {
        insert(&mut value, key, entry);
    }
    value
}

/// An overlay, and what differs in it.
pub(crate) fn changed(dir: &Path, list: &ChangeList, is_committed: bool) -> Value {
    let mut value = json!({
        "count": list.count, "skipped": list.skipped, "committed": is_committed
    });
    insert_word(&mut value, "dir", dir.as_os_str());
    let all = list.changes.iter().map(|change| {
        let kind = change.kind.to_string();
        let mut value = json!({ "kind": kind, "directory": change.is_dir, "bytes": change.size });
        insert_word(&mut value, "path", change.path.as_os_str());
        value
    });
    insert(&mut value, "changes", all.collect());
    value
}

fn confined(how: &Confined) -> Value {
    let (level, mechanisms) = (how.level.to_string(), &how.mechanisms);
    json!({ "level": level, "mechanisms": mechanisms, "excepted": how.excepted })
}

/// A server of `with`, and how it ended.
pub(crate) fn about_server(name: &str, pid: u32, report: Option<&Report>) -> Value {
    let mut value = json!({ "name": name, "pid": pid });
    report.into_iter().for_each(|report| ended(&mut value, report));
    value
}

/// As one line. JSON may have any character but the first 32 in a string; a terminal obeys more
/// than those.
pub(crate) fn text(value: &Value) -> String {
    let mut text = String::new();
    for c in value.to_string().chars() {
        if steers(c) {
            c.encode_utf16(&mut [0; 2]).iter().for_each(|unit| text += &format!("\\u{unit:04x}"));
        } else {
            text.push(c);
        }
    }
    text
}

/// JSON is text. A word that is none has `\xNN` for each byte that belongs to no character and
/// `\\` for each backslash; that it was so written is said in a field beside it.
fn escaped(word: &OsStr) -> Option<String> {
    if word.to_str().is_some() {
        return None;
    }
    let mut text = String::new();
    for chunk in word.as_bytes().utf8_chunks() {
        text += &chunk.valid().replace('\\', "\\\\");
        chunk.invalid().iter().for_each(|byte| text += &format!("\\x{byte:02x}"));
    }
    Some(text)
}

/// `KEY`, and `KEY_escaped` where it is no text.
pub(crate) fn insert_word(value: &mut Value, key: &str, word: &OsStr) {
    let escaped = escaped(word);
    if escaped.is_some() {
        insert(value, &format!("{key}_escaped"), true.into());
    }
    insert(value, key, escaped.unwrap_or_else(|| word.to_string_lossy().into_owned()).into());
}

/// The same for a list; `KEY_escaped` has the places of those that are no text.
pub(crate) fn insert_words(value: &mut Value, key: &str, words: &[OsString]) {
    let text = |word: &OsString| escaped(word).unwrap_or_else(|| word.to_string_lossy().into());
    let places = words.iter().enumerate().filter(|(_, word)| word.to_str().is_none());
    let places: Vec<Value> = places.map(|(place, _)| place.into()).collect();
    if !places.is_empty() {
        insert(value, &format!("{key}_escaped"), places.into());
    }
    insert(value, key, words.iter().map(text).collect());
}

pub(crate) fn cause(cause: Cause) -> &'static str {
    match cause {
        Cause::Exited => "exited",
        Cause::Signaled(_) => "signaled",
        Cause::TimedOut => "timed-out",
        Cause::CpuTimeExceeded => "cpu-time-exceeded",
        Cause::OutOfMemory => "out-of-memory",
        Cause::Stopped => "stopped",
        Cause::Escaped => "escaped",
        Cause::StatusTaken => "status_taken",
        _ => "other",
    }
}

/// What is not known is absent, and in "missing".
fn usage(usage: &Usage) -> Value {
    let seconds = |time: Option<Duration>| time.map(|time| Value::from(time.as_secs_f64()));
    let number = |number: Option<u64>| number.map(Value::from);
    let all = [
        ("user_seconds", seconds(usage.user)),
        ("system_seconds", seconds(usage.system)),
        ("memory_peak_bytes", number(usage.memory_peak)),
        ("pids_peak", number(usage.pids_peak)),
        ("io_read_bytes", number(usage.io_read)),
        ("io_written_bytes", number(usage.io_written)),
        ("cpu_pressure_seconds", seconds(usage.cpu_pressure)),
        ("memory_pressure_seconds", seconds(usage.memory_pressure)),
        ("io_pressure_seconds", seconds(usage.io_pressure)),
        ("oom_kills", number(usage.oom_kills)),
        ("pids_denied", number(usage.pids_denied)),
    ];
    let known = all.into_iter().filter_map(|(key, value)| Some((key.to_owned(), value?)));
    Value::Object(known.collect())
}

fn missing(missing: &Missing) -> Value {
    json!({ "field": missing.field.to_string(), "file": missing.file, "reason": missing.reason })
}

fn note(note: Note) -> Value {
    match note {
        Note::PidsExhausted(denied) => json!({ "note": "pids-exhausted", "denied": denied }),
        Note::OutOfMemory(kills) => json!({ "note": "out-of-memory", "kills": kills }),
        _ => json!({ "note": "other" }),
    }
}

pub(crate) fn process(process: &ProcessInfo) -> Value {
    let mut value = json!({ "pid": process.pid });
    let stated = [
        ("ppid", "ppid", process.ppid.into()),
        ("session", "session", process.session.into()),
        ("name", "name", Value::from(&*process.name)),
        ("state", "state", process.state.to_string().into()),
        ("running", "running_seconds", process.running.as_secs_f64().into()),
    ];
    for (field, key, entry) in stated {
        if !process.gaps.iter().any(|gap| gap.field == field) {
            insert(&mut value, key, entry);
        }
    }
    insert(
        &mut value,
        "command",
        process.command.iter().map(|word| Value::from(&**word)).collect(),
    );
    if !process.gaps.is_empty() {
        let gap = |gap: &Gap| json!({ "field": gap.field, "reason": gap.reason });
        insert(&mut value, "missing", process.gaps.iter().map(gap).collect());
    }
    if let Some(cwd) = &process.cwd {
        insert_word(&mut value, "cwd", cwd.as_os_str());
    }
    if !process.ports.is_empty() {
        insert(&mut value, "ports", process.ports.iter().map(port).collect());
    }
    value
}

pub(crate) fn insert(value: &mut Value, key: &str, entry: Value) {
    if let Some(object) = value.as_object_mut() {
        object.insert(key.to_owned(), entry);
    }
}

fn port(port: &ListeningPort) -> Value {
    let protocol = port.protocol.to_string();
    json!({ "protocol": protocol, "address": port.address.ip(), "port": port.address.port() })
}
