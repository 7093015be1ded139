//! The conversation with control about one question: put, answered, put again whenever something ends it.
//! How an answer is read is `question`'s matter, and when it takes effect `intake`'s.

use super::{
    Inner,
    intake::{Change, Effect, Intake},
    question::{Kind, Question},
    watched::Watched,
};
use crate::control::{Backoff, Connection, Control};
use policy::{WorkloadName, limits::EMPTIED_GRACE};
use std::{
    error::Error,
    sync::{Arc, atomic::Ordering::Relaxed},
    time::Duration,
};
use tokio::time::{Instant, sleep, sleep_until, timeout, timeout_at};
use tonic::{Code, Status};

/// Wait for control to accept a question.
const ASK_WAIT: Duration = Duration::from_secs(10);
/// Silence of a watch after which it is asked anew: control sends a heartbeat each 20 s, and one may be lost.
const SILENCE: Duration = Duration::from_secs(45);

/// Keeps one question asked.
pub(super) struct Follower<Q: Question> {
    question: Q,
    watched: Arc<Watched<Q::Answer>>,
    control: Control,
    workload: WorkloadName,
    inner: Arc<Inner>,
    intake: Intake,
    pending: Option<Pending<Q::Answer>>,
    /// The warnings that this question has been worth already; they are told once until control does better.
    warned: Warned,
}

#[derive(Default)]
struct Warned {
    nonsense: bool,
    doubted: bool,
    paced: bool,
}

/// An answer that does not take effect yet.
struct Pending<T> {
    answer: T,
    instance: u64,
    due: Instant,
    withheld: bool,
}

/// Why a conversation about a question ended; the question is then put again.
#[derive(Debug, thiserror::Error)]
enum End {
    #[error("control refused the question: {0}")]
    Refused(Status),
    #[error("the stream broke: {0}")]
    Broken(Status),
    #[error("control ended the stream")]
    Ended,
    #[error("control was silent for too long")]
    Silent,
    #[error("an update was lost: control holds another version")]
    Lost,
}

impl<Q: Question> Follower<Q> {
    pub fn new(
        question: Q,
        watched: Arc<Watched<Q::Answer>>,
        control: Control,
        workload: WorkloadName,
        inner: Arc<Inner>,
    ) -> Self {
        let (intake, warned) = (Intake::default(), Warned::default());
        Self { question, watched, control, workload, inner, intake, pending: None, warned }
    }

    pub async fn run(mut self) {
        let mut backoff = Backoff::default();
        let mut failures = 0_u32;
        loop {
            let connection = self
                .control
                .up(|| {
                    failures = 0;
                    self.watched.unreachable();
                })
                .await;
            // The first failure may be an old connection's; after a second one nobody shall wait for an answer.
            if failures < 2 {
                self.watched.ask();
            } else {
                self.watched.unreachable();
            }
            let since = Instant::now();
            let end = self.converse(connection).await;
            // What was withheld must be insisted on.
            match self.pending.take() {
                Some(pending) if !pending.withheld => self.take(pending),
                _ => self.watched.doubt(false),
            }
            match &end {
                // A control that goes says so.
                End::Refused(status) if status.code() == Code::Unavailable => self.debug(&end),
                // Once in a row of failures: the first may be no more than control going down.
                End::Refused(_) | End::Broken(_) if failures == 1 => {
                    tracing::warn!("control: {}: {end}; what was known stays", self.question);
                }
                _ => self.debug(&end),
            }
            if since.elapsed() >= Backoff::LONGEST {
                (backoff, failures) = (Backoff::default(), 0);
            } else {
                failures += 1;
            }
            sleep(backoff.pause()).await;
        }
    }

    fn debug(&self, end: &End) {
        tracing::debug!("control: {}: {end}; asking again", self.question);
    }

    /// Puts the question and takes answers until something ends it.
    async fn converse(&mut self, connection: Connection) -> End {
        self.inner.counters.asked.fetch_add(1, Relaxed);
        let mut updates = match timeout(ASK_WAIT, self.question.ask(connection, &self.workload)).await {
            Err(_) => return End::Silent,
            Ok(Err(status)) => return End::Refused(status),
            Ok(Ok(updates)) => updates,
        };
        // The last content of this stream, whether it is in effect or not.
        let mut held = None;
        let mut heard = Instant::now();
        self.warned.paced = false;
        loop {
            let due = self.pending.as_ref().map(|pending| pending.due);
            let update = tokio::select! {
                update = timeout_at(heard + SILENCE, updates.message()) => update,
                () = sleep_until(due.unwrap_or(heard)), if due.is_some() => {
                    if let Some(pending) = self.pending.take() {
                        self.take(pending);
                    }
                    continue;
                }
            };
            let update = match update {
                Err(_) => return End::Silent,
                Ok(Err(status)) => {
                    self.inner.counters.rejected.fetch_add(u64::from(is_unreadable(&status)), Relaxed);
                    return End::Broken(status);
                }
                Ok(Ok(None)) => return End::Ended,
                Ok(Ok(Some(update))) => update,
            };
            heard = Instant::now();
            let word = self.question.read(&update);
            match word.kind {
                Kind::Content { answer, checksum } => {
                    tracing::debug!("control: {}: version {}", self.question, word.version);
                    held = Some(checksum);
                    self.weigh(answer, word.instance);
                }
                Kind::Nonsense(why) => self.reject(&why),
                Kind::Heartbeat { checksum } if held == Some(checksum) => {
                    if self.pending.is_none() {
                        self.watched.confirm();
                    }
                }
                Kind::Heartbeat { .. } => return End::Lost,
            }
        }
    }

    /// Takes an answer, or keeps it for later.
    fn weigh(&mut self, answer: Q::Answer, instance: u64) {
        let now = Instant::now();
        let counters = &self.inner.counters;
        let (due, withheld) = match self.intake.weigh(instance, self.change(&answer), now) {
            Effect::AtOnce => {
                self.pending = None;
                return self.take(Pending { answer, instance, due: now, withheld: false });
            }
            Effect::Withheld(due) => {
                counters.withheld.fetch_add(1, Relaxed);
                self.watched.doubt(true);
                if !std::mem::replace(&mut self.warned.doubted, true) {
                    tracing::warn!(
                        "control: {}: another run of control says that there is nothing; what was known stays for {} s",
                        self.question,
                        EMPTIED_GRACE.as_secs()
                    );
                }
                (due, true)
            }
            Effect::Paced(due) => {
                counters.paced.fetch_add(1, Relaxed);
                self.watched.doubt(false);
                if !std::mem::replace(&mut self.warned.paced, true) {
                    tracing::warn!(
                        "control: {}: the answer changes too often; not each is taken",
                        self.question
                    );
                }
                (due, false)
            }
        };
        self.pending = Some(Pending { answer, instance, due, withheld });
    }

    /// The answer takes effect.
    fn take(&mut self, Pending { answer, instance, .. }: Pending<Q::Answer>) {
        let change = self.change(&answer);
        self.intake.taken(instance, change, Instant::now());
        if std::mem::take(&mut self.warned.doubted) {
            tracing::info!("control: {}: control is believed again", self.question);
        }
        self.warned.nonsense = false;
        self.watched.doubt(false);
        if self.watched.store(answer) {
            self.inner.counters.updates.fetch_add(1, Relaxed);
        }
    }

    fn reject(&mut self, why: &str) {
        self.inner.counters.rejected.fetch_add(1, Relaxed);
        let says = format_args!(
            "control: {}: the answer means nothing ({why}); what was known stays",
            self.question
        );
        match std::mem::replace(&mut self.warned.nonsense, true) {
            false => tracing::warn!("{says}"),
            true => tracing::debug!("{says}"),
        }
    }

    /// What an answer would change.
    fn change(&self, answer: &Q::Answer) -> Change {
        match self.watched.latest() {
            Some(held) if *held == *answer => Change::None,
            Some(held) if Q::is_nothing(answer) && !Q::is_nothing(&held) => Change::Emptied,
            Some(_) => Change::News,
            None => Change::None,
        }
    }
}

/// A message too large or malformed, as the decoder here found, rather than control or the connection.
fn is_unreadable(status: &Status) -> bool {
    matches!(status.code(), Code::OutOfRange | Code::Internal) && status.source().is_none()
}
