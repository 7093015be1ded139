//! The plugin's program and its place in the network's configuration, on the node's disk: put there, kept there, taken out.
//!
//! Others write these folders too, a network's own installer above all: each change of theirs is answered within moments, and
//! every few seconds without one.

use super::{Settings, Status};
use crate::call::ANNOTATIONS;
use crate::conflist::{self, ConflistError, TYPE};
use notify::{EventKind, RecommendedWatcher, RecursiveMode, Watcher};
use serde_json::json;
use std::fs::{self, File, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::timeout;

/// Looks without an event.
const LOOK: Duration = Duration::from_secs(5);
/// Silence after an event, so that a file is read once it is whole.
const SETTLE: Duration = Duration::from_millis(100);
/// The names that runtimes take for configurations.
const CONFIGURATIONS: [&str; 3] = ["conf", "conflist", "json"];

/// Where things are on this node, as seen from here.
#[derive(Debug, Clone)]
pub struct Folders {
    pub bin: PathBuf,
    pub conf: PathBuf,
    /// The configuration to join; none for the first.
    pub conf_file: Option<String>,
}

/// Why the plugin is not in place.
#[derive(Debug, thiserror::Error)]
pub enum InstallError {
    #[error("{what} {path}: {source}", path = path.display())]
    Io { what: &'static str, path: PathBuf, source: io::Error },
    #[error("{path} cannot be joined: {source}", path = path.display())]
    Conflist { path: PathBuf, source: ConflistError },
    #[error("{conf} holds no configuration: has the network plugin of this cluster been installed?", conf = .0.display())]
    NoNetwork(PathBuf),
    #[error(
        "{path} is the configuration of a single plugin, to which none can be chained: have your network write a .conflist, \
         or name one by --conf-file", path = .0.display()
    )]
    NotAList(PathBuf),
}

/// What has been written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Written {
    pub program: bool,
    pub configuration: bool,
}

/// The program as it was found to be right: not read again while it is the same file, unchanged.
#[derive(Debug, Default)]
pub struct Known(Option<[i64; 4]>);

/// Keeps the plugin in place; ends only when it is dropped.
pub(super) async fn keep(settings: &Settings, status: &Status) {
    let (events, mut heard) = mpsc::channel(1);
    let _watcher = watch(&settings.folders, events.clone());
    let mut known = Known::default();
    loop {
        match install(&settings.folders, &settings.socket, &mut known) {
            Ok(written) => {
                if written.program {
                    tracing::info!("{} has been written", settings.folders.bin.join(TYPE).display());
                    status.metrics.wrote("program");
                }
                if written.configuration {
                    tracing::info!(
                        "the network's configuration in {} names {TYPE}",
                        settings.folders.conf.display()
                    );
                    status.metrics.wrote("configuration");
                }
                Status::set(&status.installed, Ok(()));
            }
            Err(error) => Status::set(&status.installed, Err(error.to_string())),
        }
        // The sender is held above: it never ends.
        if timeout(LOOK, heard.recv()).await.is_ok() {
            while timeout(SETTLE, heard.recv()).await.is_ok() {}
        }
    }
}

fn watch(folders: &Folders, events: mpsc::Sender<()>) -> Option<RecommendedWatcher> {
    let heard = move |event: notify::Result<notify::Event>| {
        if !event.is_ok_and(|event| matches!(event.kind, EventKind::Access(_))) {
            // Full: a look is due anyhow.
            let _ = events.try_send(());
        }
    };
    let watching = notify::recommended_watcher(heard).and_then(|mut watcher| {
        watcher.watch(&folders.conf, RecursiveMode::NonRecursive)?;
        watcher.watch(&folders.bin, RecursiveMode::NonRecursive)?;
        Ok(watcher)
    });
    watching
        .inspect_err(|error| {
            tracing::warn!("no events from the node's folders ({error}); they are looked at every {LOOK:?}")
        })
        .ok()
}

/// Puts the program there, then names it in the configuration; what is right already is not touched.
pub fn install(folders: &Folders, socket: &Path, known: &mut Known) -> Result<Written, InstallError> {
    let program = install_program(folders, known)?;
    let path = configuration(folders)?;
    let text = read(&path)?;
    let plugin = json!({"type": TYPE, "capabilities": {ANNOTATIONS: true}, "socket": socket}).to_string();
    let edited = conflist::insert(&text, &plugin);
    let edited = edited.map_err(|source| InstallError::Conflist { path: path.clone(), source })?;
    let configuration = edited != text;
    if configuration {
        write(&path, edited.as_bytes(), None)?;
    }
    Ok(Written { program, configuration })
}

/// Takes the plugin out of every configuration that names it, then its program away.
pub fn uninstall(folders: &Folders) -> Result<(), InstallError> {
    for path in configurations(folders)? {
        let text = read(&path)?;
        if !conflist::is_touched(&text) {
            continue;
        }
        let without = conflist::remove(&text);
        let without = without.map_err(|source| InstallError::Conflist { path: path.clone(), source })?;
        write(&path, without.as_bytes(), None)?;
    }
    let program = folders.bin.join(TYPE);
    match fs::remove_file(&program) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(InstallError::Io { what: "cannot delete", path: program, source: error })
        }
        _ => Ok(()),
    }
}

/// Copies the running program, unless the same is there.
fn install_program(folders: &Folders, known: &mut Known) -> Result<bool, InstallError> {
    let own = Path::new("/proc/self/exe");
    let target = folders.bin.join(TYPE);
    if known.0.is_some() && known.0 == state(&target) {
        return Ok(false);
    }
    let bytes = fs::read(own).map_err(failed("cannot read", own))?;
    let is_right = fs::read(&target).is_ok_and(|there| there == bytes) && is_executable(&target);
    if !is_right {
        write(&target, &bytes, Some(0o755))?;
    }
    known.0 = state(&target);
    Ok(!is_right)
}

/// What changes whenever a file does: which it is, its length, and when it or its mode was changed last.
fn state(path: &Path) -> Option<[i64; 4]> {
    let metadata = fs::metadata(path).ok()?;
    Some([
        metadata.ino().cast_signed(),
        metadata.len().cast_signed(),
        metadata.ctime(),
        metadata.ctime_nsec(),
    ])
}

fn is_executable(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|metadata| metadata.permissions().mode() & 0o111 == 0o111)
}

/// The configuration that the runtime takes: the first by name.
fn configuration(folders: &Folders) -> Result<PathBuf, InstallError> {
    if let Some(name) = &folders.conf_file {
        return Ok(folders.conf.join(name));
    }
    let all = configurations(folders)?;
    let first = all.into_iter().next().ok_or_else(|| InstallError::NoNetwork(folders.conf.clone()))?;
    match first.extension().is_some_and(|extension| extension == "conflist") {
        true => Ok(first),
        false => Err(InstallError::NotAList(first)),
    }
}

fn configurations(folders: &Folders) -> Result<Vec<PathBuf>, InstallError> {
    let failed = failed("cannot read", &folders.conf);
    let entries =
        fs::read_dir(&folders.conf).and_then(Iterator::collect::<io::Result<Vec<_>>>).map_err(failed)?;
    let mut paths: Vec<_> = entries.into_iter().map(|entry| entry.path()).collect();
    paths.retain(|path| {
        path.extension().is_some_and(|extension| CONFIGURATIONS.iter().any(|known| extension == *known))
    });
    paths.sort();
    Ok(paths)
}

fn read(path: &Path) -> Result<String, InstallError> {
    fs::read_to_string(path).map_err(failed("cannot read", path))
}

/// Replaces a file in one step: whoever reads it sees the old one or the new one, whole. Mode and owner stay, where it was there.
fn write(path: &Path, bytes: &[u8], mode: Option<u32>) -> Result<(), InstallError> {
    // A link stays one.
    let path = &fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    // No extension that a runtime would read.
    let new = path.with_file_name(format!(".{name}.weft-new"));
    let there = fs::metadata(path).ok();
    let written = (|| {
        let mut file = File::create(&new)?;
        file.write_all(bytes)?;
        if let Some(there) = there.as_ref().filter(|there| (there.uid(), there.gid()) != (0, 0)) {
            // Without CAP_CHOWN it becomes root's: whoever may read it, may still.
            let _ = chown(&new, Some(there.uid()), Some(there.gid()));
        }
        let kept = there.as_ref().map_or(0o644, |there| there.permissions().mode());
        file.set_permissions(Permissions::from_mode(mode.unwrap_or(kept)))?;
        file.sync_all()?;
        fs::rename(&new, path)
    })();
    written.map_err(|error| {
        let _ = fs::remove_file(&new);
        failed("cannot write", path)(error)
    })
}

fn failed(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> InstallError {
    let path = path.to_owned();
    move |source| InstallError::Io { what, path, source }
}

#[cfg(test)]
mod tests {
    use super::*;
    use admin::Told;
    use tokio::time::{Instant, sleep};

    const LIST: &str = r#"{"name": "pods", "plugins": [{"type": "bridge"}]}"#;
    /// Longest wait for what must happen; reached only by failing tests.
    const PATIENCE: Duration = Duration::from_secs(20);

    async fn eventually(what: &str, holds: impl Fn() -> bool) {
        let begun = Instant::now();
        while !holds() {
            assert!(begun.elapsed() < PATIENCE, "never: {what}");
            sleep(Duration::from_millis(5)).await;
        }
    }

    /// The network's installer writes its file before the agent comes, while it is there, and while it is away.
    #[tokio::test]
    async fn whoever_rewrites_the_list_the_plugin_comes_back() {
        let folder = tempfile::tempdir().unwrap();
        let (bin, conf) = (folder.path().join("bin"), folder.path().join("net.d"));
        fs::create_dir(&bin).unwrap();
        fs::create_dir(&conf).unwrap();
        let list = conf.join("10-pods.conflist");
        let settings = Settings {
            folders: Folders { bin: bin.clone(), conf, conf_file: None },
            node: "node1".to_owned(),
            socket: "/run/weft/cni.sock".into(),
            admin: ([127, 0, 0, 1], 0).into(),
            remove_on_exit: false,
            daemonset: None,
        };
        let is_there = || fs::read_to_string(&list).is_ok_and(|text| conflist::is_touched(&text));
        let status = Status::new();
        let story = async {
            eventually("the missing network is told", || {
                status.unready().is_some_and(|why| why.contains("holds no configuration"))
            })
            .await;
            fs::write(&list, LIST).unwrap();
            eventually("the first list is joined", is_there).await;
            fs::write(&list, LIST).unwrap();
            eventually("a list that was rewritten is joined again", is_there).await;
            fs::remove_file(bin.join(TYPE)).unwrap();
            eventually("a program that was deleted comes back", || bin.join(TYPE).exists()).await;
        };
        tokio::select! {
            () = story => {}
            () = keep(&settings, &status) => panic!("it never ends"),
        }
        assert!(is_there(), "it stays when the agent ends");
        fs::write(&list, LIST).unwrap();
        let status = Status::new();
        tokio::select! {
            () = eventually("an agent that is started anew joins it", is_there) => {}
            () = keep(&settings, &status) => panic!("it never ends"),
        }
    }
}
