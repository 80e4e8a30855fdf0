//! Quotes what other processes wrote, for a terminal.
//!
//! A process chooses its name, its command line, its directories and what it writes; a terminal
//! obeys what is in them. So whatever came from outside goes through [`quoted`] before it is part
//! of a text for a person.

/// Characters of a line that describes one process, at the most.
pub(crate) const LINE: usize = 200;

/// Returns the text on one line, with `?` for each character that a terminal may obey. Bytes that
/// are no UTF-8 are `U+FFFD` already, wherever a text was made of them.
pub(crate) fn quoted(text: &str) -> String {
    let plain = |c: char| match c {
        '\t' => ' ',
        c if steers(c) => '?',
        c => c,
    };
    text.chars().map(plain).collect()
}

/// Quotes each line of a text, as [`quoted`] does.
pub(crate) fn quoted_lines(text: &str) -> String {
    text.split('\n').map(quoted).collect::<Vec<_>>().join("\n")
}

/// Whether a terminal obeys it: control characters (C0, DEL, and C1 in whichever encoding), what
/// changes the direction of its neighbours, what ends a line, and what is not to be seen.
pub(crate) fn steers(c: char) -> bool {
    c.is_control()
        || matches!(c,
            '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{feff}'
            | '\u{200b}'..='\u{200f}'
            | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}'
            | '\u{fff9}'..='\u{fffb}'
            | '\u{e0000}'..='\u{e0fff}')
}

/// Returns the first characters, with `...` for the rest; `most` characters in all.
pub(crate) fn shortened(text: &str, most: usize) -> String {
    if text.chars().nth(most).is_none() {
        return text.to_owned();
    }
    let kept: String = text.chars().take(most.saturating_sub(3)).collect();
    format!("{}...", kept.trim_end())
}

/// Lists as many of these as fit into `most` characters, separated by commas; then how many more
/// there are of `count`.
pub(crate) fn enumerated(all: &[String], count: usize, most: usize) -> String {
    let mut text = String::new();
    let mut said = 0;
    for each in all {
        let comma = if said == 0 { "" } else { ", " };
        let after = said + 1;
        let more = if after < count { format!(", {} more", count - after) } else { String::new() };
        let taken = text.chars().count() + comma.len() + more.len();
        let room = most.saturating_sub(taken);
        // The first one is listed, however long it is.
        let fits = taken <= most && each.chars().nth(room).is_none();
        if !fits && said > 0 {
            break;
        }
        text += comma;
        text += &shortened(each, room.max(3));
        said = after;
    }
    if said < count {
        text += &format!("{}{} more", if said == 0 { "" } else { ", " }, count - said);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_that_a_terminal_obeys_is_left() {
        for c in (0..0x20).chain(0x7f..0xa0).filter_map(char::from_u32).filter(|c| *c != '\t') {
            assert_eq!(quoted(&format!("a{c}b")), "a?b", "{c:?}");
        }
        for c in "\u{202a}\u{202e}\u{2066}\u{2069}\u{200f}\u{61c}\u{2028}\u{feff}\u{e0041}".chars()
        {
            assert_eq!(quoted(&format!("a{c}b")), "a?b", "{c:?}");
        }
        let fine = "sh -c \"a\\b\" 'Grüße' 日本 e\u{301} 🦀 \u{fffd}";
        assert_eq!(quoted(fine), fine);
        assert_eq!(quoted_lines("a\x1b[2J\nb\r"), "a?[2J\nb?");
    }

    #[test]
    fn what_is_long_is_shortened() {
        assert_eq!(
            (shortened("abcdef", 6), shortened("abcdefg", 6)),
            ("abcdef".into(), "abc...".into())
        );
        assert_eq!(shortened("日本日本日本", 4), "日...");
        let all = ["1 aaaa", "2 bbbb", "3 cccc"].map(str::to_owned);
        assert_eq!(enumerated(&all, 3, 22), "1 aaaa, 2 bbbb, 3 cccc");
        assert_eq!(enumerated(&all, 3, 21), "1 aaaa, 2 more");
        let longer = ["1 aaaa", "2 bbbb", "3 ccccccc"].map(str::to_owned);
        assert_eq!(enumerated(&longer, 3, 22), "1 aaaa, 2 bbbb, 1 more");
        assert_eq!(enumerated(&all, 9, 17), "1 aaaa, 8 more");
        assert_eq!(enumerated(&all[..1], 9, 12), "1..., 8 more");
        assert_eq!(enumerated(&[], 4, 9), "4 more");
        assert_eq!(enumerated(&["a".into(), String::new(), String::new()], 9, 9), "a, 8 more");
    }
}
