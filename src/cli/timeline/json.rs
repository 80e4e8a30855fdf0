//! `--timeline FILE.json`: the numbers, in a stable and versioned form; see docs/timeline.md.

use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::time::{Duration, SystemTime};

use serde_json::{Value, json};
use tidy_process::{
    Births, Event, EventKind, Lane, LaneLimits, Omitted, Sample, SeenPort, Source, Span, Timeline,
};

use crate::print::json::{VERSION, cause, insert, text};

pub(crate) fn json(timeline: &Timeline, note: Option<&str>) -> String {
    let began = timeline.began.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let mut value = json!({
        "v": VERSION,
        "began_unix_seconds": seconds(began),
        "wall_seconds": seconds(timeline.wall),
        "lane_count": timeline.lane_count,
        "lanes": timeline.lanes.iter().map(lane).collect::<Vec<_>>(),
    });
    insert_some(&mut value, "error", note.map(Value::from));
    text(&value) + "\n"
}

fn lane(lane: &Lane) -> Value {
    let births = if lane.births == Births::Told { "told" } else { "sampled" };
    let missing = lane.gaps.iter().map(|gap| json!({ "field": gap.field, "reason": gap.reason }));
    let mut value = json!({
        "main": lane.main,
        "began": seconds(lane.began),
        "births": births,
        "process_count": lane.process_count,
        "left_count": lane.left_count,
        "processes": lane.processes.iter().map(span).collect::<Vec<_>>(),
        "omitted": lane.omitted.iter().map(omitted).collect::<Vec<_>>(),
        "samples": lane.samples.iter().map(sample).collect::<Vec<_>>(),
        "memory_from": source(lane.memory_from),
        "io_from": source(lane.io_from),
        "limits": limits(&lane.limits),
        "event_count": lane.event_count,
        "events": lane.events.iter().map(event).collect::<Vec<_>>(),
        "missing": missing.collect::<Vec<_>>(),
    });
    insert_some(&mut value, "name", lane.name.as_deref().map(Value::from));
    insert_some(&mut value, "ended", lane.ended.map(seconds));
    insert_some(&mut value, "status", lane.status.and_then(status));
    insert_some(&mut value, "cause", lane.cause.map(|it| cause(it).into()));
    value
}

fn span(span: &Span) -> Value {
    let mut value = json!({
        "pid": span.pid,
        "ppid": span.ppid,
        "born": seconds(span.born),
        "exec_count": span.exec_count,
        "command": &*span.command,
        "left": span.left,
        "killed": span.killed,
        "ports": span.ports.iter().map(port).collect::<Vec<_>>(),
    });
    let name = Some(&*span.name).filter(|name| !name.is_empty());
    insert_some(&mut value, "name", name.map(Value::from));
    insert_some(&mut value, "command_cut", span.cut.then(|| true.into()));
    insert_some(&mut value, "executed", span.executed.map(seconds));
    insert_some(&mut value, "ended", span.ended.map(seconds));
    insert_some(&mut value, "status", span.status.and_then(status));
    value
}

fn port(port: &SeenPort) -> Value {
    json!({
        "protocol": port.protocol.to_string(),
        "address": port.address.ip(),
        "port": port.address.port(),
        "seen": seconds(port.seen),
    })
}

fn omitted(omitted: &Omitted) -> Value {
    let Omitted { name, count, running, .. } = omitted;
    json!({ "name": name, "count": count, "running_seconds": seconds(*running) })
}

fn sample(row: &Sample) -> Value {
    let mut value = json!({ "at": seconds(row.at), "processes": row.processes });
    insert_some(&mut value, "cpu_seconds", row.cpu.map(seconds));
    insert_some(&mut value, "memory_bytes", row.memory.map(Value::from));
    insert_some(&mut value, "io_read_bytes", row.io_read.map(Value::from));
    insert_some(&mut value, "io_written_bytes", row.io_written.map(Value::from));
    value
}

fn limits(limits: &LaneLimits) -> Value {
    let mut value = json!({});
    insert_some(&mut value, "memory_bytes", limits.memory_max.map(Value::from));
    insert_some(&mut value, "memory_high_bytes", limits.memory_high.map(Value::from));
    insert_some(&mut value, "pids", limits.pids_max.map(Value::from));
    insert_some(&mut value, "cpus", limits.cpus.map(Value::from));
    insert_some(&mut value, "cpu_seconds", limits.cpu_time.map(seconds));
    insert_some(&mut value, "timeout_seconds", limits.timeout.map(seconds));
    value
}

fn event(event: &Event) -> Value {
    let (at, until) = (seconds(event.at), seconds(event.until));
    let mut value = json!({ "at": at, "until": until, "event": event.kind.name() });
    insert(&mut value, "count", event.count.into());
    if let EventKind::StopSignal(signal) = event.kind {
        insert(&mut value, "signal", signal.into());
    }
    value
}

fn source(source: Source) -> &'static str {
    match source {
        Source::Cgroup => "cgroup",
        Source::Processes => "processes",
        _ => "unknown",
    }
}

fn status(status: ExitStatus) -> Option<Value> {
    let code = status.code().map(|code| json!({ "code": code }));
    code.or_else(|| status.signal().map(|signal| json!({ "signal": signal })))
}

/// To the microsecond: more would be noise.
fn seconds(time: Duration) -> Value {
    let micros = u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
    Duration::from_micros(micros).as_secs_f64().into()
}

fn insert_some(value: &mut Value, key: &str, entry: Option<Value>) {
    if let Some(entry) = entry {
        insert(value, key, entry);
    }
}
