//! Keeps what lives in the state folder current: the authority and the tokens when their files are replaced, and
//! control's own certificate when it grows old.

use crate::{Control, file, issuer::Authority, problems::Problem};
use notify::{
    Event, EventKind, RecommendedWatcher, RecursiveMode, Watcher, event::AccessKind, event::AccessMode,
};
use std::{
    collections::BTreeSet,
    io,
    path::Path,
    sync::Arc,
    time::{Duration, SystemTime},
};
use tokio::{
    sync::mpsc,
    time::{sleep, timeout},
};

/// Files that belong together are replaced one after the other: the look waits for the last of them.
const SETTLE: Duration = Duration::from_millis(50);

/// Makes the folder, for the owner to write and everybody to find the roots in.
pub fn open(folder: &Path) -> io::Result<()> {
    std::fs::create_dir_all(folder)?;
    file::secret_folder(&folder.join("tokens"))
}

/// Looks at the state at each event, and now and then without one. Serves until it is dropped.
pub async fn keep(control: Arc<Control>) {
    let (events, mut heard) = mpsc::channel(1);
    let watcher = watch(&control.config.state, events.clone());
    if let Err(error) = &watcher {
        tracing::warn!("no events from the state folder ({error}); it is looked at now and then");
    }
    loop {
        tokio::select! {
            _ = heard.recv() => {
                while let Ok(Some(())) = timeout(SETTLE, heard.recv()).await {}
            }
            () = sleep(control.config.rescan) => {}
        }
        look(&control, SystemTime::now());
    }
}

fn watch(folder: &Path, events: mpsc::Sender<()>) -> notify::Result<RecommendedWatcher> {
    let mut watcher = notify::recommended_watcher(move |event: notify::Result<Event>| {
        let reading = matches!(&event, Ok(event) if matches!(event.kind, EventKind::Access(_)
            if event.kind != EventKind::Access(AccessKind::Close(AccessMode::Write))));
        if !reading {
            // Full: a look is due anyhow.
            let _ = events.try_send(());
        }
    })?;
    watcher.watch(folder, RecursiveMode::NonRecursive)?;
    Ok(watcher)
}

/// Takes what has changed. What cannot be used is a problem, and what was used before stays.
fn look(control: &Control, now: SystemTime) {
    let config = &control.config;
    let mut problems = BTreeSet::new();
    let held: Arc<Authority> = control.authority();
    match held.reread(&config.state, &config.trust_domain) {
        Ok(None) => {}
        Ok(Some(authority)) => match control.rely_on(authority, now) {
            Ok(()) => tracing::info!("the issuer or the roots were replaced; the new ones are in use"),
            Err(error) => drop(problems.insert(problem(&config.state, crate::chain(&error)))),
        },
        Err(error) => {
            let what = format!("{}; what was there before stays in use", crate::chain(&error));
            problems.insert(problem(&config.state, what));
        }
    }
    if control.own.is_due(now)
        && let Err(error) = control.renew_own(&control.authority(), now)
    {
        problems.insert(problem(&config.state, crate::chain(&error)));
    }
    for (path, error) in control.tokens().reread() {
        problems.insert(problem(&path, error.to_string()));
    }
    control.world().state_problems(problems);
}

/// Something wrong with a file of the state.
pub fn problem(at: &Path, what: String) -> Problem {
    Problem { at: at.display().to_string(), object: String::new(), field: String::new(), what }
}
