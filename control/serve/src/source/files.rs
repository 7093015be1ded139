//! The files of the watched directories, as they were last read, and what has changed since. Synchronous: the caller
//! says when to look and what time it is.
//!
//! People edit these files while they are served, so that a look may come at a bad moment. What is malformed now keeps
//! what it last said; a file that vanished or is empty keeps it for a moment, as editors replace files by steps.

use super::{Batch, Change};
use crate::problems::{self, Problem};
use control_index::{Key, Object};
use control_manifest::Fault;
use std::{
    collections::{BTreeMap, BTreeSet, HashSet},
    fs,
    hash::{DefaultHasher, Hash, Hasher},
    io,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

/// How long a file that vanished, or became empty, counts as being replaced.
pub const REPLACING: Duration = Duration::from_millis(100);
/// A larger file is a problem, not a manifest.
pub const FILE_BYTES: u64 = 16 * 1024 * 1024;
/// Files of all directories together; more are left out with a problem.
pub const FILES: usize = 10_000;
/// Folders within folders.
const DEPTH: usize = 16;

/// The directories and what they hold.
#[derive(Debug)]
pub struct Files {
    roots: Vec<PathBuf>,
    files: BTreeMap<PathBuf, File>,
    /// What has been handed over, with its origin.
    applied: BTreeMap<Key, (Arc<Object>, String)>,
}

#[derive(Debug, Default)]
struct File {
    digest: u64,
    objects: Vec<(u64, Arc<Object>)>,
    /// Objects that it defined when it was last well-formed, and that may be in what is malformed now.
    kept: Vec<(u64, Arc<Object>)>,
    faults: Vec<Fault>,
    skipped: usize,
    /// Since when it is away or empty.
    away_since: Option<Instant>,
}

/// What a walk through the directories found.
#[derive(Default)]
struct Walk {
    files: BTreeSet<PathBuf>,
    /// Folders that could not be listed: nothing is known of what is in them.
    unreadable: Vec<(PathBuf, String)>,
    visited: HashSet<PathBuf>,
    too_many: bool,
}

impl Files {
    pub fn new(roots: Vec<PathBuf>) -> Self {
        Self { roots, files: BTreeMap::new(), applied: BTreeMap::new() }
    }

    /// Reads all files and answers what changed since the last time, and when to look again if something is in
    /// between two states now.
    pub fn look(&mut self, now: Instant) -> (Batch, Option<Duration>) {
        let mut walk = Walk::default();
        self.roots.iter().for_each(|root| walk.folder(root, DEPTH));
        for path in &walk.files {
            let file = self.files.entry(path.clone()).or_default();
            file.read(path, now);
        }
        let unknown = |path: &Path| walk.unreadable.iter().any(|(folder, _)| path.starts_with(folder));
        for (path, file) in &mut self.files {
            match walk.files.contains(path) || unknown(path) {
                true => {}
                false => drop(file.away_since.get_or_insert(now)),
            }
        }
        let is_away = |since: Instant| now.saturating_duration_since(since) >= REPLACING;
        for (path, file) in &mut self.files {
            if file.away_since.is_some_and(is_away) && walk.files.contains(path) {
                file.clear();
            }
        }
        self.files.retain(|path, file| walk.files.contains(path) || !file.away_since.is_some_and(is_away));
        let waiting =
            self.files.values().filter_map(|file| file.away_since).filter(|since| !is_away(*since)).min();
        let again = waiting.map(|since| (since + REPLACING).saturating_duration_since(now));
        (self.batch(&walk), again)
    }

    fn batch(&mut self, walk: &Walk) -> Batch {
        let mut batch = Batch {
            changes: Vec::new(),
            source: problems::Source::Directory,
            problems: BTreeSet::new(),
            skipped: self.files.values().map(|file| file.skipped).sum(),
        };
        for (path, file) in &self.files {
            batch.problems.extend(file.faults.iter().map(|fault| Problem {
                at: format!("{}:{}", path.display(), fault.line),
                object: String::new(),
                field: fault.field.clone(),
                what: fault.what.clone(),
            }));
        }
        let whole = |at: &Path, what: String| Problem {
            at: at.display().to_string(),
            object: String::new(),
            field: String::new(),
            what,
        };
        batch.problems.extend(walk.unreadable.iter().map(|(folder, what)| whole(folder, what.clone())));
        if walk.too_many {
            let root = self.roots.first().map(PathBuf::as_path).unwrap_or(Path::new("."));
            batch
                .problems
                .insert(whole(root, format!("there are more than {FILES} files; the others are left out")));
        }
        let wanted = self.wanted(&mut batch.problems);
        let gone = self.applied.keys().filter(|key| !wanted.contains_key(*key));
        batch.changes.extend(gone.cloned().map(Change::Delete));
        for (key, (object, origin)) in &wanted {
            let same = |held: &(Arc<Object>, String)| held.1 == *origin && held.0 == *object;
            if !self.applied.get(key).is_some_and(same) {
                batch.changes.push(Change::Apply { object: Arc::clone(object), origin: origin.clone() });
            }
        }
        self.applied = wanted;
        batch
    }

    /// Which file's word counts for each object: the first by path. What files only remember counts last.
    fn wanted(&self, problems: &mut BTreeSet<Problem>) -> BTreeMap<Key, (Arc<Object>, String)> {
        let mut wanted: BTreeMap<Key, (Arc<Object>, String)> = BTreeMap::new();
        let present = |file: &&File| file.away_since.is_none();
        for (path, file) in self.files.iter().filter(|(_, file)| present(file)) {
            for (line, object) in &file.objects {
                let origin = format!("{}:{line}", path.display());
                match wanted.get(object.key()) {
                    None => drop(wanted.insert(object.key().clone(), (Arc::clone(object), origin))),
                    Some((_, first)) => drop(problems.insert(Problem {
                        at: origin,
                        object: object.key().to_string(),
                        field: String::new(),
                        what: format!("it is defined at {first} already; that one is taken"),
                    })),
                }
            }
        }
        for (path, file) in &self.files {
            let away = file.objects.iter().filter(|_| file.away_since.is_some());
            for (line, object) in file.kept.iter().chain(away) {
                let origin = || (Arc::clone(object), format!("{}:{line}", path.display()));
                wanted.entry(object.key().clone()).or_insert_with(origin);
            }
        }
        wanted
    }
}

impl File {
    fn read(&mut self, path: &Path, now: Instant) {
        let text = match text(path) {
            Ok(text) => text,
            // Between the walk and the reading: it is being replaced.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                self.away_since.get_or_insert(now);
                return;
            }
            Err(error) => {
                self.remember();
                self.digest = 0;
                self.skipped = 0;
                let what = format!("it cannot be read: {error}; what it said before stays");
                self.faults = vec![Fault { line: 1, field: String::new(), what }];
                return;
            }
        };
        if text.is_empty() && !(self.objects.is_empty() && self.kept.is_empty()) {
            self.away_since.get_or_insert(now);
            return;
        }
        self.away_since = None;
        let digest = digest(&text);
        if self.digest == digest {
            return;
        }
        self.digest = digest;
        let parsed = control_manifest::parse(path, &text);
        self.remember();
        self.objects = parsed.objects.into_iter().map(|(line, object)| (line, Arc::new(object))).collect();
        match parsed.faults.is_empty() {
            true => self.kept.clear(),
            false => {
                self.kept.retain(|(_, kept)| self.objects.iter().all(|(_, one)| one.key() != kept.key()))
            }
        }
        self.faults = parsed.faults;
        self.skipped = parsed.skipped;
    }

    /// Moves what it said to what it is remembered for.
    fn remember(&mut self) {
        let said = std::mem::take(&mut self.objects);
        self.kept.retain(|(_, kept)| said.iter().all(|(_, one)| one.key() != kept.key()));
        self.kept.extend(said);
    }

    fn clear(&mut self) {
        *self = Self { digest: digest(""), ..Self::default() };
    }
}

impl Walk {
    fn folder(&mut self, folder: &Path, depth: usize) {
        let Ok(entries) = self.list(folder).map_err(|error| {
            let what = format!("it cannot be listed: {error}; what was in it stays");
            self.unreadable.push((folder.into(), what));
        }) else {
            return;
        };
        for path in entries {
            let hidden = path.file_name().is_none_or(|name| name.to_string_lossy().starts_with('.'));
            // Follows symbolic links, as mounted ConfigMaps are made of them; one that leads nowhere is no file.
            let Some(metadata) = fs::metadata(&path).ok().filter(|_| !hidden) else { continue };
            if metadata.is_dir() && depth > 0 {
                self.folder(&path, depth - 1);
            } else if metadata.is_file() && is_manifest(&path) {
                match self.files.len() < FILES {
                    true => drop(self.files.insert(path)),
                    false => self.too_many = true,
                }
            }
        }
    }

    /// The entries by name; none when the folder has been seen by another way.
    fn list(&mut self, folder: &Path) -> io::Result<Vec<PathBuf>> {
        if !self.visited.insert(fs::canonicalize(folder)?) {
            return Ok(Vec::new());
        }
        let mut entries = fs::read_dir(folder)?
            .map(|entry| entry.map(|entry| entry.path()))
            .collect::<io::Result<Vec<PathBuf>>>()?;
        entries.sort();
        Ok(entries)
    }
}

/// Whether a file of this name is read.
pub fn is_manifest(path: &Path) -> bool {
    let extension = path.extension().and_then(|extension| extension.to_str());
    let hidden = path.file_name().is_none_or(|name| name.to_string_lossy().starts_with('.'));
    matches!(extension, Some("yaml" | "yml" | "json")) && !hidden
}

fn text(path: &Path) -> io::Result<String> {
    let size = fs::metadata(path)?.len();
    if size > FILE_BYTES {
        return Err(io::Error::other(format!("its {size} bytes are more than {FILE_BYTES}")));
    }
    fs::read_to_string(path)
}

fn digest(text: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    text.hash(&mut hasher);
    hasher.finish()
}

#[cfg(test)]
mod tests;
