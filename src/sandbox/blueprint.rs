//! Writes the plan of a sandbox as the set-up program reads it, into a sealed file in memory.

use std::fs::File;
use std::io::Write;
use std::os::fd::OwnedFd;

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, SealFlag, fcntl};
use nix::sys::memfd::{MFdFlags, memfd_create};

use crate::error::errno_of;
use crate::sandbox::layout::{Head, Op, network};
use crate::sandbox::view::{Network, Piece};
use crate::sys::above_two;

/// The program maps no more.
const LARGEST: usize = 1 << 24;

/// Makes the file.
pub(crate) fn sealed(
    pieces: &[Piece],
    filter: &[libc::sock_filter],
    network: Network,
    [listens, early]: [bool; 2],
) -> Result<OwnedFd, Errno> {
    let flags = MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING;
    let mut file = File::from(memfd_create(c"tidy-plan", flags)?);
    let bytes = bytes(pieces, filter, network, [listens, early]).ok_or(Errno::E2BIG)?;
    file.write_all(&bytes).map_err(|error| errno_of(&error))?;
    let seals = SealFlag::F_SEAL_WRITE | SealFlag::F_SEAL_SHRINK | SealFlag::F_SEAL_GROW;
    fcntl(&file, FcntlArg::F_ADD_SEALS(seals | SealFlag::F_SEAL_SEAL))?;
    above_two(file.into())
}

fn bytes(
    pieces: &[Piece],
    filter: &[libc::sock_filter],
    network: Network,
    [listens, early]: [bool; 2],
) -> Option<Vec<u8>> {
    let filter_at = size_of::<Head>();
    // Each instruction has 8 bytes.
    let ops_at = filter_at + filter.len() * 8;
    let strings_at = ops_at + pieces.len() * size_of::<Op>();
    let mut strings = Vec::new();
    let mut ops = Vec::new();
    for piece in pieces {
        let mut place = |text: &[u8]| {
            let place = u32::try_from(strings_at + strings.len()).ok();
            strings.extend_from_slice(text);
            place
        };
        let from = place(piece.from.as_bytes_with_nul())?;
        let to = place(piece.to.as_bytes_with_nul())?;
        let Piece { kind, attributes, stage, .. } = *piece;
        ops.extend([kind, attributes, from, to, stage].map(u32::to_ne_bytes));
    }
    let head = [
        u32::try_from(pieces.len()).ok()?,
        u32::try_from(ops_at).ok()?,
        u32::try_from(filter.len()).ok()?,
        u32::try_from(filter_at).ok()?,
        match network {
            Network::Host => network::HOST,
            Network::None => network::NONE,
            Network::Loopback => network::LOOPBACK,
            Network::Forward(_) => network::FORWARD,
        },
        match network {
            Network::Forward(port) => port.into(),
            _ => 0,
        },
        listens.into(),
        early.into(),
    ];
    let mut all: Vec<u8> = head.map(u32::to_ne_bytes).concat();
    for instruction in filter {
        all.extend(instruction.code.to_ne_bytes());
        all.extend([instruction.jt, instruction.jf]);
        all.extend(instruction.k.to_ne_bytes());
    }
    all.extend(ops.concat());
    all.extend(strings);
    (all.len() < LARGEST).then_some(all)
}
