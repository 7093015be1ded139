//! Keeps what lives in the state folder current: the authority and the tokens when their files are replaced, and
//! control's own certificate when it grows old.

use crate::{
    Control, file,
    issuer::Authority,
    problems::{Problem, Source},
};
use notify::{
    Event, EventKind, RecommendedWatcher, RecursiveMode, Watcher, event::AccessKind, event::AccessMode,
};
use std::{
    collections::BTreeSet,
    io,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};
use tokio::{
    sync::mpsc,
    time::{sleep, timeout},
};

/// Files that belong together are replaced one after the other: the look waits for the last of them.
const SETTLE: Duration = Duration::from_millis(50);
/// And no longer than for this many.
const SETTLE_EVENTS: usize = 20;

/// Makes the folder, for the owner to write and everybody to find the roots in.
pub fn open(folder: &Path) -> io::Result<()> {
    std::fs::create_dir_all(folder)?;
    file::secret_folder(&folder.join("tokens"))
}

/// What tells that something in the state folder changed.
pub struct Watch {
    heard: mpsc::Receiver<()>,
    _events: mpsc::Sender<()>,
    _watcher: Option<RecommendedWatcher>,
}

/// Watches the folder. Begun before its files are read: no change falls between.
pub fn watch(folder: &Path) -> Watch {
    let (events, heard) = mpsc::channel(1);
    let send = events.clone();
    let watcher = notify::recommended_watcher(move |event: notify::Result<Event>| {
        if event.is_ok_and(|event| is_reading(event.kind)) {
            return;
        }
        // Full: a look is due anyhow.
        let _ = send.try_send(());
    });
    let watcher = watcher.and_then(|mut watcher| {
        watcher.watch(folder, RecursiveMode::NonRecursive)?;
        Ok(watcher)
    });
    if let Err(error) = &watcher {
        tracing::warn!("no events from the state folder ({error}); it is looked at now and then");
    }
    Watch { heard, _events: events, _watcher: watcher.ok() }
}

/// Reading, also our own, changes nothing.
fn is_reading(kind: EventKind) -> bool {
    matches!(kind, EventKind::Access(access) if access != AccessKind::Close(AccessMode::Write))
}

/// Looks at the state at each event, and now and then without one. Serves until it is dropped.
pub async fn keep(control: Arc<Control>, mut watch: Watch) {
    loop {
        tokio::select! {
            _ = watch.heard.recv() => {
                let mut events = 1;
                while events < SETTLE_EVENTS && timeout(SETTLE, watch.heard.recv()).await.is_ok() {
                    events += 1;
                }
            }
            () = sleep(pause(&control)) => {}
        }
        look(&control, SystemTime::now());
    }
}

/// Until the next look: now and then, and when an issuer waits to begin.
fn pause(control: &Control) -> Duration {
    let due = control.succession().due().map(|due| due.saturating_duration_since(Instant::now()));
    due.unwrap_or(Duration::MAX).min(control.config.rescan)
}

/// Takes what has changed. What cannot be used is a problem, and what was used before stays.
fn look(control: &Control, now: SystemTime) {
    let config = &control.config;
    let mut problems = BTreeSet::new();
    let held: Arc<Authority> = control.authority();
    match held.reread(&config.state, &config.trust_domain) {
        Ok(None) => {}
        Ok(Some(authority)) => {
            let (authority, due) = {
                let mut succession = control.succession();
                (succession.take(&held, authority, Instant::now()), succession.due())
            };
            match (control.publish(Arc::new(authority), now), due) {
                (Ok(()), None) => {
                    tracing::info!("the issuer or the roots were replaced; the new ones are in use")
                }
                (Ok(()), Some(due)) => tracing::info!(
                    "the new roots are told; the new issuer signs in {} s, when proxies know its root",
                    due.saturating_duration_since(Instant::now()).as_secs()
                ),
                (Err(error), _) => drop(problems.insert(problem(&config.state, crate::chain(&error)))),
            }
        }
        Err(error) => {
            let what = format!("{}; what was there before stays in use", crate::chain(&error));
            problems.insert(problem(&config.state, what));
        }
    }
    let heir = control.succession().next(Instant::now());
    if let Some(heir) = heir {
        match control.publish(heir, now) {
            Ok(()) => tracing::info!("the new issuer signs now"),
            Err(error) => drop(problems.insert(problem(&config.state, crate::chain(&error)))),
        }
    }
    if control.own.is_due(now)
        && let Err(error) = control.renew_own(&control.authority(), now)
    {
        problems.insert(problem(&config.state, crate::chain(&error)));
    }
    control.world().problems_of(Source::State, problems);
    let failed = control.tokens().reread(Instant::now());
    report_tokens(control, failed);
}

/// Says which tokens could not be kept.
pub fn report_tokens(control: &Control, failed: Vec<(PathBuf, io::Error)>) {
    let problems = failed.into_iter().map(|(path, error)| problem(&path, error.to_string()));
    control.world().problems_of(Source::Tokens, problems.collect());
}

fn problem(at: &Path, what: String) -> Problem {
    Problem { at: at.display().to_string(), object: String::new(), field: String::new(), what }
}
