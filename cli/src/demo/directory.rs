//! The directory of manifests that control watches, in the place of the API server's store. Each file is one object
//! and is replaced as a whole.

use std::fs;
use std::io;
use std::path::PathBuf;

use anyhow::Context;

use super::cluster::Manifest;

pub struct Directory {
    path: PathBuf,
}

impl Directory {
    pub fn create(path: PathBuf) -> anyhow::Result<Self> {
        fs::create_dir_all(&path).with_context(|| format!("making {}", path.display()))?;
        Ok(Self { path })
    }

    pub fn write(&self, manifest: &Manifest) -> anyhow::Result<()> {
        let path = self.path.join(&manifest.file);
        // Not a name that a reader of manifests would take for one.
        let unfinished = self.path.join(format!(".{}.unfinished", manifest.file));
        let text = format!("{:#}\n", manifest.object);
        let written = fs::write(&unfinished, text).and_then(|()| fs::rename(&unfinished, &path));
        written.with_context(|| format!("writing {}", path.display()))
    }

    pub fn remove(&self, manifest: &Manifest) -> io::Result<()> {
        fs::remove_file(self.path.join(&manifest.file))
    }
}
