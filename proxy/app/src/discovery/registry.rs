//! What is watched, of one kind: each question once, bounded, the longest unused dropped first.

use super::{
    question::Question,
    watched::{Progress, Watched, milliseconds},
};
use policy::limits::WATCH_IDLE;
use serde_json::{Value, json};
use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};
use tokio::{task::AbortHandle, time::Instant};

pub(super) struct Registry<Q: Question> {
    epoch: Instant,
    limit: usize,
    watches: Mutex<HashMap<Q, Entry<Q::Answer>>>,
}

struct Entry<T> {
    watched: Arc<Watched<T>>,
    task: Option<AbortHandle>,
}

impl<Q: Question> Registry<Q> {
    /// Of `limit` watches at most.
    pub fn new(epoch: Instant, limit: usize) -> Self {
        Self { epoch, limit, watches: Mutex::default() }
    }

    /// The watch of `question`; a new one stands at `progress`, and `start` begins to follow it. Whether one had to go
    /// for it stands beside.
    pub fn watch(
        &self,
        question: Q,
        progress: Progress,
        start: impl FnOnce(Q, Arc<Watched<Q::Answer>>) -> Option<AbortHandle>,
    ) -> (Arc<Watched<Q::Answer>>, bool) {
        let mut watches = self.lock();
        if let Some(entry) = watches.get(&question) {
            entry.watched.touch();
            return (Arc::clone(&entry.watched), false);
        }
        let evicted = watches.len() >= self.limit;
        if evicted {
            let longest_unused = watches
                .iter()
                .min_by_key(|(_, entry)| (entry.is_held(), entry.watched.used()))
                .map(|(question, _)| question.clone());
            if let Some(entry) = longest_unused.and_then(|question| watches.remove(&question)) {
                entry.end();
            }
        }
        let watched = Arc::new(Watched::new(self.epoch, progress));
        let task = start(question.clone(), Arc::clone(&watched));
        watches.insert(question, Entry { watched: Arc::clone(&watched), task });
        (watched, evicted)
    }

    /// The last answer to `question`, if it is watched. That somebody looks does not count as a use.
    pub fn held(&self, question: &Q) -> Option<Arc<Q::Answer>> {
        self.lock().get(question)?.watched.latest()
    }

    /// Drops what nobody holds and nobody has asked for in `WATCH_IDLE`.
    pub fn retire(&self) {
        let now = milliseconds(self.epoch);
        let idle = u64::try_from(WATCH_IDLE.as_millis()).unwrap_or(u64::MAX);
        self.lock().retain(|_, entry| {
            if entry.is_held() {
                entry.watched.touch();
            }
            let keep = now.saturating_sub(entry.watched.used()) <= idle;
            if !keep {
                entry.end();
            }
            keep
        });
    }

    pub fn len(&self) -> usize {
        self.lock().len()
    }

    /// How many keep what was known although control says that there is nothing.
    pub fn doubted(&self) -> usize {
        self.lock().values().filter(|entry| entry.watched.is_doubted()).count()
    }

    /// The age of what was longest not confirmed.
    pub fn oldest(&self) -> Option<std::time::Duration> {
        self.lock().values().filter_map(|entry| entry.watched.age()).max()
    }

    /// Each answered question with the time since its answer was confirmed.
    pub fn ages(&self) -> Vec<(Q, std::time::Duration)> {
        let watches = self.lock();
        watches
            .iter()
            .filter_map(|(question, entry)| Some((question.clone(), entry.watched.age()?)))
            .collect()
    }

    /// For people: each question with its answer, version and age, in order of the questions' text.
    pub fn describe(&self) -> Value {
        let mut all: Vec<_> = self
            .lock()
            .iter()
            .map(|(question, Entry { watched, .. })| {
                let age = watched.age().map(|age| age.as_secs());
                let answer = watched.latest().map(|answer| Q::describe(&answer));
                let mut described = json!({ "version": watched.version(), "age_s": age, "answer": answer });
                if watched.is_doubted() {
                    described["doubted"] =
                        "control says that there is nothing; it is not believed yet".into();
                }
                (question.to_string(), described)
            })
            .collect();
        all.sort_by(|(one, _), (other, _)| one.cmp(other));
        Value::Object(all.into_iter().collect())
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Q, Entry<Q::Answer>>> {
        self.watches.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T> Entry<T> {
    /// By others than the registry and the task.
    fn is_held(&self) -> bool {
        Arc::strong_count(&self.watched) > 1 + usize::from(self.task.is_some())
    }

    fn end(&self) {
        self.watched.close();
        if let Some(task) = &self.task {
            task.abort();
        }
    }
}
