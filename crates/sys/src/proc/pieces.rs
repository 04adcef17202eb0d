//! Texts of any length in pieces. What is long is read by a thread, so that the kernel puts text together while the caller
//! looks at what is there.

use std::os::fd::BorrowedFd;
use std::sync::mpsc;
use std::thread;

use rustix::io::Errno;

use crate::sched;

/// Pieces that are read sooner than a thread is started.
const SOON: usize = 128;
/// Pieces that change hands in one go.
const LOT: usize = 32;
/// Lots that there are.
const LOTS: usize = 4;

/// Shows all pieces of a file to `take`, until it has enough. None has more than so many bytes times [`LOT`].
pub(super) fn each<E>(
    fd: BorrowedFd<'_>,
    bytes: usize,
    failed: impl Fn(Errno) -> E,
    mut take: impl FnMut(&[u8]) -> Result<(), E>,
) -> Result<(), E> {
    let mut piece = vec![0; bytes];
    if here(fd, &mut piece, SOON, &failed, &mut take)? {
        return Ok(());
    }
    thread::scope(|scope| {
        let (full, lots) = mpsc::sync_channel(LOTS);
        let (back, empty) = mpsc::channel::<Vec<u8>>();
        let reader = sched::beside(scope, "text", move || {
            for mut lot in empty {
                let len = fill(fd, bytes, &mut lot);
                let over = !matches!(len, Ok(1..));
                if full.send((lot, len)).is_err() || over {
                    return;
                }
            }
        });
        if reader.is_err() {
            return here(fd, &mut piece, usize::MAX, failed, take).map(drop);
        }
        for lot in (0..LOTS).map(|_| vec![0; bytes * LOT]) {
            // The reader may have come to the end.
            let _ = back.send(lot);
        }
        for (lot, len) in lots {
            take(&lot[..len.map_err(&failed)?])?;
            let _ = back.send(lot);
        }
        Ok(())
    })
}

/// Shows so many pieces, if there are as many; whether these were all.
fn here<E>(
    fd: BorrowedFd<'_>,
    piece: &mut [u8],
    many: usize,
    failed: impl Fn(Errno) -> E,
    mut take: impl FnMut(&[u8]) -> Result<(), E>,
) -> Result<bool, E> {
    for _ in 0..many {
        match read(fd, piece).map_err(&failed)? {
            0 => return Ok(true),
            len => take(&piece[..len])?,
        }
    }
    Ok(false)
}

/// Reads pieces as long as there is room for one; returns how many bytes these have, none at the end of the file.
fn fill(fd: BorrowedFd<'_>, bytes: usize, lot: &mut [u8]) -> Result<usize, Errno> {
    let mut filled = 0;
    while let Some(piece) = lot.get_mut(filled..filled + bytes) {
        match read(fd, piece)? {
            0 => break,
            len => filled += len,
        }
    }
    Ok(filled)
}

fn read(fd: BorrowedFd<'_>, piece: &mut [u8]) -> Result<usize, Errno> {
    rustix::io::retry_on_intr(|| rustix::io::read(fd, &mut *piece))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Seek, Write};
    use std::os::fd::AsFd;

    /// What is shown of a file of so many bytes, and whether it was all.
    fn shown(len: usize, enough: usize) -> (Vec<u8>, Vec<u8>, Result<(), Errno>) {
        let written: Vec<u8> = (0..len).map(|at| (at / 7 % 251) as u8).collect();
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&written).unwrap();
        file.rewind().unwrap();
        let mut seen = Vec::new();
        let all = each(
            file.as_fd(),
            64,
            |errno| errno,
            |piece| {
                assert!(piece.len() <= 64 * LOT);
                seen.extend_from_slice(piece);
                match seen.len() < enough {
                    true => Ok(()),
                    false => Err(Errno::NOBUFS),
                }
            },
        );
        (written, seen, all)
    }

    #[test]
    fn all_of_a_text_is_shown_in_order() {
        for len in [0, 1, 64 * SOON - 1, 64 * SOON, 64 * SOON + 1, 1 << 20] {
            let (written, seen, all) = shown(len, usize::MAX);
            assert!(all.is_ok() && seen == written, "{len}");
        }
    }

    #[test]
    fn nothing_is_shown_to_who_has_enough() {
        for enough in [1, 64 * SOON + 1, 1 << 19] {
            let (written, seen, all) = shown(1 << 20, enough);
            assert_eq!(all, Err(Errno::NOBUFS));
            assert!(seen.len() < enough + 64 * LOT && written.starts_with(&seen));
        }
    }

    #[test]
    fn errors_of_the_kernel_are_told() {
        let dir = std::fs::File::open("/").unwrap();
        let all = each(dir.as_fd(), 64, |errno| errno, |_| Ok(()));
        assert_eq!(all, Err(Errno::ISDIR));
    }
}
