//! What a command writes, in whatever pieces it comes: its lines, and what is kept of it.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tidy_fuzz::pieces;
use tidy_process::fuzzing::{kept, lines};

fuzz_target!(|data: &[u8]| {
    let (text, each) = pieces(data);
    let mut wanted: Vec<_> =
        text.split(|byte| *byte == b'\n').map(String::from_utf8_lossy).collect();
    // After the last newline nothing has begun.
    wanted.pop_if(|last| last.is_empty());
    for overlapping in [false, true] {
        assert_eq!(lines(each.clone(), overlapping), wanted);
    }
    let all: Vec<&[u8]> = each.collect();
    for (head, tail) in [(0, 1), (3, 5), (16, 16), (1 << 20, 0)] {
        keeps(text, &all, head, tail);
    }
});

fn keeps(text: &[u8], pieces: &[&[u8]], head: usize, tail: usize) {
    let first = pieces.first().map_or(0, |piece| piece.len());
    let start = first / 2;
    let (excerpt, last, tapped, missed) = kept(pieces, (head, tail), start as u64);
    assert!(excerpt.head.len() <= head + tail && excerpt.tail.len() <= tail);
    let sum =
        excerpt.head.len() + excerpt.tail.len() + usize::try_from(excerpt.omitted_bytes).unwrap();
    assert_eq!(sum, text.len());
    assert!(text.starts_with(&excerpt.head) && text.ends_with(&excerpt.tail));
    assert!(excerpt.omitted_bytes > 0 || excerpt.head == text);
    assert!(text.ends_with(&last) && last.len() <= tail);
    assert!(excerpt.omitted_bytes == 0 || last.len() == tail);
    assert_eq!(missed, 0);
    if first <= head + tail && !pieces.is_empty() {
        assert_eq!(tapped, &text[start..]);
    }
}
