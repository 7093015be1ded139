//! The cases, by what they are about.

mod directory;
mod discovery;
mod identity;
mod lifecycle;
