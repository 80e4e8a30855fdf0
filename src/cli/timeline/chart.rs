//! Draws a timeline: for each lane its processes as bars, its events, its curves; one axis of time.

use std::collections::HashMap;
use std::time::Duration;

use tidy_process::cli_support::{quoted, shortened};
use tidy_process::{Births, Lane, Span, Timeline};

use crate::timeline::curves::{self, PANEL};
use crate::timeline::layout::{Place, places};
use crate::timeline::svg::{Area, Svg};
use crate::timeline::words;

const WIDTH: f64 = 1200.0;
const LEFT: f64 = 72.0;
const RIGHT: f64 = 1184.0;

/// Bars that are drawn, of all lanes; and lanes.
const BARS: usize = 2000;
const LANES: usize = 40;

/// Height of all bars of a lane, where they are many.
const BARS_HEIGHT: f64 = 3600.0;

/// Width of a character, roughly.
const CHAR: f64 = 6.7;

/// Colours of programs.
const COLOURS: usize = 8;

pub(crate) const STYLE: &str = include_str!("style.css");

/// The picture as an element; `standalone` for a file of its own.
pub(crate) fn draw(timeline: &Timeline, title: &str, standalone: bool) -> String {
    let mut chart = Chart { svg: Svg::default(), timeline, colours: HashMap::new() };
    let end = chart.all();
    let mut out = String::new();
    if standalone {
        out += "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n";
    }
    let mut head = Svg::default();
    head.title(title);
    out += &format!(
        r#"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {end:.0}" role="img"{}>"#,
        if standalone { format!(" width=\"{WIDTH}\" height=\"{end:.0}\"") } else { String::new() }
    );
    if standalone {
        out += &format!("{}<style>{STYLE}</style>", head.0);
        out += "<rect width=\"100%\" height=\"100%\" class=\"paper\"/>";
    }
    out + &chart.svg.0 + "</svg>\n"
}

struct Chart<'a> {
    svg: Svg,
    timeline: &'a Timeline,
    colours: HashMap<String, usize>,
}

impl Chart<'_> {
    #[expect(clippy::cast_precision_loss, reason = "numbers to be drawn")]
    fn x(&self, at: Duration) -> f64 {
        let whole = self.timeline.wall.max(Duration::from_millis(1)).as_nanos() as f64;
        LEFT + (at.as_nanos() as f64 / whole).min(1.0) * (RIGHT - LEFT)
    }

    fn all(&mut self) -> f64 {
        let lanes: Vec<&Lane> = self.timeline.lanes.iter().take(LANES).collect();
        let mut y = self.axis(14.0);
        for (number, lane) in lanes.iter().enumerate() {
            y = self.lane(number, lane, (y, BARS / lanes.len().max(1)));
        }
        let more = self.timeline.lane_count.saturating_sub(lanes.len());
        if more > 0 {
            self.svg.text((LEFT, y + 20.0), "t s", &format!("{more} more commands are not drawn"));
            y += 30.0;
        }
        y + 12.0
    }

    /// The axis of time: lines at round times, down to the end.
    fn axis(&mut self, y: f64) -> f64 {
        let step = round_step(self.timeline.wall);
        let mut at = Duration::ZERO;
        while at <= self.timeline.wall {
            let x = self.x(at);
            self.svg.line((x, y + 4.0), (x, y + 10.0), "tick");
            let class = if x > RIGHT - 30.0 { "s e" } else { "s m" };
            self.svg.text((x, y), class, &words::time(at));
            at += step;
        }
        self.svg.line((LEFT, y + 4.0), (RIGHT, y + 4.0), "tick");
        y + 16.0
    }

    fn lane(&mut self, number: usize, lane: &Lane, (y, most): (f64, usize)) -> f64 {
        let (drawn, left_out) = drawn(lane, most);
        let least = self.timeline.wall / 600;
        let end = lane.ended.unwrap_or(self.timeline.wall);
        let (places, rows) = places(&drawn, least, end);
        self.svg.group(&format!(r#"class="lane" data-lane="{number}""#));
        let top = self.head(lane, left_out, y);
        let (top, labels) = self.events(lane, top);
        let row = row_height(rows);
        #[expect(clippy::cast_precision_loss, reason = "a number of rows")]
        let bottom = top + row * rows as f64;
        let lines = bottom + 4.0 * (curves::ABOVE + PANEL);
        for (x, title, class) in labels {
            self.svg.group(r#"class="event""#);
            self.svg.title(&title);
            self.svg.line((x, top - 4.0), (x, lines), class);
            self.svg.close();
        }
        for (span, place) in drawn.iter().zip(&places) {
            self.connect((span, *place), (&drawn, &places), (top, row));
        }
        for (span, place) in drawn.iter().zip(&places) {
            self.bar(span, *place, (top, row, end));
        }
        let wall = self.timeline.wall;
        let x = |at: Duration| at_of(at, wall);
        let y = curves::draw(&mut self.svg, lane, &x, (LEFT, RIGHT, bottom));
        self.svg.close();
        y + 26.0
    }

    /// What the lane is, how it ended, and what is not known of it.
    fn head(&mut self, lane: &Lane, left_out: usize, y: f64) -> f64 {
        let main = lane.processes.iter().find(|span| span.pid == lane.main);
        let command = main.map(|span| shortened(&words::command(span), 110));
        let name = lane.name.as_deref().map(|name| shortened(&quoted(name), 60));
        let all: Vec<String> = [name, command].into_iter().flatten().collect();
        self.svg.text((LEFT, y + 20.0), "h", &all.join(": "));
        let mut y = y + 38.0;
        for line in facts(lane, left_out) {
            self.svg.text((LEFT, y), "s", &line);
            y += 15.0;
        }
        y
    }

    /// The labels of events, in up to four lines; returns where bars begin, and the lines to draw.
    fn events(&mut self, lane: &Lane, y: f64) -> (f64, Vec<(f64, String, &'static str)>) {
        let mut ends = [f64::MIN; 4];
        let mut lines = Vec::new();
        let mut used = 0;
        for event in &lane.events {
            let x = self.x(event.at);
            let said = words::event(event.kind, lane);
            let times = if event.count > 1 { format!(" ×{}", event.count) } else { String::new() };
            let until = match event.until > event.at {
                true => format!(" to {}", words::time(event.until)),
                false => String::new(),
            };
            let bad = is_bad(event.kind.name());
            let title = format!("{said}{times} at {}{until}", words::time(event.at));
            lines.push((x, title, if bad { "mark bad" } else { "mark" }));
            #[expect(clippy::cast_precision_loss, reason = "a number of characters")]
            let width = (said.len() + times.len()) as f64 * CHAR;
            let flip = x + width > RIGHT;
            let from = if flip { x - width } else { x };
            let Some(tier) = ends.iter().position(|end| *end < from) else { continue };
            if let Some(end) = ends.get_mut(tier) {
                *end = from + width + 10.0;
            }
            used = used.max(tier + 1);
            #[expect(clippy::cast_precision_loss, reason = "four at the most")]
            let line = y + tier as f64 * 14.0;
            let class = match (flip, bad) {
                (true, true) => "s e red",
                (true, false) => "s e",
                (false, true) => "s red",
                (false, false) => "s",
            };
            self.svg.text((x + if flip { -3.0 } else { 3.0 }, line), class, &(said + &times));
        }
        #[expect(clippy::cast_precision_loss, reason = "four at the most")]
        let top = y + used as f64 * 14.0;
        (top, lines)
    }

    /// A line from the bar of the process that started it.
    fn connect(
        &mut self,
        (span, place): (&Span, Place),
        (spans, places): (&[&Span], &[Place]),
        (top, row): (f64, f64),
    ) {
        let parent = place.parent.and_then(|it| Some((spans.get(it)?, places.get(it)?)));
        if let Some((_, above)) = parent {
            let x = self.x(span.born);
            #[expect(clippy::cast_precision_loss, reason = "numbers of rows")]
            let y = |row_of: usize, part: f64| top + row * (row_of as f64 + part);
            self.svg.line((x, y(above.row, 0.9)), (x, y(place.row, 0.5)), "birth");
        }
    }

    fn bar(&mut self, span: &Span, place: Place, (top, row, end): (f64, f64, Duration)) {
        let (from, until) = (self.x(span.born), self.x(span.ended.unwrap_or(end)));
        let width = (until - from).max(1.5);
        #[expect(clippy::cast_precision_loss, reason = "a number of rows")]
        let y = top + row * place.row as f64;
        let red = span.left || span.killed;
        let failed = span.status.is_some_and(|status| !status.success());
        let next = self.colours.len();
        let colour = *self.colours.entry(span.name.clone()).or_insert(next % COLOURS);
        let class = if red {
            format!("bar killed{}", if row < 6.0 { " thin" } else { "" })
        } else {
            format!("bar c{colour}")
        };
        let (pid, ppid) = (span.pid, span.ppid);
        self.svg.group(&format!(r#"class="p" data-pid="{pid}" data-ppid="{ppid}""#));
        self.svg.title(&words::title(span));
        let height = (row - 1.0).max(1.0);
        let area = Area { x: from, y, width, height };
        self.svg.rect(area, &class);
        let exec = span.executed.map(|at| self.x(at) - from).filter(|early| *early > 1.0);
        if let Some(early) = exec {
            self.svg.rect(Area { width: early.min(width), ..area }, "before");
        }
        if failed && !red {
            self.svg.rect(Area { x: from + width - 2.0, width: 2.0, ..area }, "failed");
        }
        let port = span.ports.first().map(|port| self.x(port.seen));
        if let Some(x) = port.filter(|_| row > 6.0) {
            self.svg.rect(Area { x, width: 3.0, ..area }, "port");
        }
        if row >= 12.0 {
            let free = place.next.map_or(RIGHT, |next| self.x(next)) - from - width;
            self.label(span, (from, y + row - 5.0), (width, free));
        }
        self.svg.close();
    }

    /// The words beside or in a bar, as many as there is room for.
    fn label(&mut self, span: &Span, (x, y): (f64, f64), (inside, beside): (f64, f64)) {
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "characters")]
        let chars = |width: f64| ((width - 8.0).max(0.0) / CHAR) as usize;
        let ports =
            span.ports.iter().map(|port| format!(" {}:{}", port.protocol, port.address.port()));
        let ports: String = ports.take(3).collect();
        let words = format!("{}{ports}", words::command(span));
        let name = words::name(span);
        if chars(inside) >= name.chars().count().min(12) {
            self.svg.text((x + 4.0, y), "in", &shortened(&words, chars(inside).max(4)));
        } else if chars(beside) >= name.chars().count() {
            self.svg.text(
                (x + inside + 3.0, y),
                "by",
                &shortened(&words, chars(beside).clamp(4, 60)),
            );
        }
    }
}

/// The processes that are drawn, by birth, and how many are not.
fn drawn(lane: &Lane, most: usize) -> (Vec<&Span>, usize) {
    let mut all: Vec<&Span> = lane.processes.iter().collect();
    if all.len() > most {
        let length =
            |span: &Span| span.ended.map_or(Duration::MAX, |end| end.saturating_sub(span.born));
        let first = |span: &Span| (span.pid == lane.main, span.left || span.killed, length(span));
        all.sort_unstable_by_key(|span| std::cmp::Reverse(first(span)));
        all.truncate(most.max(1));
        all.sort_unstable_by_key(|span| (span.born, span.pid));
    }
    let left_out = lane.process_count.saturating_sub(all.len());
    (all, left_out)
}

/// What is said below the name of a lane.
fn facts(lane: &Lane, left_out: usize) -> Vec<String> {
    let mut first = vec![format!("pid {}", lane.main)];
    first.extend(lane.status.map(words::status));
    first.extend(lane.cause.map(|cause| cause.to_string()));
    first.push(format!("{} processes", lane.process_count));
    let left = lane.left_count;
    first.extend((left > 0).then(|| format!("{left} left over")));
    first.extend(lane.limits.timeout.map(|limit| format!("timeout {}", words::time(limit))));
    let mut lines = vec![first.join(", ")];
    if lane.births == Births::Sampled {
        lines.push(
            "The kernel did not tell of births and ends here: processes that lived between two \
             samples may be missing."
                .to_owned(),
        );
    }
    if left_out > 0 {
        let names = lane.omitted.iter().take(6).map(|omitted| {
            let name = if omitted.name.is_empty() { "?" } else { &omitted.name };
            format!("{} ×{}", shortened(&quoted(name), 24), omitted.count)
        });
        let names: Vec<String> = names.collect();
        let names =
            if names.is_empty() { String::new() } else { format!(": {}", names.join(", ")) };
        lines.push(format!("{left_out} processes are not drawn{names}"));
    }
    lines.extend(lane.gaps.iter().map(|gap| format!("{}: {}", gap.field, quoted(&gap.reason))));
    lines
}

fn is_bad(name: &str) -> bool {
    matches!(
        name,
        "timed-out"
            | "cpu-time-exceeded"
            | "killed"
            | "out-of-memory"
            | "news-lost"
            | "pids-exhausted"
    )
}

#[expect(clippy::cast_precision_loss, reason = "a number of rows")]
fn row_height(rows: usize) -> f64 {
    (BARS_HEIGHT / rows.max(1) as f64).clamp(3.0, 17.0)
}

#[expect(clippy::cast_precision_loss, reason = "numbers to be drawn")]
fn at_of(at: Duration, wall: Duration) -> f64 {
    let whole = wall.max(Duration::from_millis(1)).as_nanos() as f64;
    LEFT + (at.as_nanos() as f64 / whole).min(1.0) * (RIGHT - LEFT)
}

/// A round time, of which some ten fit.
fn round_step(wall: Duration) -> Duration {
    const ROUND: [u64; 27] = [
        1,
        2,
        5,
        10,
        20,
        50,
        100,
        200,
        500,
        1000,
        2000,
        5000,
        10_000,
        20_000,
        30_000,
        60_000,
        120_000,
        300_000,
        600_000,
        1_800_000,
        3_600_000,
        7_200_000,
        14_400_000,
        43_200_000,
        86_400_000,
        172_800_000,
        604_800_000,
    ];
    let mut steps = ROUND.into_iter().map(Duration::from_millis);
    steps.find(|step| wall / 12 <= *step).unwrap_or(wall / 10).max(Duration::from_millis(1))
}
