//! The one printer of tables.

use std::time::Duration;

use crate::sample::Entry;

/// A Markdown table whose first column stands left, the others right.
pub(crate) fn table(header: &[&str], rows: &[Vec<String>]) -> String {
    let header: Vec<String> = header.iter().map(|&word| word.to_owned()).collect();
    let all = || [&header].into_iter().chain(rows);
    let width = |column: usize| {
        let cells = all().filter_map(|row| row.get(column)).map(|cell| cell.chars().count());
        cells.max().unwrap_or(0).max(3)
    };
    let widths: Vec<usize> = (0..header.len()).map(width).collect();
    let line = |row: &Vec<String>| {
        let cells = row.iter().zip(&widths).enumerate();
        let cells = cells.map(|(column, (cell, &width))| match column {
            0 => format!(" {cell:<width$} |"),
            _ => format!(" {cell:>width$} |"),
        });
        format!("|{}\n", cells.collect::<String>())
    };
    let rule: Vec<String> = widths.iter().enumerate().map(rule).collect();
    let lines = [&header, &rule].into_iter().chain(rows).map(line);
    lines.collect()
}

fn rule((column, &width): (usize, &usize)) -> String {
    if column == 0 { "-".repeat(width) } else { format!("{}:", "-".repeat(width - 1)) }
}

/// p10 (what disturbs the machine hardly shows in it), median, p99, and the ratio of the median to
/// that of each base.
pub(crate) fn print(title: &str, entries: &[Entry<'_>], bases: &[&str]) {
    let ratios = bases.iter().map(|base| format!("/ {base}"));
    let header: Vec<String> =
        ["", "p10", "median", "p99"].into_iter().map(str::to_owned).chain(ratios).collect();
    let header: Vec<&str> = header.iter().map(String::as_str).collect();
    let rows: Vec<Vec<String>> = entries
        .iter()
        .map(|entry| {
            let figures = [10, 50, 99].map(|percent| time(entry.percentile(percent)));
            let ratios =
                bases.iter().map(|base| format!("{:.2}", ratio(entries, &entry.name, base)));
            [entry.name.clone()].into_iter().chain(figures).chain(ratios).collect()
        })
        .collect();
    println!("\n## {title}\n\n{}", table(&header, &rows));
}

/// Of two medians; NaN if one of them was not measured.
pub(crate) fn ratio(entries: &[Entry<'_>], name: &str, base: &str) -> f64 {
    median(entries, name) / median(entries, base)
}

/// In seconds.
pub(crate) fn median(entries: &[Entry<'_>], name: &str) -> f64 {
    let entry = entries.iter().find(|entry| entry.name == name);
    entry.map_or(f64::NAN, |entry| entry.median().as_secs_f64())
}

/// Three digits, or a few more.
pub(crate) fn time(time: Duration) -> String {
    let micros = time.as_secs_f64() * 1e6;
    match micros {
        m if m < 10_000.0 => format!("{m:.0} us"),
        m if m < 1e6 => format!("{:.1} ms", m / 1e3),
        m => format!("{:.2} s", m / 1e6),
    }
}
