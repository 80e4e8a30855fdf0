//! A call of GNU parallel.

use std::os::unix::ffi::OsStrExt;

use crate::exit::Failure;
use crate::pool::emit::asked::Asked;
use crate::pool::emit::script::{Lines, put};
use crate::pool::template::in_sh;

const BEGIN: &str = r#"#!/bin/sh
# For GNU parallel: sh SCRIPT [OPTIONS], as in: sh SCRIPT --sshlogin node1,node2
export PARALLEL_SHELL=/bin/sh
{
"#;

pub(crate) fn write(asked: &Asked, lines: Lines<'_>) -> Result<(), Failure> {
    put(BEGIN.as_bytes())?;
    lines(&mut |line| put(&[b"printf '%s\\0' ", &*in_sh(line), b"\n"].concat()))?;
    let mut call = b"} | tidy-process run --die-with-parent".to_vec();
    let words = asked.ground.iter().map(|word| word.as_bytes());
    let own: [&[u8]; 3] = [b"--", b"parallel", b"--null"];
    let words = words.chain(own).chain(asked.parallel.iter().map(|word| word.as_bytes()));
    for word in words {
        call.push(b' ');
        call.extend(in_sh(word));
    }
    call.extend_from_slice(b" \"$@\"\n");
    put(&call)
}
