//! What a command is made of: words with places for its arguments.

use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt, OsStringExt};

/// The command as it was typed, with its places found.
#[derive(Debug)]
pub(crate) struct Template {
    words: Vec<Vec<Piece>>,
    /// One line for sh, in which arguments are quoted.
    is_line: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Piece {
    Text(Vec<u8>),
    /// Of this source, from 0; of all.
    Arg(Option<usize>, Part),
    Number,
    Slot,
}

/// What of an argument.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Part {
    Whole,
    NoExtension,
    Base,
    Directory,
    BaseNoExtension,
}

/// What fills the places.
pub(crate) struct Filling<'a> {
    pub(crate) args: &'a [Vec<u8>],
    pub(crate) number: u64,
    pub(crate) slot: usize,
}

impl Template {
    pub(crate) fn new(words: &[OsString], replace: &str, is_line: bool) -> Self {
        let pieces = |word: &OsString| pieces(word.as_bytes(), replace.as_bytes());
        let mut words: Vec<_> = words.iter().map(pieces).collect();
        if !words.iter().flatten().any(|piece| !matches!(piece, Piece::Text(_))) {
            words.push(vec![Piece::Arg(None, Part::Whole)]);
        }
        Self { words, is_line }
    }

    pub(crate) fn is_line(&self) -> bool {
        self.is_line
    }

    /// Whether a command is told its place among those that run.
    pub(crate) fn has_slot(&self) -> bool {
        self.words.iter().flatten().any(|piece| *piece == Piece::Slot)
    }

    /// The words of one command.
    pub(crate) fn fill(&self, filling: &Filling<'_>) -> Vec<OsString> {
        if self.is_line {
            let words = self.words.iter().map(|word| filled(word, filling, &|arg| in_sh(&arg)));
            let line = words.collect::<Vec<_>>().join(&b' ');
            return vec!["/bin/sh".into(), "-c".into(), OsString::from_vec(line)];
        }
        let mut all = Vec::with_capacity(self.words.len() + filling.args.len());
        for word in &self.words {
            match word.as_slice() {
                [Piece::Arg(None, part)] => {
                    let args = filling.args.iter().map(|arg| part_of(arg, *part));
                    all.extend(args.map(OsString::from_vec));
                }
                _ => all.push(OsString::from_vec(filled(word, filling, &|arg| arg))),
            }
        }
        all
    }
}

fn filled(word: &[Piece], filling: &Filling<'_>, quote: &dyn Fn(Vec<u8>) -> Vec<u8>) -> Vec<u8> {
    let mut bytes = Vec::new();
    for piece in word {
        match piece {
            Piece::Text(text) => bytes.extend_from_slice(text),
            Piece::Number => bytes.extend_from_slice(filling.number.to_string().as_bytes()),
            Piece::Slot => bytes.extend_from_slice(filling.slot.to_string().as_bytes()),
            Piece::Arg(Some(source), part) => {
                let arg = filling.args.get(*source).map(Vec::as_slice).unwrap_or_default();
                bytes.extend(quote(part_of(arg, *part)));
            }
            Piece::Arg(None, part) => {
                let args = filling.args.iter().map(|arg| quote(part_of(arg, *part)));
                bytes.extend(args.collect::<Vec<_>>().join(&b' '));
            }
        }
    }
    bytes
}

fn part_of(arg: &[u8], part: Part) -> Vec<u8> {
    let slash = arg.iter().rposition(|&byte| byte == b'/');
    let base = slash.and_then(|at| arg.get(at + 1..)).unwrap_or(arg);
    let no_extension = |of: &[u8]| {
        let last = of.iter().rposition(|byte| b"./".contains(byte));
        let dot = last.filter(|&at| at > 0 && of.get(at) == Some(&b'.'));
        let dot = dot.filter(|&at| of.get(at - 1) != Some(&b'/'));
        dot.and_then(|at| of.get(..at)).unwrap_or(of).to_vec()
    };
    match part {
        Part::Whole => arg.to_vec(),
        Part::NoExtension => no_extension(arg),
        Part::Base => base.to_vec(),
        Part::BaseNoExtension => no_extension(base),
        Part::Directory => match slash {
            None => b".".to_vec(),
            Some(0) => b"/".to_vec(),
            Some(at) => arg.get(..at).unwrap_or_default().to_vec(),
        },
    }
}

/// As one word of a line for sh.
pub(crate) fn in_sh(arg: &[u8]) -> Vec<u8> {
    let is_plain = |&byte: &u8| byte.is_ascii_alphanumeric() || b"_@%+=:,./-".contains(&byte);
    if !arg.is_empty() && arg.iter().all(is_plain) {
        return arg.to_vec();
    }
    let mut quoted = vec![b'\''];
    for &byte in arg {
        match byte {
            b'\'' => quoted.extend_from_slice(b"'\\''"),
            byte => quoted.push(byte),
        }
    }
    quoted.push(b'\'');
    quoted
}

/// A word, taken apart.
fn pieces(word: &[u8], replace: &[u8]) -> Vec<Piece> {
    let (mut all, mut text, mut rest) = (Vec::new(), Vec::new(), word);
    while let Some((&first, behind)) = rest.split_first() {
        match place(rest, replace) {
            Some((piece, length)) => {
                if !text.is_empty() {
                    all.push(Piece::Text(std::mem::take(&mut text)));
                }
                all.push(piece);
                rest = rest.get(length..).unwrap_or_default();
            }
            None => {
                text.push(first);
                rest = behind;
            }
        }
    }
    if !text.is_empty() || all.is_empty() {
        all.push(Piece::Text(text));
    }
    all
}

/// The place that a text begins with, and its length.
fn place(rest: &[u8], replace: &[u8]) -> Option<(Piece, usize)> {
    if !replace.is_empty() && rest.starts_with(replace) {
        return Some((Piece::Arg(None, Part::Whole), replace.len()));
    }
    // Another word for {} means that braces are text.
    if replace != b"{}" {
        return None;
    }
    let inner = rest.strip_prefix(b"{")?;
    let length = inner.iter().take(8).position(|&byte| byte == b'}')?;
    let inner = std::str::from_utf8(inner.get(..length)?).ok()?;
    let piece = match inner {
        "#" => Piece::Number,
        "%" => Piece::Slot,
        _ => {
            let digits = inner.find(|c: char| !c.is_ascii_digit()).unwrap_or(inner.len());
            let (number, part) = inner.split_at(digits);
            let part = match part {
                "" => Part::Whole,
                "." => Part::NoExtension,
                "/" => Part::Base,
                "//" => Part::Directory,
                "/." => Part::BaseNoExtension,
                _ => return None,
            };
            match number {
                "" => Piece::Arg(None, part),
                number => Piece::Arg(Some(number.parse::<usize>().ok()?.checked_sub(1)?), part),
            }
        }
    };
    Some((piece, length + 2))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filled(words: &[&str], args: &[&str], is_line: bool) -> Vec<String> {
        let words: Vec<OsString> = words.iter().map(OsString::from).collect();
        let args: Vec<Vec<u8>> = args.iter().map(|arg| arg.as_bytes().to_vec()).collect();
        let filling = Filling { args: &args, number: 7, slot: 2 };
        let words = Template::new(&words, "{}", is_line).fill(&filling);
        words.into_iter().map(|word| word.to_string_lossy().into_owned()).collect()
    }

    #[test]
    fn places_are_those_of_parallel() {
        let table: &[(&[&str], &[&str], &[&str])] = &[
            (&["gzip"], &["a b"], &["gzip", "a b"]),
            (&["cp", "{}", "{}.bak"], &["x"], &["cp", "x", "x.bak"]),
            (&["c", "{.}"], &["d/a.tar.gz"], &["c", "d/a.tar"]),
            (&["c", "{/}", "{//}", "{/.}"], &["d/a.c"], &["c", "a.c", "d", "a"]),
            (&["c", "{//}"], &["a.c"], &["c", "."]),
            (&["c", "{.}"], &["d.x/a"], &["c", "d.x/a"]),
            (&["c", "{.}"], &[".rc"], &["c", ".rc"]),
            (&["c", "{#}-{%}", "{2}", "{1/}"], &["a/b", "c"], &["c", "7-2", "c", "b"]),
            (&["c", "{x}", "{", "{}}"], &["a"], &["c", "{x}", "{", "a}"]),
            (&["c", "{}"], &["a", "b"], &["c", "a", "b"]),
            (&["c", "<{}>"], &["a", "b"], &["c", "<a b>"]),
        ];
        for (words, args, wanted) in table {
            assert_eq!(&filled(words, args, false), wanted, "{words:?} {args:?}");
        }
    }

    #[test]
    fn arguments_are_quoted_for_sh() {
        let line = filled(&["echo {} | wc", "-c"], &["a'; rm *"], true);
        assert_eq!(line, ["/bin/sh", "-c", "echo 'a'\\''; rm *' | wc -c"]);
    }
}
