//! Writes SVG: the few elements that a timeline is made of. All text is escaped here.

use std::fmt::Write as _;

use tidy_process::cli_support::steers;

/// A picture in the making.
#[derive(Default)]
pub(crate) struct Svg(pub(crate) String);

/// A place and a size.
#[derive(Clone, Copy)]
pub(crate) struct Area {
    pub(crate) x: f64,
    pub(crate) y: f64,
    pub(crate) width: f64,
    pub(crate) height: f64,
}

impl Svg {
    /// Opens a group; `attributes` are the caller's own words.
    pub(crate) fn group(&mut self, attributes: &str) {
        let _ = write!(self.0, "<g {attributes}>");
    }

    pub(crate) fn close(&mut self) {
        self.0.push_str("</g>\n");
    }

    /// What a browser shows while the pointer is over the element.
    pub(crate) fn title(&mut self, words: &str) {
        let _ = write!(self.0, "<title>{}</title>", escaped(words));
    }

    pub(crate) fn rect(&mut self, area: Area, class: &str) {
        let Area { x, y, width, height } = area;
        let _ = write!(
            self.0,
            r#"<rect x="{x:.1}" y="{y:.1}" width="{width:.1}" height="{height:.1}" "#
        );
        let _ = write!(self.0, r#"class="{class}"/>"#);
    }

    pub(crate) fn line(&mut self, (x1, y1): (f64, f64), (x2, y2): (f64, f64), class: &str) {
        let _ = write!(
            self.0,
            r#"<line x1="{x1:.1}" y1="{y1:.1}" x2="{x2:.1}" y2="{y2:.1}" class="{class}"/>"#
        );
    }

    pub(crate) fn path(&mut self, points: &[(f64, f64)], class: &str) {
        let mut data = String::new();
        for (number, (x, y)) in points.iter().enumerate() {
            let _ = write!(data, "{}{x:.1} {y:.1}", if number == 0 { 'M' } else { 'L' });
        }
        let _ = write!(self.0, r#"<path d="{data}" class="{class}"/>"#);
    }

    /// `class` may name the anchor too: `e` ends at `x`.
    pub(crate) fn text(&mut self, (x, y): (f64, f64), class: &str, words: &str) {
        let _ = write!(
            self.0,
            r#"<text x="{x:.1}" y="{y:.1}" class="{class}">{}</text>"#,
            escaped(words)
        );
    }
}

/// For text and attributes of XML and HTML: what others wrote may have anything in it. A character
/// that XML cannot have, or that changes how its neighbours are read, is `?`.
pub(crate) fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            '\n' => out.push('\n'),
            c if steers(c) || (c as u32) & 0xfffe == 0xfffe => out.push('?'),
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_that_means_something_is_left() {
        assert_eq!(escaped("a<b>&\"'"), "a&lt;b&gt;&amp;&quot;&#39;");
        assert_eq!(escaped("\0\u{1b}\r\u{fffe}\u{ffff}\u{202e}\u{1ffff}x"), "???????x");
        assert_eq!(escaped("Grüße 日本 🦀\n"), "Grüße 日本 🦀\n");
    }
}
