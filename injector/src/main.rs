//! `weft-injector`: under construction.
fn main() {}
