//! The page: one file, without scripts, light or dark as the reader has it.

use std::fmt::Write;

use crate::print::junit::escaped;
use crate::print::text::mebibytes;
use crate::report::gather::{COMMANDS, Command, Found};

const HEAD: &str = include_str!("head.html");

pub(crate) fn page(found: &Found) -> String {
    let mut commands: Vec<(&String, &Command)> = found.commands.iter().collect();
    commands.sort_by_key(|(_, command)| {
        (!command.is_flaky(), command.failed == 0, command.leaking == 0)
    });
    let failed: u64 = commands.iter().map(|(_, command)| command.failed).sum();
    let leaking: u64 = commands.iter().map(|(_, command)| command.leaking).sum();
    let flaky = commands.iter().filter(|(_, command)| command.is_flaky()).count();
    let slowest = commands.iter().filter_map(|(_, command)| command.walls.quantile(50));
    let slowest = slowest.fold(0.0, f64::max);
    let mut page = HEAD.to_owned();
    // Writing to a string does not fail.
    let (runs, files, count) = (found.runs, found.files, commands.len());
    let _ = write!(page, "<h1>tidy-process report</h1>\n<p>{runs} runs of {count} commands, ");
    let _ = write!(page, "in {files} files: {}, ", marked(failed, "bad", "failed"));
    let left = marked(leaking, "warn", "left processes running");
    let flaky = marked(flaky as u64, "warn", "commands are flaky");
    let _ = writeln!(page, "{left}, {flaky}.</p>");
    let titles = ["command", "runs", "failed", "flaky", "median", "95 %", "CPU, median"];
    let titles = titles.into_iter().chain(["memory, peak", "leaks"]);
    let titles: String = titles.map(|title| format!("<th>{title}")).collect();
    let _ = writeln!(page, "<table>\n<thead><tr>{titles}</tr></thead>\n<tbody>");
    commands.iter().for_each(|(name, command)| page += &row(name, command, slowest));
    page += "</tbody>\n</table>\n";
    page += &notes(found);
    page
}

/// A number and what it counts, coloured where there is one to count.
fn marked(count: u64, how: &'static str, what: &str) -> String {
    format!("<b class=\"{}\">{count} {what}</b>", class(count > 0, how))
}

fn class(is_amiss: bool, how: &'static str) -> &'static str {
    if is_amiss { how } else { "good" }
}

fn row(name: &str, command: &Command, slowest: f64) -> String {
    let Command { runs, failed, flips, leaking, .. } = command;
    let time = |seconds: Option<f64>| seconds.map_or("-".to_owned(), |time| format!("{time:.3} s"));
    let median = command.walls.quantile(50);
    let width = median.filter(|_| slowest > 0.0).map_or(0.0, |median| 100.0 * median / slowest);
    let bar = format!("<span class=\"bar\" style=\"width:{width:.1}%\"></span>");
    let flaky = match command.is_flaky() {
        true => format!("<b class=\"warn\">{flips} of {}</b>", runs - 1),
        false => "-".to_owned(),
    };
    let (causes, left) = (causes(command), left(command));
    let cells = [
        format!("<td><code>{}</code>{left}", escaped(name)),
        format!("<td>{runs}"),
        format!("<td class=\"{}\">{failed}{causes}", class(*failed > 0, "bad")),
        format!("<td>{flaky}"),
        format!("<td>{}{bar}", time(median)),
        format!("<td>{}", time(command.walls.quantile(95))),
        format!("<td>{}", time(command.cpu.quantile(50))),
        format!("<td>{}", command.peak.map_or("-".to_owned(), mebibytes)),
        format!("<td class=\"{}\">{leaking}", class(*leaking > 0, "warn")),
    ];
    format!("<tr>{}</tr>\n", cells.concat())
}

fn causes(command: &Command) -> String {
    let all = command.causes.iter();
    let all = all.map(|(cause, count)| format!("{count} × {}", escaped(cause)));
    small(&all.collect::<Vec<_>>().join(", "))
}

fn left(command: &Command) -> String {
    let all = command.left.iter().map(|name| format!("<code>{}</code>", escaped(name)));
    let all = all.collect::<Vec<_>>().join(", ");
    small(&if all.is_empty() { all } else { format!("left {all}") })
}

fn small(text: &str) -> String {
    if text.is_empty() { String::new() } else { format!("<small>{text}</small>") }
}

/// What is not in the table, and why.
fn notes(found: &Found) -> String {
    let mut notes = String::from(
        "<p><small>Flaky: so many times a run came out otherwise than the one before, in the order \
         of the files' names. -: not known; memory needs the memory controller.</small>\n",
    );
    if found.others > 0 {
        let others = found.others;
        let what = format!("runs of other commands than the first {COMMANDS} are not shown");
        let _ = writeln!(notes, "<p class=\"warn\">{others} {what}.");
    }
    if found.odd > 0 {
        let odd = found.odd;
        let _ = writeln!(notes, "<p class=\"warn\">{odd} lines or files are no report.");
    }
    notes
}
