//! Doing something in another network namespace.

use nix::sched::{CloneFlags, setns};
use std::fs::File;
use std::io;
use std::panic::resume_unwind;
use std::thread;

/// Does something on a thread of its own that has entered the network namespace of this file. The thread ends with it, so nothing
/// else ever runs there by mistake.
pub fn within<T: Send>(namespace: &File, act: impl FnOnce() -> T + Send) -> io::Result<T> {
    thread::scope(|scope| {
        let thread = thread::Builder::new().name("netns".to_owned()).spawn_scoped(scope, || {
            setns(namespace, CloneFlags::CLONE_NEWNET)?;
            Ok(act())
        })?;
        thread.join().unwrap_or_else(|panic| resume_unwind(panic))
    })
}
