//! Which endpoint gets the next request: the lighter of two that are drawn at random, by peak EWMA of latency and
//! the requests in flight. One [`Balancer`] belongs to one worker thread and is neither shared nor locked.
//!
//! A [`Budget`] says how many requests may be sent once more, and an [`Accrual`] when an endpoint fails too often to get any.
//!
//! Not here: connections and pools (`proxy-http`), discovery, when a request is sent once more, the reading of clocks:
//! `now` is an argument, and so is the [`Rng`].
//!
//! ```
//! use std::time::{Duration, Instant};
//! use proxy_balance::{Balancer, Outcome, Rng};
//!
//! # fn clock() -> Instant { Instant::now() }
//! let (mut rng, now) = (Rng::new(7), clock());
//! let mut balancer = Balancer::default();
//! balancer.update(["10.0.0.1:80", "10.0.0.2:80"].into_iter());
//!
//! let picked = balancer.pick(now, &mut rng, &[]).expect("there are two");
//! let mut request = picked.load.start(now);
//! request.answered(now + Duration::from_millis(3)); // the response's head
//! request.finish(now + Duration::from_millis(9), Outcome::Answered); // the end of its body
//! ```

mod balancer;
mod breaker;
mod budget;
mod load;
mod rng;

pub use balancer::{Balancer, NoChoice, Picked};
pub use breaker::{Accrual, Switched};
pub use budget::{Budget, BudgetLimits};
pub use load::{DECAY, InFlight, Load, MAX_PENALTY, MIN_PENALTY, Outcome, PENALTY_JITTER};
pub use rng::Rng;
