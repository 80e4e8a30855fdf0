//! The page: one file, without scripts, light or dark as the reader has it.

use std::fmt::Write;

use crate::print::junit::escaped;
use crate::print::text::mebibytes;
use crate::report::gather::{COMMANDS, Command, Found};

const HEAD: &str = "<!DOCTYPE html>
<html lang=\"en\">
<meta charset=\"utf-8\">
<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">
<meta name=\"viewport\" content=\"width=device-width\">
<title>tidy-process report</title>
<style>
:root { color-scheme: light dark; --ink: #1c2128; --paper: #ffffff; --line: #d0d7de; --soft: #f3f5f7;
  --bad: #b42318; --warn: #9a6700; --good: #1a7f37; --bar: #9ec5f5; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6edf3; --paper: #0d1117; --line: #30363d;
  --soft: #161b22; --bad: #ff7b72; --warn: #e3b341; --good: #56d364; --bar: #1f4b82; } }
body { margin: 2rem auto; max-width: 75rem; padding: 0 1rem; color: var(--ink); background: var(--paper);
  font: 15px/1.45 system-ui, sans-serif; }
h1 { font-size: 1.4rem; } table { border-collapse: collapse; width: 100%; }
th, td { padding: .35rem .6rem; border-bottom: 1px solid var(--line); text-align: right;
  vertical-align: top; white-space: nowrap; }
th:first-child, td:first-child { text-align: left; white-space: normal; overflow-wrap: anywhere; }
th { position: sticky; top: 0; background: var(--soft); }
code { font: 13px/1.4 ui-monospace, monospace; } small { display: block; opacity: .75; }
.bad { color: var(--bad); } .warn { color: var(--warn); } .good { color: var(--good); }
.bar { display: block; height: 4px; background: var(--bar); margin: 3px 0 0 auto; }
</style>
";

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
    let _ = write!(
        page,
        "<h1>tidy-process report</h1>\n<p>{} runs of {} commands, in {} files: <b class=\"{}\">{failed} \
         failed</b>, <b class=\"{}\">{leaking} left processes running</b>, <b class=\"{}\">{flaky} \
         commands are flaky</b>.</p>\n",
        found.runs,
        commands.len(),
        found.files,
        class(failed > 0, "bad"),
        class(leaking > 0, "warn"),
        class(flaky > 0, "warn"),
    );
    page += "<table>\n<thead><tr><th>command<th>runs<th>failed<th>flaky<th>median<th>95 %<th>CPU, \
             median<th>memory, peak<th>leaks</tr></thead>\n<tbody>\n";
    commands.iter().for_each(|(name, command)| page += &row(name, command, slowest));
    page += "</tbody>\n</table>\n";
    page += &notes(found);
    page
}

fn class(is_amiss: bool, how: &'static str) -> &'static str {
    if is_amiss { how } else { "good" }
}

fn row(name: &str, command: &Command, slowest: f64) -> String {
    let Command { runs, failed, flips, leaking, .. } = command;
    let time = |seconds: Option<f64>| seconds.map_or("-".to_owned(), |time| format!("{time:.3} s"));
    let median = command.walls.quantile(50);
    let width = median.filter(|_| slowest > 0.0).map_or(0.0, |median| 100.0 * median / slowest);
    let causes =
        command.causes.iter().map(|(cause, count)| format!("{count} × {}", escaped(cause)));
    let causes = small(&causes.collect::<Vec<_>>().join(", "));
    let left: Vec<_> =
        command.left.iter().map(|name| format!("<code>{}</code>", escaped(name))).collect();
    let flaky = match command.is_flaky() {
        true => format!("<b class=\"warn\">{flips} of {}</b>", runs - 1),
        false => "-".to_owned(),
    };
    format!(
        "<tr><td><code>{}</code>{}<td>{runs}<td class=\"{}\">{failed}{causes}<td>{flaky}<td>{}<span \
         class=\"bar\" style=\"width:{width:.1}%\"></span><td>{}<td>{}<td>{}<td class=\"{}\">{leaking}</tr>\n",
        escaped(name),
        small(&if left.is_empty() { String::new() } else { format!("left {}", left.join(", ")) }),
        class(*failed > 0, "bad"),
        time(median),
        time(command.walls.quantile(95)),
        time(command.cpu.quantile(50)),
        command.peak.map_or("-".to_owned(), mebibytes),
        class(*leaking > 0, "warn"),
    )
}

fn small(text: &str) -> String {
    if text.is_empty() { String::new() } else { format!("<small>{text}</small>") }
}

/// What is not in the table, and why.
fn notes(found: &Found) -> String {
    let mut notes = String::from(
        "<p><small>Flaky: so many times a run came out otherwise than the one before, in the order of \
         the files' names. -: not known; memory needs the memory controller.</small>\n",
    );
    if found.others > 0 {
        let others = found.others;
        let _ = writeln!(
            notes,
            "<p class=\"warn\">{others} runs of other commands than the first {COMMANDS} are not shown."
        );
    }
    if found.odd > 0 {
        let odd = found.odd;
        let _ = writeln!(notes, "<p class=\"warn\">{odd} lines or files are no report.");
    }
    notes
}
