//! The page: the picture, what its colours mean, a table of the processes. It needs nothing from
//! elsewhere, and may load nothing: what a process calls itself can do no harm even if it were
//! taken for markup.

use std::fmt::Write as _;

use tidy_process::{Lane, Span, Timeline};

use crate::timeline::chart::{self, STYLE};
use crate::timeline::svg::escaped;
use crate::timeline::words;

const SCRIPT: &str = include_str!("script.js");

/// The script's SHA-256, by which the page allows it and no other.
const SCRIPT_HASH: &str = "hWVONME9lZb8ssO64xHccNPutlp+wbRH+piOziJivJc=";

const PAGE_STYLE: &str = include_str!("page.css");

/// Processes in the table, of all lanes.
const ROWS: usize = 2000;

const KEY: &str = "<p class=\"key\">Each bar is a process, below the one that started it; its \
colour is its program's, pale before its exec. <span class=\"k2\"></span>left over or killed \
<span class=\"k3\"></span>ended with a failure <span class=\"k4\"></span>listens on a port. Point \
at a bar or at an event to see what it is.</p>";

/// The whole page.
pub(crate) fn page(timeline: &Timeline, title: &str, note: Option<&str>) -> String {
    let picture = chart::draw(timeline, title, false);
    let policy =
        format!("default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-{SCRIPT_HASH}'");
    let title = escaped(title);
    let mut out = format!(
        "<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"/>\n<meta \
         http-equiv=\"Content-Security-Policy\" content=\"{policy}\"/>\n<meta name=\"viewport\" \
         content=\"width=device-width\"/>\n<title>{title}</title>\n<style>\n{PAGE_STYLE}{STYLE}\
         </style></head>\n<body><h1>{title}</h1>\n"
    );
    let wall = words::time(timeline.wall);
    let began = words::date(timeline.began);
    let _ = writeln!(out, "<p>{wall}, began {began}</p>");
    if let Some(note) = note {
        let _ = writeln!(out, "<p><b>{}</b></p>", escaped(note));
    }
    out += KEY;
    out += &picture;
    out += &table(timeline);
    let _ = write!(out, "<div id=\"tip\"></div>\n<script>{SCRIPT}</script>\n</body></html>\n");
    out
}

fn table(timeline: &Timeline) -> String {
    let all =
        || timeline.lanes.iter().flat_map(|lane| lane.processes.iter().map(move |it| (lane, it)));
    let (count, shown) = (all().count(), all().take(ROWS));
    let mut out = format!(
        "<details><summary>The first {} processes as a table</summary>\n<table><tr><th>pid</th>\
         <th>started by</th><th>born</th><th>executed</th><th>end</th><th>ports</th><th>command\
         </th></tr>\n",
        count.min(ROWS)
    );
    shown.for_each(|(lane, span)| row(&mut out, lane, span));
    out + "</table></details>\n"
}

fn row(out: &mut String, lane: &Lane, span: &Span) {
    let class = if span.left || span.killed { " class=\"killed\"" } else { "" };
    let ports: Vec<String> =
        span.ports.iter().map(|port| format!("{} {}", port.protocol, port.address)).collect();
    let cells = [
        format!("{}{}", span.pid, if span.pid == lane.main { " (main)" } else { "" }),
        span.ppid.to_string(),
        words::time(span.born),
        span.executed.map(words::time).unwrap_or_default(),
        words::end(span),
        ports.join(", "),
        words::command(span),
    ];
    let _ = write!(out, "<tr{class}>");
    for cell in cells {
        let _ = write!(out, "<td>{}</td>", escaped(&cell));
    }
    out.push_str("</tr>\n");
}
