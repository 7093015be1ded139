//! A long body whose every block is its own: what is lost, doubled, moved or changed shows.

use std::io::{self, Read, Write};

/// Each block begins with its number, so that no two are equal.
const BLOCK_BYTES: usize = 64 * 1024;

fn block(number: u64) -> Vec<u8> {
    let mut bytes: Vec<u8> = (0..BLOCK_BYTES).map(|at| (at % 251) as u8).collect();
    bytes[..8].copy_from_slice(&number.to_be_bytes());
    bytes
}

/// Writes `length` bytes of the pattern.
pub fn write(to: &mut impl Write, length: u64) -> io::Result<()> {
    let mut bytes = block(0);
    let mut left = length;
    for number in 0_u64.. {
        bytes[..8].copy_from_slice(&number.to_be_bytes());
        let now = left.min(BLOCK_BYTES as u64);
        to.write_all(&bytes[..now as usize])?;
        left -= now;
        if left == 0 {
            break;
        }
    }
    Ok(())
}

/// Reads to the end, or `limit` bytes, and says how many bytes there were.
///
/// # Errors
/// Those of reading; `InvalidData` names the first block that is not as it was sent.
pub fn check(from: &mut impl Read, limit: u64) -> io::Result<u64> {
    let (mut want, mut got) = (block(0), vec![0; BLOCK_BYTES]);
    let mut total = 0;
    for number in 0_u64.. {
        want[..8].copy_from_slice(&number.to_be_bytes());
        let room = (limit - total).min(BLOCK_BYTES as u64) as usize;
        let count = fill(from, &mut got[..room])?;
        if got[..count] != want[..count] {
            let at = (0..count).find(|at| got[*at] != want[*at]).unwrap_or_default();
            let what = format!("byte {} of block {number} is not as it was sent", at);
            return Err(io::Error::new(io::ErrorKind::InvalidData, what));
        }
        total += count as u64;
        if count < BLOCK_BYTES {
            break;
        }
    }
    Ok(total)
}

/// Reads until the buffer is full or the end has come.
fn fill(from: &mut impl Read, into: &mut [u8]) -> io::Result<usize> {
    let mut count = 0;
    while count < into.len() {
        match from.read(&mut into[count..]) {
            Ok(0) => break,
            Ok(more) => count += more,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(count)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_written_checks_and_nothing_else_does() {
        let mut bytes = Vec::new();
        write(&mut bytes, 200_000).unwrap();
        assert_eq!(check(&mut &bytes[..], u64::MAX).unwrap(), 200_000);
        assert_eq!(check(&mut &bytes[..], 70_000).unwrap(), 70_000);
        let mut moved = bytes.clone();
        moved.copy_within(BLOCK_BYTES..2 * BLOCK_BYTES, 0);
        assert!(check(&mut &moved[..], u64::MAX).is_err());
        bytes.remove(100);
        assert!(check(&mut &bytes[..], u64::MAX).is_err());
    }
}
