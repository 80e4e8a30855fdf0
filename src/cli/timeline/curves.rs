//! The curves of a lane: what it has used over time, with its limits as lines.

use std::time::Duration;

use tidy_process::{Lane, Sample, Source};

use crate::timeline::svg::{Area, Svg};
use crate::timeline::words::{bytes, remark};

/// Height of a panel, and what is above it.
pub(crate) const PANEL: f64 = 52.0;
pub(crate) const ABOVE: f64 = 22.0;

/// Rates over less time than this say nothing.
const BRIEF: Duration = Duration::from_millis(5);

/// A curve, and what is written beside it.
struct Curve {
    name: &'static str,
    points: Vec<(Duration, f64)>,
    limits: Vec<(String, f64)>,
    remark: String,
    /// A second curve on the same scale.
    second: Vec<(Duration, f64)>,
    said: fn(f64) -> String,
}

/// Draws all panels below `y`; `x` places a time. Returns where they end.
pub(crate) fn draw(
    svg: &mut Svg,
    lane: &Lane,
    x: &dyn Fn(Duration) -> f64,
    (left, right, mut y): (f64, f64, f64),
) -> f64 {
    for curve in [cpu(lane), memory(lane), processes(lane), io(lane)] {
        let area = Area { x: left, y: y + ABOVE, width: right - left, height: PANEL };
        curve.draw(svg, area, x);
        y += ABOVE + PANEL;
    }
    y
}

impl Curve {
    fn draw(&self, svg: &mut Svg, area: Area, x: &dyn Fn(Duration) -> f64) {
        let Area { x: left, y: top, width, height } = area;
        let most =
            |points: &[(Duration, f64)]| points.iter().map(|(_, value)| *value).fold(0.0, f64::max);
        let most = most(&self.points).max(most(&self.second));
        let shown = |limit: f64| limit <= most * 5.0;
        let near = self.limits.iter().map(|(_, limit)| *limit).filter(|limit| shown(*limit));
        let scale = near.fold(most, f64::max).max(f64::MIN_POSITIVE);
        svg.rect(area, "panel");
        let mut words = self.name.to_owned();
        if self.points.len() > 1 {
            words += &format!(": at most {}", (self.said)(most));
        }
        for (said, _) in self.limits.iter().filter(|(_, limit)| !shown(*limit)) {
            words += &format!(", {said}");
        }
        if !self.remark.is_empty() {
            words += &format!(" ({})", self.remark);
        }
        svg.text((left, top - 6.0), "t", &words);
        if self.points.len() < 2 {
            svg.text((left + width / 2.0, top + height / 2.0 + 4.0), "t m s", "not known");
            return;
        }
        let y = |value: f64| top + height - (value / scale * (height - 4.0));
        svg.text((left - 6.0, top + 10.0), "s e", &(self.said)(scale));
        svg.text((left - 6.0, top + height), "s e", &(self.said)(0.0));
        let place = |(at, value): &(Duration, f64)| (x(*at), y(*value));
        let points: Vec<_> = self.points.iter().map(place).collect();
        if let (Some(first), Some(last)) = (points.first(), points.last()) {
            let mut filled = vec![(first.0, top + height)];
            filled.extend(&points);
            filled.push((last.0, top + height));
            svg.path(&filled, "fill");
        }
        svg.path(&points, "curve");
        if self.second.len() > 1 {
            svg.path(&self.second.iter().map(place).collect::<Vec<_>>(), "curve two");
        }
        for (said, limit) in self.limits.iter().filter(|(_, limit)| shown(*limit)) {
            svg.line((left, y(*limit)), (left + width, y(*limit)), "limit");
            svg.text((left + width - 4.0, y(*limit) + 11.0), "s e red", said);
        }
    }
}

fn cpu(lane: &Lane) -> Curve {
    let points = rates(lane, |row| row.cpu.map(|cpu| cpu.as_secs_f64()));
    let limits = lane.limits.cpus.map(|cpus| (format!("limit {cpus} CPUs"), cpus));
    let total = lane.samples.iter().rev().find_map(|row| row.cpu);
    let total = total.map(|cpu| format!("{:.2} s in all", cpu.as_secs_f64()));
    let budget =
        lane.limits.cpu_time.map(|time| format!("limit {:.1} s in all", time.as_secs_f64()));
    Curve {
        name: "CPUs in use",
        points,
        limits: limits.into_iter().collect(),
        remark: [total, budget].into_iter().flatten().collect::<Vec<_>>().join("; "),
        second: Vec::new(),
        said: |number| format!("{number:.2}"),
    }
}

#[expect(clippy::cast_precision_loss, reason = "sizes to be drawn")]
fn memory(lane: &Lane) -> Curve {
    let points = lane.samples.iter().filter_map(|row| Some((row.at, row.memory? as f64)));
    let (max, high) = (lane.limits.memory_max, lane.limits.memory_high);
    let limits = [("limit", max), ("slowed down above", high)];
    let limits = limits.into_iter().filter_map(|(what, limit)| {
        let limit = limit? as f64;
        Some((format!("{what} {}", bytes(limit)), limit))
    });
    Curve {
        name: "memory",
        points: points.collect(),
        limits: limits.collect(),
        remark: remark(lane.memory_from, true).to_owned(),
        second: Vec::new(),
        said: bytes,
    }
}

#[expect(clippy::cast_precision_loss, reason = "numbers to be drawn")]
fn processes(lane: &Lane) -> Curve {
    let points = lane.samples.iter().map(|row| (row.at, row.processes as f64)).collect();
    let limit = lane.limits.pids_max.map(|max| (format!("limit {max}, threads too"), max as f64));
    Curve {
        name: "processes",
        points,
        limits: limit.into_iter().collect(),
        remark: format!("{} in all", lane.process_count),
        second: Vec::new(),
        said: |number| format!("{number:.0}"),
    }
}

#[expect(clippy::cast_precision_loss, reason = "sizes to be drawn")]
fn io(lane: &Lane) -> Curve {
    let size = |number: Option<u64>| number.map(|number| number as f64);
    let mut remarks = Vec::new();
    if let Some(last) = lane.samples.iter().rev().find(|row| row.io_read.is_some()) {
        let (read, written) = (size(last.io_read), size(last.io_written));
        let all = |number: Option<f64>| bytes(number.unwrap_or(0.0));
        remarks.push(format!("{} read, {} written (dashed)", all(read), all(written)));
    }
    let source = if lane.io_from == Source::Unknown { "" } else { remark(lane.io_from, false) };
    remarks.extend((!source.is_empty()).then(|| source.to_owned()));
    Curve {
        name: "io per second",
        points: rates(lane, |row| size(row.io_read)),
        limits: Vec::new(),
        remark: remarks.join("; "),
        second: rates(lane, |row| size(row.io_written)),
        said: bytes,
    }
}

/// How fast a counter has grown, each time up to that row.
fn rates(lane: &Lane, counter: impl Fn(&Sample) -> Option<f64>) -> Vec<(Duration, f64)> {
    let mut points = Vec::new();
    let mut before = Some((lane.began, 0.0));
    for row in &lane.samples {
        let Some(now) = counter(row) else { continue };
        let Some((at, then)) = before else { continue };
        let time = row.at.saturating_sub(at);
        if time < BRIEF {
            continue;
        }
        let rate = ((now - then) / time.as_secs_f64()).max(0.0);
        if points.is_empty() {
            points.push((at, rate));
        }
        points.push((row.at, rate));
        before = Some((row.at, now));
    }
    points
}
