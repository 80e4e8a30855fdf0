//! Draws: a heading, one row for each tree, its processes where it is unfolded, and a foot. All
//! that others wrote is quoted, and no row is longer than the screen is wide.

use std::fmt::Write;
use std::time::Duration;

use ratatui_core::buffer::Buffer;
use ratatui_core::layout::Rect;
use ratatui_core::style::{Color, Modifier, Style};
use ratatui_core::terminal::Frame;
use ratatui_core::text::Span;
use tidy_process::ProcessInfo;
use tidy_process::cli_support::{LINE, shortened};

use crate::print::has_colours;
use crate::print::text::mebibytes;
use crate::top::model::{Line, Model, State, Tree};

/// What the last row says.
pub(crate) enum Foot {
    Keys,
    Said(String),
    Question(String),
    Filter,
    /// In the place of the trees.
    Help,
}

const KEYS: &str =
    "Enter fold  s stop  k kill  f freeze  t thaw  o order  / filter  ? help  q quit";

const HELP: &[&str] = &[
    "arrows, PgUp, PgDn, Home, End   choose a tree",
    "Enter                           unfold it to its processes",
    "s  stop it: SIGTERM to all its processes, and a kill after the grace",
    "k  kill it",
    "f  freeze it: all its processes stand still, and it still ends when its owner ends it",
    "t  thaw it",
    "o, O  order by the next column, or the one before;  r  the other way round",
    "/  filter by name, owner, state or port;  Esc  show all",
    "Ctrl-L  draw anew;  Ctrl-Z  suspend;  q  quit",
    "",
    "CPU% is of one CPU. States: running, frozen, stopping, empty, stale (its owner is gone:",
    "tidy-process sweep removes it).",
];

/// A column, and how wide it is; those that name others' words share what is left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Column {
    Name,
    Owner,
    User,
    Age,
    Processes,
    Cpu,
    Memory,
    State,
    Ports,
}

impl Column {
    const ALL: [Self; 9] = [
        Self::Name,
        Self::Owner,
        Self::User,
        Self::Age,
        Self::Processes,
        Self::Cpu,
        Self::Memory,
        Self::State,
        Self::Ports,
    ];

    /// Those that a narrow screen goes without, the first one first.
    const DISPENSABLE: [Self; 6] =
        [Self::Ports, Self::Age, Self::Memory, Self::Owner, Self::User, Self::Processes];

    fn heading(self) -> &'static str {
        match self {
            Self::Name => "NAME",
            Self::Owner => "OWNER",
            Self::User => "USER",
            Self::Age => "AGE",
            Self::Processes => "PROCS",
            Self::Cpu => "CPU%",
            Self::Memory => "MEMORY",
            Self::State => "STATE",
            Self::Ports => "PORTS",
        }
    }

    /// The width of those that have one of their own.
    fn width(self) -> u16 {
        match self {
            Self::Name | Self::Ports => 0,
            Self::Owner | Self::State => 8,
            Self::User | Self::Age | Self::Processes | Self::Cpu => 6,
            Self::Memory => 9,
        }
    }

    fn is_text(self) -> bool {
        matches!(self, Self::Name | Self::State | Self::Ports)
    }

    fn text(self, tree: &Tree) -> String {
        let known = |value: Option<String>| value.unwrap_or_else(|| "-".to_owned());
        match self {
            Self::Name => format!("{} {}", if tree.unfolded { '-' } else { '+' }, tree.name),
            Self::Owner => tree.seen.owner.to_string(),
            Self::User => tree.seen.uid.to_string(),
            Self::Age => known(tree.age().map(age)),
            Self::Processes => known(tree.count().map(|count| count.to_string())),
            Self::Cpu => known(tree.cpu.map(|cpu| format!("{:.1}", cpu * 100.0))),
            Self::Memory => known(tree.memory.map(mebibytes)),
            Self::State => tree.state().word().to_owned(),
            Self::Ports => {
                let ports = tree.ports.iter().map(u16::to_string);
                shortened(&ports.collect::<Vec<_>>().join(" "), LINE)
            }
        }
    }
}

/// `5s`, `3m12`, `2h05`, `4d03`.
fn age(age: Duration) -> String {
    let seconds = age.as_secs();
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3600 => format!("{}m{:02}", seconds / 60, seconds % 60),
        3600..86_400 => format!("{}h{:02}", seconds / 3600, seconds / 60 % 60),
        _ => format!("{}d{:02}", seconds / 86_400, seconds / 3600 % 24),
    }
}

/// The columns that there is room for, each with its place and width.
fn columns(width: u16, all_users: bool) -> Vec<(Column, u16, u16)> {
    let mut shown: Vec<Column> = Column::ALL.to_vec();
    shown.retain(|column| all_users || *column != Column::User);
    let fixed = |shown: &[Column]| shown.iter().map(|column| column.width() + 1).sum::<u16>();
    for spare in Column::DISPENSABLE {
        let least = if shown.contains(&Column::Ports) { 28 } else { 14 };
        if fixed(&shown) + least > width {
            shown.retain(|column| *column != spare);
        }
    }
    let rest = width.saturating_sub(fixed(&shown));
    let ports = if shown.contains(&Column::Ports) { rest / 3 } else { 0 };
    let mut at = 0;
    let place = |column: Column| {
        let wide = match column {
            Column::Name => rest - ports,
            Column::Ports => ports,
            column => column.width(),
        };
        let here = at;
        at += wide + 1;
        (column, here, wide)
    };
    shown.into_iter().map(place).collect()
}

/// Draws all.
pub(crate) fn draw(frame: &mut Frame<'_>, model: &mut Model, foot: &Foot, all_users: bool) {
    let area = frame.area();
    let height = usize::from(area.height.saturating_sub(3));
    if model.height != height {
        model.height = height;
        model.go_to(model.cursor);
    }
    let mut page = Page { buffer: frame.buffer_mut(), area, colours: has_colours() };
    page.row(0, &title(model), page.style(None, Modifier::BOLD));
    if matches!(foot, Foot::Help) {
        HELP.iter().zip(1..).for_each(|(text, row)| page.row(row, text, Style::new()));
    } else {
        page.trees(model, all_users);
    }
    let last = area.height.saturating_sub(1);
    let (text, style) = match foot {
        Foot::Keys => (KEYS.to_owned(), Style::new()),
        Foot::Said(text) => (text.clone(), page.style(None, Modifier::BOLD)),
        Foot::Question(text) => (text.clone(), page.style(Some(Color::Yellow), Modifier::BOLD)),
        Foot::Filter => (format!("filter: {}_", model.filter), Style::new()),
        Foot::Help => ("any key goes back".to_owned(), Style::new()),
    };
    // One row is all that there is.
    if last > 0 {
        page.row(last, &text, style);
    }
}

fn title(model: &Model) -> String {
    let shown = model.lines.iter().filter(|line| matches!(line, Line::Tree(_))).count();
    let plural = if model.listed.len() == 1 { "" } else { "s" };
    let mut text = format!("tidy-process top: {} tree{plural}", model.listed.len());
    if !model.filter.is_empty() {
        let _ = write!(text, ", {shown} with \"{}\"", model.filter);
    }
    let frozen = model.trees.values().filter(|tree| tree.state() == State::Frozen).count();
    if frozen > 0 {
        let _ = write!(text, ", {frozen} frozen");
    }
    let way = if model.reversed { ", reversed" } else { "" };
    let _ = write!(text, ", by {}{way}", model.order.word());
    if model.cut {
        text += "; more cgroups than are looked at";
    }
    text
}

struct Page<'a> {
    buffer: &'a mut Buffer,
    area: Rect,
    colours: bool,
}

impl Page<'_> {
    /// Without colours, what is to be seen is bold or reversed.
    fn style(&self, colour: Option<Color>, modifier: Modifier) -> Style {
        let style = Style::new().add_modifier(modifier);
        colour.filter(|_| self.colours).map_or(style, |colour| style.fg(colour))
    }

    fn row(&mut self, row: u16, text: &str, style: Style) {
        if row < self.area.height {
            put(self.buffer, (0, row), self.area.width, text, style);
        }
    }

    fn trees(&mut self, model: &Model, all_users: bool) {
        let columns = columns(self.area.width, all_users);
        let bold = self.style(None, Modifier::BOLD | Modifier::UNDERLINED);
        for &(column, at, wide) in &columns {
            self.cell((column, at, wide), 1, column.heading(), bold);
        }
        let lines = model.lines.iter().enumerate().skip(model.top).take(model.height);
        for ((number, line), row) in lines.zip(2..) {
            let Some(tree) = model.trees.get(&line.tree()) else { continue };
            match line {
                Line::Tree(_) => self.tree(&columns, row, tree),
                Line::Process(_, which) => {
                    let text = tree.processes.get(*which).map(process).unwrap_or_default();
                    self.row(row, &text, Style::new());
                }
                Line::More(_, more) => self.row(row, &format!("    and {more} more"), Style::new()),
            }
            if number == model.cursor && row < self.area.height {
                let whole = Rect { x: 0, y: row, width: self.area.width, height: 1 };
                self.buffer.set_style(whole, Style::new().add_modifier(Modifier::REVERSED));
            }
        }
        if model.lines.is_empty() {
            let why = match model.filter.is_empty() {
                true => "no trees: tidy-process run starts one",
                false => "no tree has that; Esc shows all",
            };
            self.row(2, why, Style::new());
        }
    }

    fn tree(&mut self, columns: &[(Column, u16, u16)], row: u16, tree: &Tree) {
        for &(column, at, wide) in columns {
            let style = match (column, tree.state()) {
                (Column::State, State::Frozen) => self.style(Some(Color::Cyan), Modifier::BOLD),
                (Column::State, State::Stopping) => self.style(Some(Color::Yellow), Modifier::BOLD),
                (Column::State, State::Stale) => self.style(Some(Color::Red), Modifier::BOLD),
                _ => Style::new(),
            };
            self.cell((column, at, wide), row, &column.text(tree), style);
        }
    }

    /// Numbers stand on the right of their column.
    fn cell(&mut self, (column, at, wide): (Column, u16, u16), row: u16, text: &str, style: Style) {
        if row >= self.area.height || at >= self.area.width {
            return;
        }
        let width = u16::try_from(Span::raw(text).width()).unwrap_or(u16::MAX);
        let indent = if column.is_text() { 0 } else { wide.saturating_sub(width) };
        put(self.buffer, (at + indent, row), wide - indent, text, style);
    }
}

/// Puts text there, `~` at its end if it is longer than it may be.
fn put(buffer: &mut Buffer, (x, y): (u16, u16), wide: u16, text: &str, style: Style) {
    if wide == 0 {
        return;
    }
    let fits = Span::raw(text).width() <= usize::from(wide);
    let most = if fits { wide } else { wide - 1 };
    let (end, _) = buffer.set_stringn(x, y, text, usize::from(most), style);
    if !fits {
        buffer.set_stringn(end, y, "~", 1, style);
    }
}

/// `    4711 S   12s  sleep 60`
fn process(process: &ProcessInfo) -> String {
    let text = format!("{process}");
    let (pid, command) = text.split_once(' ').unwrap_or((&text, ""));
    let age = age(process.running);
    let mut line = format!("{pid:>11} {} {age:>6}  {command}", process.state);
    if !process.ports.is_empty() {
        let ports = process.ports.iter().map(|port| port.address.port().to_string());
        let ports = ports.take(8).collect::<Vec<_>>().join(" ");
        line = format!("{}  :{ports}", shortened(&line, LINE - 50));
    }
    line
}

/// The same without a screen: one line for each tree.
pub(crate) fn table(model: &Model) -> String {
    let columns = Column::ALL;
    let line = |cell: &dyn Fn(Column) -> String| {
        let mut line = String::new();
        for column in columns {
            let (text, wide) = (cell(column), usize::from(column.width()));
            let _ = match column {
                Column::Name => write!(line, "{text:<16} "),
                Column::State => write!(line, "{text:<8} "),
                Column::Ports => write!(line, "{text}"),
                _ => write!(line, "{text:>wide$} "),
            };
        }
        line.trim_end().to_owned() + "\n"
    };
    let mut text = line(&|column| column.heading().to_owned());
    for tree in model.order_all().iter().filter_map(|id| model.trees.get(id)) {
        let cell = |column: Column| match column {
            Column::Name => tree.name.clone(),
            column => column.text(tree),
        };
        text += &line(&cell);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_fit_whatever_the_width() {
        for width in 0..300 {
            for all_users in [false, true] {
                let columns = columns(width, all_users);
                let end = columns.iter().map(|(_, at, wide)| at + wide).max().unwrap_or(0);
                let least = 8 + 1 + 6 + 1 + 1;
                assert!(end <= width.max(least), "{width}: {columns:?}");
                assert_eq!(columns.first().map(|(column, ..)| *column), Some(Column::Name));
            }
        }
    }

    #[test]
    fn ages_have_two_units() {
        let said = |seconds| age(Duration::from_secs(seconds));
        assert_eq!(said(5), "5s");
        assert_eq!(
            (said(192), said(7500), said(356_400)),
            ("3m12".into(), "2h05".into(), "4d03".into())
        );
    }

    #[test]
    fn wide_characters_are_cut_where_the_cells_end() {
        let mut buffer = Buffer::empty(Rect::new(0, 0, 12, 1));
        put(&mut buffer, (0, 0), 6, "日本日本日本", Style::new());
        put(&mut buffer, (7, 0), 5, "abcde", Style::new());
        let cells: String = buffer.content().iter().map(|cell| cell.symbol()).collect();
        assert!(cells.starts_with("日 本 ~"), "{cells:?}");
        assert!(cells.ends_with("abcde"), "{cells:?}");
    }
}
