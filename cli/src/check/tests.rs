//! The checks on facts from files.
