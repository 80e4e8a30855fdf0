//! What the program is told, and how it answers.
//!
//! # Safety
//! The lists on the stack are the kernel's, the numbers and the plan the supervisor's.
#![expect(unsafe_code, reason = "reads the stack that the kernel has set up, and the plan")]

use crate::calls::{self, EIO, at, byte, call, length, nr, value};
use crate::layout::{Head, Message, Op, number};

/// A step that failed.
pub(crate) struct Fault {
    pub(crate) step: u32,
    pub(crate) errno: isize,
    pub(crate) index: u32,
}

type Numbers = [isize; number::COUNT + number::MOST_KEPT];

/// The numbers, and where on the stack the rest is.
pub(crate) struct Orders {
    numbers: Numbers,
    /// Address of the pointer to the directory; the paths and arguments follow it.
    directory: usize,
    pub(crate) environment: usize,
}

impl Orders {
    /// Reads them from argc on; None if this is not what a supervisor executes.
    ///
    /// # Safety
    /// The stack is as at the start of the program.
    pub(crate) unsafe fn read(stack: usize) -> Option<Self> {
        // SAFETY: argc.
        let count: usize = unsafe { value(stack) };
        if count < 4 {
            return None;
        }
        // SAFETY: argv has four entries at least, the second of which are the numbers.
        let numbers: usize = unsafe { value(stack + 2 * size_of::<usize>()) };
        let directory = stack + 3 * size_of::<usize>();
        let environment = stack + (count + 2) * size_of::<usize>();
        Some(Self { numbers: parse(numbers)?, directory, environment })
    }

    pub(crate) fn number(&self, which: usize) -> isize {
        self.numbers.get(which).copied().unwrap_or(-1)
    }

    /// An fd among the numbers.
    pub(crate) fn fd(&self, which: usize) -> usize {
        self.number(which).cast_unsigned()
    }

    /// Whether it has one of the [`number::TASKS`].
    pub(crate) fn has_task(&self, task: usize) -> bool {
        self.fd(number::TASKS) & task != 0
    }

    /// The fds that the command is to have.
    pub(crate) fn kept(&self) -> impl Iterator<Item = usize> {
        let count = self.fd(number::KEPT);
        self.numbers.iter().skip(number::COUNT).take(count).map(|fd| fd.cast_unsigned())
    }

    /// Address of the directory to start in.
    pub(crate) fn directory(&self) -> usize {
        // SAFETY: within argv.
        unsafe { value(self.directory) }
    }

    /// Address of the path to try in this place; None behind the last one.
    pub(crate) fn candidate(&self, place: usize) -> Option<usize> {
        let all = self.fd(number::CANDIDATES);
        // SAFETY: within argv: the supervisor has put this many there.
        (place < all).then(|| unsafe { value(self.directory + (place + 1) * size_of::<usize>()) })
    }

    /// Address of the command's own argv.
    pub(crate) fn arguments(&self) -> usize {
        self.directory + (self.fd(number::CANDIDATES) + 1) * size_of::<usize>()
    }

    /// The answer of a call, or the fault; tests make a step fail by its number.
    pub(crate) fn check(&self, step: u32, answer: isize) -> Result<usize, Fault> {
        self.check_at(step, 0, answer)
    }

    pub(crate) fn check_at(&self, step: u32, index: u32, answer: isize) -> Result<usize, Fault> {
        let answer = if self.number(number::FAIL) == step as isize { EIO } else { answer };
        match answer < 0 {
            true => Err(Fault { step, errno: answer, index }),
            false => Ok(answer.cast_unsigned()),
        }
    }

    pub(crate) fn tell(&self, fault: &Fault) {
        let Fault { step, errno, index } = *fault;
        self.send([step, errno.wrapping_neg() as u32, index], None);
    }

    /// Sends a message, and an fd with it.
    pub(crate) fn send(&self, message: Message, fd: Option<i32>) -> isize {
        #[repr(C)]
        struct Header {
            name: usize,
            name_len: u32,
            pieces: usize,
            pieces_len: usize,
            control: usize,
            control_len: usize,
            flags: u32,
        }
        #[repr(C)]
        struct Control {
            len: usize,
            level: i32,
            kind: i32,
            fd: i32,
            unused: i32,
        }
        const NO_SIGNAL: usize = 0x4000;
        let control = Control {
            len: size_of::<usize>() + 12,
            level: 1,
            kind: 1,
            fd: fd.unwrap_or(-1),
            unused: 0,
        };
        let piece = [at(&message), size_of_val(&message)];
        let header = Header {
            name: 0,
            name_len: 0,
            pieces: at(&piece),
            pieces_len: 1,
            control: if fd.is_some() { at(&control) } else { 0 },
            control_len: if fd.is_some() { size_of_val(&control) } else { 0 },
            flags: 0,
        };
        call(nr::SENDMSG, [self.fd(number::CHANNEL), at(&header), NO_SIGNAL])
    }
}

/// The supervisor's plan, mapped.
pub(crate) struct Plan {
    base: usize,
    pub(crate) head: Head,
}

impl Plan {
    /// Maps it. `Err` is the errno.
    pub(crate) fn map(fd: usize) -> Result<Self, isize> {
        const READ: usize = 1;
        const PRIVATE: usize = 2;
        // A file is never mapped beyond its end: pages behind it are not touched.
        const MOST: usize = 1 << 24;
        let base = call(nr::MMAP, [0, MOST, READ, PRIVATE, fd]);
        if base < 0 {
            return Err(base);
        }
        let base = base.cast_unsigned();
        // SAFETY: the supervisor has written a head there.
        Ok(Self { base, head: unsafe { value(base) } })
    }

    pub(crate) fn op(&self, index: u32) -> Option<Op> {
        let place = self.address(self.head.ops_at) + index as usize * size_of::<Op>();
        // SAFETY: the supervisor has written this many.
        (index < self.head.ops).then(|| unsafe { value(place) })
    }

    pub(crate) fn address(&self, place: u32) -> usize {
        self.base + place as usize
    }
}

/// Parses decimal numbers with a space between two.
fn parse(text: usize) -> Option<Numbers> {
    let mut numbers = [0; number::COUNT + number::MOST_KEPT];
    let (mut which, mut negative) = (0, false);
    for place in 0..length(text) {
        match byte(text + place) {
            b' ' => (which, negative) = (which + 1, false),
            b'-' => negative = true,
            digit @ b'0'..=b'9' => {
                let number: &mut isize = numbers.get_mut(which)?;
                let digit = (digit - b'0') as isize;
                *number = *number * 10 + if negative { -digit } else { digit };
            }
            _ => return None,
        }
    }
    (which + 1 >= number::COUNT).then_some(numbers)
}

/// A number in decimal.
pub(crate) struct Digits {
    all: [u8; 20],
    count: usize,
}

impl Digits {
    pub(crate) fn of(number: usize) -> Self {
        let (mut all, mut rest, mut count) = ([0u8; 20], number, 0);
        for digit in all.iter_mut().rev() {
            *digit = b'0' + (rest % 10) as u8;
            (rest, count) = (rest / 10, count + 1);
            if rest == 0 {
                break;
            }
        }
        Self { all, count }
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        self.all.get(20 - self.count..).unwrap_or_default()
    }
}

/// Puts pieces of text together in the buffer; returns their length. A NUL follows where there is
/// room.
pub(crate) fn joined(pieces: &[&[u8]], buffer: &mut [u8; 64]) -> usize {
    let mut len = 0;
    for (to, from) in buffer.iter_mut().zip(pieces.iter().copied().flatten()) {
        (*to, len) = (*from, len + 1);
    }
    if let Some(end) = buffer.get_mut(len) {
        *end = 0;
    }
    len
}

/// Writes "`inside` `outside` 1" into the buffer; returns its length.
pub(crate) fn map_of(inside: usize, outside: usize, buffer: &mut [u8; 64]) -> usize {
    let (inside, outside) = (Digits::of(inside), Digits::of(outside));
    joined(&[inside.bytes(), b" ", outside.bytes(), b" 1"], buffer)
}

/// Writes a whole file, whose path is at this address, in one call; the errno if that fails.
pub(crate) fn write_file(path: usize, text: &[u8]) -> isize {
    const WRITE_ONLY: usize = 1;
    let flags = WRITE_ONLY | calls::CLOEXEC;
    let fd = call(nr::OPENAT, [calls::AT_CWD, path, flags]);
    if fd < 0 {
        return fd;
    }
    let written = call(nr::WRITE, [fd.cast_unsigned(), at(text), text.len()]);
    calls::close(fd.cast_unsigned());
    written
}
