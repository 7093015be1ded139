//! Files of the state folder, written so that nobody ever reads a half of one.

use std::{
    fs::{self, DirBuilder, File, OpenOptions},
    io::{self, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::Path,
};

/// For the owner only.
pub const SECRET: u32 = 0o600;
/// For everybody to read.
pub const PUBLIC: u32 = 0o644;

/// Writes a file whole, in the place of one that is there, and waits until the disk has it.
pub fn write(path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    let name = path.file_name().ok_or_else(|| io::Error::other("the path names no file"))?;
    let folder = path.parent().ok_or_else(|| io::Error::other("the path names no file"))?;
    let half = folder.join(format!(".{}.{}", name.to_string_lossy(), std::process::id()));
    let _ = fs::remove_file(&half);
    let written = (|| {
        let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(&half)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&half, path)?;
        File::open(folder)?.sync_all()
    })();
    written.inspect_err(|_| drop(fs::remove_file(&half)))
}

/// Makes a folder for the owner only, and those above it that are missing.
pub fn secret_folder(path: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(path)
}
