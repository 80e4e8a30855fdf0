//! What others wrote, on its way to a terminal: no character that steers it, and no end of it.
#![no_main]

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use libfuzzer_sys::fuzz_target;
use tidy_process::fuzzing::{described, lacks, port, process, quoted, report};
use tidy_process::{Cause, Protocol};

fuzz_target!(|data: &[u8]| {
    let (most, bytes) = data.split_last().unwrap_or((&0, data));
    let text = String::from_utf8_lossy(bytes);
    let most = usize::from(*most);
    let [line, lines, short, list] = quoted(&text, most);
    is_line(&line);
    lines.split('\n').for_each(is_line);
    is_line(&list);
    assert_eq!(line.chars().count(), text.chars().count());
    assert_eq!(quoted(&line, most)[0], line, "quoting twice changes nothing");
    assert!(short.chars().count() <= most.max(3));
    assert!(list.chars().count() <= most.max(40), "{most}: {list:?}");
    names(bytes, &text);
});

fn is_line(text: &str) {
    let steers = |c: char| {
        c.is_control()
            || matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}')
            || matches!(c, '\u{2066}'..='\u{2069}' | '\u{feff}' | '\u{200b}')
    };
    assert!(!text.contains(steers), "{text:?}");
}

/// A process that has the text for everything that it may choose.
fn names(bytes: &[u8], text: &str) {
    let mut odd = process(7, "");
    odd.gaps.clear();
    odd.name = text.chars().take(64).collect();
    odd.command = text.split('\0').map(str::to_owned).take(64).collect();
    odd.cwd = Some(Path::new(OsStr::from_bytes(bytes)).to_owned());
    odd.wchan = Some(text.to_owned());
    odd.ports = vec![port(Protocol::Udp, ([0; 16], 65535).into(), &odd.name); bytes.len() % 9];
    let mut bare = odd.clone();
    bare.command.clear();
    lacks(&mut bare, "command", text);
    let short = format!("{odd:.80}");
    is_line(&short);
    assert!(short.chars().count() <= 80);
    let all = [odd, bare];
    for each in &all {
        is_line(&each.to_string());
        is_line(&each.particulars());
        assert!(each.to_string().chars().count() <= 200);
        each.ports.iter().take(1).for_each(|port| is_line(&port.to_string()));
    }
    let (lines, error) = described(&all);
    lines.iter().for_each(|line| is_line(line));
    assert!(lines.iter().all(|line| line.chars().count() <= 200), "{lines:?}");
    is_line(&error);
    assert!(error.chars().count() <= 500, "{error}");
    let whole = report(0, Cause::Exited, all.to_vec()).to_string();
    is_line(&whole);
    assert!(whole.chars().count() <= 300, "{whole}");
}
