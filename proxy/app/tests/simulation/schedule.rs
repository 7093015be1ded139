//! What the transport does to connections, drawn from a seed: splits and stalls, and where it is hostile, kills.

use proxy_balance::Rng;
use proxy_transport::memory::{Schedule, Step};
use std::{
    cell::{Cell, RefCell},
    rc::Rc,
    time::Duration,
};

/// A world that asks more often runs in circles.
const MAX_STEPS: u64 = 3_000_000;

/// How rough the connections of one network are.
#[derive(Clone, Copy, Debug)]
pub struct Mood {
    /// Operations pass at most two to the power of less than this, in bytes.
    pub split: usize,
    pub stalls_per_million: usize,
    pub kills_per_million: usize,
    /// Exactly this operation is killed.
    pub kill_at: Option<u64>,
}

impl Mood {
    /// `tiny`: only for little traffic, as nearly every byte goes by itself.
    pub fn mild(rng: &mut Rng, tiny: bool) -> Self {
        let (split, stalls_per_million) = match (tiny, rng.below(4)) {
            (true, _) => (6, 1_000),
            (false, 0) => (20, 0),
            (false, _) => (18, 30_000),
        };
        Self { split, stalls_per_million, kills_per_million: 0, kill_at: None }
    }

    pub fn hostile(rng: &mut Rng, tiny: bool) -> Self {
        let mood = Self::mild(rng, tiny);
        match rng.below(3) {
            0 => mood,
            1 => Self { kills_per_million: [200, 1_000, 5_000, 30_000][rng.below(4)], ..mood },
            _ => {
                let magnitude = 1 << (1 + rng.below(if tiny { 13 } else { 10 }));
                Self { kill_at: Some(rng.below(magnitude) as u64), ..mood }
            }
        }
    }
}

/// The schedule of one network, or of one connection.
#[derive(Default)]
pub struct Told {
    steps: Cell<u64>,
    killed: Cell<bool>,
    /// A hash of all that was said.
    trace: Cell<u64>,
}

impl Told {
    pub fn killed(&self) -> bool {
        self.killed.get()
    }

    pub fn trace(&self) -> u64 {
        self.trace.get()
    }
}

pub fn schedule(mut rng: Rng, mood: Mood) -> (Schedule, Rc<Told>) {
    let told = Rc::new(Told::default());
    let rng = RefCell::new(Rng::new(rng.bits()));
    let schedule = {
        let told = told.clone();
        move || {
            let number = told.steps.replace(told.steps.get() + 1);
            assert!(number < MAX_STEPS, "it runs in circles");
            let step = step(&mut rng.borrow_mut(), mood, number);
            if step == Step::Kill {
                told.killed.set(true);
            }
            let said = match step {
                Step::Pass(bytes) => bytes as u64,
                Step::Stall(time) => time.as_micros() as u64 | 1 << 40,
                Step::Kill => 1 << 41,
            };
            told.trace.set((told.trace.get() ^ said).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(23));
            step
        }
    };
    (Rc::new(schedule), told)
}

fn step(rng: &mut Rng, mood: Mood, number: u64) -> Step {
    let drawn = rng.below(1_000_000);
    if mood.kill_at == Some(number) || drawn < mood.kills_per_million {
        return Step::Kill;
    }
    if drawn < mood.kills_per_million + mood.stalls_per_million {
        let longest = if rng.below(50) == 0 { 1_000_000 } else { 40_000 };
        return Step::Stall(Duration::from_micros(rng.below(longest) as u64));
    }
    let most = 1 << rng.below(mood.split);
    Step::Pass(1 + rng.below(most))
}
