//! protobuf <-> `policy`: the messages of `weft.control.v1` and the one place where they become values of the model.
//!
//! Writing cannot fail; reading checks each field, because the other side may be of another version or broken:
//! whatever comes, the answer is a value that holds what its type promises or a `Malformed` that names the field.
//! Here is no gRPC: the services' clients and servers stand beside those who use them.

mod malformed;
mod read;
mod write;

#[rustfmt::skip]
#[allow(clippy::large_enum_variant, reason = "prost generates it so")]
#[path = "generated.rs"]
pub mod v1;

pub use malformed::{Malformed, Problem};

/// FNV-1a (64 bit) of the message's encoding: what heartbeats carry, so that both sides can compare what they hold.
/// It finds losses, not attacks; messages of the same content have the same encoding, as they hold no maps.
pub fn checksum(message: &impl prost::Message) -> u64 {
    const OFFSET_BASIS: u64 = 0xcbf2_9ce4_8422_2325;
    const PRIME: u64 = 0x0000_0100_0000_01b3;
    message
        .encode_to_vec()
        .iter()
        .fold(OFFSET_BASIS, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(PRIME))
}
