//! Frames of WebSocket (RFC 6455 §5): whole messages, without extensions.

use std::io::Read;

/// Kinds of frames.
pub const TEXT: u8 = 1;
pub const CLOSE: u8 = 8;

/// A whole message in one frame (RFC 6455 §5.2).
pub fn frame(kind: u8, mask: Option<[u8; 4]>, payload: &[u8]) -> Vec<u8> {
    let masked = if mask.is_some() { 0x80 } else { 0 };
    let mut bytes = vec![0x80 | kind];
    match payload.len() {
        length @ 0..126 => bytes.push(masked | length as u8),
        length @ 126..65_536 => {
            bytes.push(masked | 126);
            bytes.extend((length as u16).to_be_bytes());
        }
        length => {
            bytes.push(masked | 127);
            bytes.extend((length as u64).to_be_bytes());
        }
    }
    let mask = mask.inspect(|mask| bytes.extend(mask)).unwrap_or_default();
    bytes.extend(payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    bytes
}

/// The kind and the payload of the next frame.
pub fn read_frame(from: &mut impl Read) -> (u8, Vec<u8>) {
    let mut head = [0; 2];
    from.read_exact(&mut head).unwrap();
    let mut length = [0; 8];
    let length = match head[1] & 0x7f {
        126 => {
            from.read_exact(&mut length[6..]).unwrap();
            u64::from_be_bytes(length)
        }
        127 => {
            from.read_exact(&mut length).unwrap();
            u64::from_be_bytes(length)
        }
        short => u64::from(short),
    };
    let mut mask = [0; 4];
    if head[1] & 0x80 != 0 {
        from.read_exact(&mut mask).unwrap();
    }
    let mut payload = vec![0; length as usize];
    from.read_exact(&mut payload).unwrap();
    payload.iter_mut().zip(mask.iter().cycle()).for_each(|(byte, mask)| *byte ^= mask);
    (head[0] & 0x0f, payload)
}
