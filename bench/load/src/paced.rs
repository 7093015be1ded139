//! A fixed rate of requests. A request whose turn came while its connection was still busy counts from its turn, so
//! that a stall is seen by all who would have waited in it (coordinated omission); the lateness of our own timer is
//! not counted.

use std::cell::RefCell;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};

use crate::exchange::{After, connect, get, request};
use crate::tally::Tally;

/// Time to connect before the first turn.
const LEAD: Duration = Duration::from_millis(100);

/// `rps` requests a second in all, spread evenly over `connections`, for `lasting`.
pub async fn run(to: SocketAddr, connections: usize, lasting: Duration, rps: f64) -> Tally {
    let tally = Rc::new(RefCell::new(Tally::default()));
    let begin = Instant::now() + LEAD;
    let gap = Duration::from_secs_f64(connections as f64 / rps);
    let mut tasks = JoinSet::new();
    for at in 0..connections {
        let tally = Rc::clone(&tally);
        let first = begin + gap.mul_f64(at as f64 / connections as f64);
        tasks.spawn_local(connection(to, first, gap, begin + lasting, tally));
    }
    tasks.join_all().await;
    tally.take().ended(begin.elapsed())
}

async fn connection(
    to: SocketAddr,
    mut turn: Instant,
    gap: Duration,
    end: Instant,
    tally: Rc<RefCell<Tally>>,
) {
    let request = request(to, After::Keep);
    let mut kept = connect(to).await.ok();
    while turn < end {
        let mut started = turn;
        if Instant::now() < turn {
            sleep_until(turn).await;
            started = Instant::now();
        }
        if once(&mut kept, to, &request).await.is_ok() {
            tally.borrow_mut().ok(started.elapsed());
        } else {
            tally.borrow_mut().failed();
            kept = None;
        }
        turn += gap;
    }
}

async fn once(kept: &mut Option<TcpStream>, to: SocketAddr, request: &[u8]) -> io::Result<()> {
    let stream = match kept {
        Some(stream) => stream,
        empty => empty.insert(connect(to).await?),
    };
    get(stream, request, After::Keep).await
}
