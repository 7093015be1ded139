//! The frames of an HTTP/2 connection as they pass by: counted where `h2` has no limit. Nothing is held or changed.
//!
//! A change of settings makes the receiver go through all of its streams, so that a flood of them costs a worker ten thousand times
//! what it costs the sender. PING, PRIORITY, WINDOW_UPDATE and frames of unknown kinds cost both sides alike and need no limit.

use policy::limits;

const HEAD_BYTES: usize = 9;
/// What a client says before its first frame (RFC 9113 §3.4).
const PREFACE_BYTES: usize = 24;
/// Kinds of frames (§6).
const HEADERS: u8 = 1;
const SETTINGS: u8 = 4;
const ACK: u8 = 1;

/// What a client sends.
pub struct Frames {
    /// Bytes up to the next frame's head.
    skip: usize,
    head: [u8; HEAD_BYTES],
    /// Bytes of the head that are there.
    have: usize,
    /// Changes of settings that may come before the next request.
    changes: u32,
}

impl Frames {
    /// Those of a client that has said nothing yet.
    pub fn new() -> Self {
        Self { skip: PREFACE_BYTES, head: [0; HEAD_BYTES], have: 0, changes: limits::SETTINGS_CHANGES }
    }

    /// Follows these bytes. False when settings change more often than requests come.
    pub fn follow(&mut self, mut bytes: &[u8]) -> bool {
        while !bytes.is_empty() {
            let skipped = self.skip.min(bytes.len());
            self.skip -= skipped;
            let missing = (HEAD_BYTES - self.have).min(bytes.len() - skipped);
            let (head, rest) = bytes[skipped..].split_at(missing);
            self.head[self.have..self.have + missing].copy_from_slice(head);
            self.have += missing;
            bytes = rest;
            if self.have == HEAD_BYTES && !self.begin() {
                return false;
            }
        }
        true
    }

    fn begin(&mut self) -> bool {
        let [high, middle, low, kind, flags, ..] = self.head;
        self.skip = u32::from_be_bytes([0, high, middle, low]) as usize;
        self.have = 0;
        match kind {
            HEADERS => self.changes = (self.changes + 1).min(limits::SETTINGS_CHANGES),
            SETTINGS if flags & ACK == 0 => match self.changes.checked_sub(1) {
                Some(left) => self.changes = left,
                None => return false,
            },
            _ => {}
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(kind: u8, flags: u8, payload: usize) -> Vec<u8> {
        let mut frame = vec![0, 0, payload as u8, kind, flags, 0, 0, 0, 0];
        // A payload that looks like heads of SETTINGS.
        frame.extend([0, 0, 0, SETTINGS, 0, 0, 0, 0, 0].into_iter().cycle().take(payload));
        frame
    }

    /// Whether so much is borne, in pieces of each length.
    #[track_caller]
    fn check(frames: &[(u32, Vec<u8>)], borne: bool) {
        let preface = (1, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec());
        let bytes: Vec<u8> =
            [preface].iter().chain(frames).flat_map(|(count, frame)| frame.repeat(*count as usize)).collect();
        for step in (1..40).chain([bytes.len()]) {
            let mut frames = Frames::new();
            assert_eq!(bytes.chunks(step).all(|bytes| frames.follow(bytes)), borne, "in pieces of {step}");
        }
    }

    #[test]
    fn settings_change_no_more_often_than_requests_come() {
        const MANY: u32 = limits::SETTINGS_CHANGES;
        let (settings, headers) = (frame(SETTINGS, 0, 6), frame(HEADERS, 4, 30));
        check(&[(MANY, settings.clone())], true);
        check(&[(MANY + 1, settings.clone())], false);
        // What came before counts no more than it may.
        check(&[(2 * MANY, headers.clone()), (MANY, settings.clone())], true);
        check(&[(2 * MANY, headers.clone()), (MANY + 1, settings.clone())], false);
        check(&[(3 * MANY, [settings.clone(), headers.clone()].concat())], true);
        check(&[(3 * MANY, [settings.clone(), settings, headers].concat())], false);
        // Answers to the receiver's own settings, and other frames, are nothing of the kind.
        check(
            &[(2 * MANY, frame(SETTINGS, ACK, 0)), (2 * MANY, frame(0, 0, 100)), (9, frame(6, 0, 8))],
            true,
        );
    }
}
