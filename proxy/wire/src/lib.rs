//! protobuf <-> `policy`.

#[rustfmt::skip]
#[path = "generated.rs"]
pub mod v1;
