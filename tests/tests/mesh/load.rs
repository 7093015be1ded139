//! Requests without a pause, none of which may fail, while something else happens.

use std::{
    net::SocketAddr,
    sync::{
        Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};
use tests::{
    PATIENCE,
    app::{App, ok},
    eventually, holds,
    http::Client,
    pod::Pod,
};

/// The port of `named` applications.
pub const PORT: u16 = 8080;

/// An application that says its pod's name.
pub fn named(pod: &Pod) -> App {
    let name = pod.manifest.name.clone();
    App::http(pod, PORT, move |_| ok(&name))
}

/// Requests all the time, over connections that stay and over new ones, while something else happens.
pub struct Load {
    answered: AtomicU64,
    failures: Mutex<Vec<String>>,
    done: AtomicBool,
}

impl Load {
    /// Gives what `meanwhile` gives; panics when a request failed, or when too few were made.
    pub fn around<T>(client: &Pod, to: SocketAddr, meanwhile: impl FnOnce(&Load) -> T) -> T {
        let load =
            Load { answered: AtomicU64::new(0), failures: Mutex::default(), done: AtomicBool::new(false) };
        let given = thread::scope(|scope| {
            for fresh in [false, false, false, true] {
                let load = &load;
                scope.spawn(move || load.run(client, to, fresh));
            }
            let given = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| meanwhile(&load)));
            load.done.store(true, Ordering::Relaxed);
            given
        });
        let failures = load.failures.into_inner().unwrap();
        let answered = load.answered.into_inner();
        let given = given.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        assert!(
            failures.is_empty(),
            "{} of {answered} requests failed, the first: {}",
            failures.len(),
            failures[0]
        );
        assert!(answered > 100, "only {answered} requests were made");
        given
    }

    fn run(&self, pod: &Pod, to: SocketAddr, fresh: bool) {
        let mut kept: Option<Client> = None;
        let begin = Instant::now();
        let mut odd = false;
        while !self.done.load(Ordering::Relaxed) {
            odd = !odd;
            let answer = match kept.take().map_or_else(|| pod.connect(to).map(Client::from), Ok) {
                Ok(mut client) => {
                    // What has a body cannot be sent again once that has gone.
                    let (method, body) = if odd { ("POST", "a body") } else { ("GET", "") };
                    client.try_request(method, "/", body).map(|answer| (client, answer))
                }
                Err(error) => Err(error),
            };
            match answer {
                Ok((client, answer)) if answer.head.status() == 200 => {
                    self.answered.fetch_add(1, Ordering::Relaxed);
                    let closes = answer.head.field("connection") == Some("close");
                    kept = Some(client).filter(|_| !fresh && !closes);
                }
                Ok((_, answer)) => self.fail(begin, format!("{:?} {}", answer.head, answer.text())),
                Err(error) => self.fail(begin, error.to_string()),
            }
            thread::sleep(Duration::from_millis(2));
        }
    }

    fn fail(&self, begin: Instant, what: String) {
        self.failures.lock().unwrap().push(format!("after {:?}: {what}", begin.elapsed()));
    }

    /// Waits until so many more requests have been answered.
    pub fn wait_for(&self, more: u64) {
        let goal = self.answered.load(Ordering::Relaxed) + more;
        eventually(2 * PATIENCE, || {
            let answered = self.answered.load(Ordering::Relaxed);
            let failures = self.failures.lock().unwrap();
            holds(answered >= goal, format!("{answered} answered, failures: {failures:?}"))
        });
    }
}
