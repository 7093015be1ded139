//! Which answer tells of which change. What proxies must be told of one subject is kept as a history of checksums; an answer
//! is looked up there, and every change between the last answer and this one has then arrived, coalesced or not.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

/// What an answer is about, by the number of a Service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Subject {
    Outbound(usize),
    Endpoints(usize),
    Inbound(usize),
}

/// All truths, and what each proxy heard of them.
#[derive(Default)]
pub struct Ledger(Mutex<Inner>);

#[derive(Default)]
struct Inner {
    histories: HashMap<Subject, Vec<Truth>>,
    streams: Vec<Stream>,
    arrivals: Vec<Duration>,
}

struct Truth {
    checksum: u64,
    since: Instant,
}

/// One watch of one proxy.
struct Stream {
    proxy: usize,
    subject: Subject,
    /// The last truth that it holds; `None`: it has not been answered, or not with any of the truths.
    at: Option<usize>,
    tally: Tally,
}

/// What came over some watches since the last `reset`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Answers, and the bytes in them.
    pub answers: u64,
    pub bytes: u64,
    /// Answers that are none of the truths: control has heard of a part of a change.
    pub partial: u64,
    /// Answers that say what was said before.
    pub repeated: u64,
}

/// Which watch an answer came over.
#[derive(Clone, Copy, Debug)]
pub struct StreamId(usize);

impl Ledger {
    /// From now on this is the truth. Nothing happens when it already is.
    pub fn set(&self, subject: Subject, checksum: u64, since: Instant) {
        let mut inner = self.lock();
        let history = inner.histories.entry(subject).or_default();
        if history.last().is_none_or(|truth| truth.checksum != checksum) {
            history.push(Truth { checksum, since });
        }
    }

    /// A watch begins.
    pub fn open(&self, proxy: usize, subject: Subject) -> StreamId {
        let mut inner = self.lock();
        inner.streams.push(Stream { proxy, subject, at: None, tally: Tally::default() });
        StreamId(inner.streams.len() - 1)
    }

    /// An answer came.
    pub fn took(&self, stream: StreamId, checksum: u64, bytes: usize, now: Instant) {
        let inner = &mut *self.lock();
        let stream = &mut inner.streams[stream.0];
        stream.tally.answers += 1;
        stream.tally.bytes += bytes as u64;
        let history = inner.histories.get(&stream.subject).map(Vec::as_slice).unwrap_or_default();
        let first = stream.at.unwrap_or_default();
        // The latest one that fits: a Service may come back to what it was.
        let fits = history.iter().rposition(|truth| truth.checksum == checksum).filter(|at| *at >= first);
        match (fits, stream.at) {
            (None, _) => stream.tally.partial += 1,
            (Some(at), Some(before)) if at == before => stream.tally.repeated += 1,
            (Some(at), before) => {
                if let Some(before) = before {
                    let told = &history[before + 1..=at];
                    inner.arrivals.extend(told.iter().map(|truth| now.duration_since(truth.since)));
                }
                stream.at = Some(at);
            }
        }
    }

    /// What the watches are about that do not hold the truth of now.
    pub fn behind(&self) -> Vec<Subject> {
        let inner = self.lock();
        // By what is said, not by when: what came back to what it was before it was told is no news.
        let differs = |stream: &&Stream| {
            let history = inner.histories.get(&stream.subject).map(Vec::as_slice).unwrap_or_default();
            let held = stream.at.and_then(|at| history.get(at)).map(|truth| truth.checksum);
            held.is_none() || held != history.last().map(|truth| truth.checksum)
        };
        inner.streams.iter().filter(differs).map(|stream| stream.subject).collect()
    }

    /// Forgets what was counted, not what is held.
    pub fn reset(&self) {
        let mut inner = self.lock();
        inner.arrivals.clear();
        inner.streams.iter_mut().for_each(|stream| stream.tally = Tally::default());
    }

    /// How long each change took to each watch, in order.
    pub fn arrivals(&self) -> Vec<Duration> {
        let mut arrivals = self.lock().arrivals.clone();
        arrivals.sort_unstable();
        arrivals
    }

    /// What each of so many proxies was told.
    pub fn tallies(&self, proxies: usize) -> Vec<Tally> {
        let mut tallies = vec![Tally::default(); proxies];
        for stream in &self.lock().streams {
            tallies[stream.proxy] += stream.tally;
        }
        tallies
    }

    /// For each watch of a proxy, what it is about, the changes there since it was opened or `since`, and what came.
    pub fn streams(&self, since: Instant) -> Vec<(Subject, usize, Tally)> {
        let inner = self.lock();
        let changes = |subject: &Subject| {
            let history = inner.histories.get(subject).into_iter().flatten();
            history.filter(|truth| truth.since >= since).count()
        };
        inner.streams.iter().map(|one| (one.subject, changes(&one.subject), one.tally)).collect()
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl std::ops::AddAssign for Tally {
    fn add_assign(&mut self, other: Self) {
        self.answers += other.answers;
        self.bytes += other.bytes;
        self.partial += other.partial;
        self.repeated += other.repeated;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CART: Subject = Subject::Endpoints(0);

    #[test]
    fn an_answer_tells_of_all_changes_up_to_it() {
        let (ledger, start) = (Ledger::default(), Instant::now());
        let at = |seconds| start + Duration::from_secs(seconds);
        ledger.set(CART, 1, at(0));
        let stream = ledger.open(0, CART);
        assert_eq!(ledger.behind().len(), 1, "it was not answered");
        ledger.took(stream, 1, 10, at(1));
        assert_eq!((ledger.behind().len(), ledger.arrivals()), (0, vec![]), "the first answer is no change");
        ledger.set(CART, 2, at(2));
        ledger.set(CART, 2, at(3));
        ledger.set(CART, 3, at(4));
        assert_eq!(ledger.behind().len(), 1);
        ledger.took(stream, 3, 10, at(7));
        assert_eq!(ledger.arrivals(), [3, 5].map(Duration::from_secs));
        ledger.set(CART, 1, at(8));
        ledger.took(stream, 1, 10, at(9));
        assert_eq!(
            (ledger.behind().len(), ledger.arrivals().len()),
            (0, 3),
            "what was the truth once is so again"
        );
        assert_eq!(ledger.tallies(1), [Tally { answers: 3, bytes: 30, ..Tally::default() }]);
        assert_eq!(ledger.streams(at(2))[0].1, 3);
        ledger.set(CART, 4, at(10));
        ledger.set(CART, 1, at(11));
        assert_eq!(ledger.behind().len(), 0, "it changed back before it was told");
    }

    #[test]
    fn what_is_no_truth_or_none_any_more_is_counted_apart() {
        let (ledger, now) = (Ledger::default(), Instant::now());
        ledger.set(CART, 1, now);
        ledger.set(CART, 2, now);
        let stream = ledger.open(0, CART);
        for checksum in [2, 7, 2, 1] {
            ledger.took(stream, checksum, 1, now);
        }
        let tally = Tally { answers: 4, bytes: 4, partial: 2, repeated: 1 };
        assert_eq!((ledger.behind().len(), ledger.tallies(1)), (0, vec![tally]));
    }
}
