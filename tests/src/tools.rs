//! Programs in Go that tests drive: built once from `tests/tools`, at pinned versions.

use crate::namespace::done;
use std::{
    env,
    path::{Path, PathBuf},
    process::Command,
    sync::LazyLock,
};

/// Beside Weft's own programs.
static BUILT: LazyLock<PathBuf> = LazyLock::new(|| {
    let test = env::current_exe().expect("a process has a program");
    let folder = test.parent().and_then(Path::parent).expect("target/PROFILE/deps/TEST").join("tools");
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tools/build");
    // Go's own cache makes this short when nothing has changed.
    done(Command::new(script).arg(&folder));
    folder
});

/// The path of one that `tests/tools/build` makes.
///
/// # Panics
/// When it cannot be built: that takes Go, and the first time a way to Go's module proxy.
pub fn tool(name: &str) -> String {
    let path = BUILT.join(name);
    assert!(path.exists(), "tests/tools/build makes no {name}");
    path.display().to_string()
}
