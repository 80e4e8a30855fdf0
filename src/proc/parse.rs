//! Parses what `/proc` and getdents64(2) say of processes, piece by piece in fixed buffers.
//! Compiled into the keeper's program too: nothing here allocates, panics, or needs more than
//! `core`.

use core::ffi::CStr;

/// Writes the pid in decimal, with the NUL that ends it.
pub(crate) fn decimal(pid: i32, text: &mut [u8; 12]) -> Option<&CStr> {
    let mut rest = u32::try_from(pid).ok()?;
    let mut start = text.len().checked_sub(1)?;
    *text.get_mut(start)? = 0;
    loop {
        start = start.checked_sub(1)?;
        *text.get_mut(start)? = b'0'.wrapping_add(u8::try_from(rest % 10).ok()?);
        rest /= 10;
        if rest == 0 {
            return CStr::from_bytes_with_nul(text.get(start..)?).ok();
        }
    }
}

/// Parses `PID (NAME) STATE PPID ...`; the name may have anything in it.
pub(crate) fn stat(text: &[u8]) -> Option<(u8, i32)> {
    let after = text.iter().rposition(|&byte| byte == b')')?;
    let mut fields = text.get(after..)?.split(|&byte| byte == b' ').skip(1);
    let state = fields.next()?.first()?;
    let mut parent = None;
    each_number(fields.next()?, &mut parent, &mut |_| ());
    // A field without one behind it may have been cut.
    fields.next()?;
    parent.map(|parent| (*state, parent))
}

/// Parses a `linux_dirent64`: eight bytes each of inode and offset, two of length, one of type, a
/// name.
pub(crate) fn first_entry(entries: &[u8]) -> Option<(&CStr, &[u8])> {
    let len = u16::from_ne_bytes(entries.get(16..18)?.try_into().ok()?);
    let name = CStr::from_bytes_until_nul(entries.get(19..len.into())?).ok()?;
    Some((name, entries.get(len.into()..)?))
}

/// Sees the numbers of a text, each of which ends in another byte; a read may cut one in two.
pub(crate) fn each_number(text: &[u8], begun: &mut Option<i32>, see: &mut dyn FnMut(i32)) {
    for &byte in text {
        match byte.checked_sub(b'0').filter(|&digit| digit < 10) {
            Some(digit) => {
                let before = begun.unwrap_or(0);
                *begun = Some(before.wrapping_mul(10).wrapping_add(digit.into()));
            }
            None => begun.take().into_iter().for_each(&mut *see),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numbers(parts: &[&[u8]]) -> Vec<i32> {
        let (mut all, mut begun) = (Vec::new(), None);
        for part in parts {
            each_number(part, &mut begun, &mut |number| all.push(number));
        }
        all
    }

    #[test]
    fn a_list_may_be_cut_anywhere() {
        assert_eq!(numbers(&[b"12 345 6 "]), [12, 345, 6]);
        assert_eq!(numbers(&[b"12 3", b"4", b"5 6 "]), [12, 345, 6]);
        assert_eq!(numbers(&[b"12", b" 345 "]), [12, 345]);
        assert_eq!(numbers(&[b""]), Vec::<i32>::new());
    }

    #[test]
    fn a_name_may_look_like_the_fields_behind_it() {
        assert_eq!(stat(b"7 (sh) S 1 7 7 0 "), Some((b'S', 1)));
        assert_eq!(stat(b"7 (a) R 99 (b) Z 4711 7 "), Some((b'Z', 4711)));
        for cut in [&b""[..], b"7", b"7 (sh", b"7 (sh)", b"7 (sh) S", b"7 (sh) S "] {
            assert_eq!(stat(cut), None);
        }
    }

    #[test]
    fn pids_are_written_in_decimal() {
        for pid in [0, 7, 10, 4_194_304, i32::MAX] {
            let mut text = [0; 12];
            let written = decimal(pid, &mut text).map(CStr::to_bytes);
            assert_eq!(written, Some(pid.to_string().as_bytes()));
        }
        assert_eq!(decimal(-1, &mut [0; 12]), None);
    }
}
