//! Pools and local addresses on paused time, over a network without a kernel.

use super::*;
use proxy_transport::memory::{Memory, MemoryNetwork, Step};
use std::rc::Rc;
use tokio::{sync::mpsc::UnboundedReceiver, time::sleep};

const WAIT: Duration = Duration::from_secs(1);

struct Server {
    plain: Plain,
    accepts: UnboundedReceiver<Memory>,
}

impl Server {
    fn new() -> Self {
        let network = network();
        let address = SocketAddr::from(([10, 0, 0, 1], 80));
        let accepts = network.listen(address);
        Self { plain: Plain::new(Network::Memory(network), address), accepts }
    }

    /// Takes a connection and gives it back; its server's end, if it was a new one.
    async fn serve(&mut self, repeat: Repeat) -> Option<Memory> {
        let taken = self.plain.take(WAIT, repeat).await.unwrap();
        let accepted = self.accepts.try_recv().ok();
        assert_eq!(taken.reused, accepted.is_none());
        self.plain.give_back(taken.connection);
        accepted
    }
}

fn network() -> MemoryNetwork {
    MemoryNetwork::new(Rc::new(|| Step::Pass(usize::MAX)))
}

async fn pass(seconds: f64) {
    sleep(Duration::from_secs_f64(seconds)).await;
}

#[tokio::test(start_paused = true)]
async fn an_unknown_server_gets_what_cannot_be_repeated_over_young_connections() {
    let mut server = Server::new();
    let _first = server.serve(Repeat::Impossible).await.expect("there was none");
    pass(0.9).await;
    assert!(server.serve(Repeat::Impossible).await.is_none());
    pass(1.1).await;
    let _second = server.serve(Repeat::Impossible).await.expect("the other has been idle for too long");
    pass(44.0).await;
    assert!(server.serve(Repeat::Possible).await.is_none());
    pass(45.1).await;
    assert!(server.serve(Repeat::Possible).await.is_some());
}

#[tokio::test(start_paused = true)]
async fn a_server_that_closes_is_kept_ahead_of() {
    for found_by_sweep in [true, false] {
        let mut server = Server::new();
        let first = server.serve(Repeat::Possible).await.unwrap();
        pass(5.0).await;
        drop(first);
        // Found much later; what counts is when it was closed.
        pass(6.0).await;
        if found_by_sweep {
            server.plain.sweep(Instant::now());
        }
        let _second = server.serve(Repeat::Possible).await.expect("the first one was closed");
        for repeat in [Repeat::Possible, Repeat::Impossible] {
            pass(3.9).await;
            assert!(server.serve(repeat).await.is_none(), "{repeat:?}, {found_by_sweep}");
        }
        pass(4.1).await;
        let third = server.serve(Repeat::Possible).await;
        assert!(third.is_some(), "the second is open and may close at any time, {found_by_sweep}");
        // But it does not close: then neither was the first closed for its age.
        pass(3.0).await;
        server.plain.sweep(Instant::now());
        pass(20.0).await;
        assert!(server.serve(Repeat::Possible).await.is_none(), "{found_by_sweep}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_message_that_was_lost_to_a_closing_server_tells_its_idle_age() {
    let reset = Failed::new(Reason::ConnectionTerminated, "closed before a response came");
    let incomplete = Failed::new(Reason::HttpResponseIncomplete, "closed in the head");
    // What the message met, after how long, and whether the idle age is known then.
    for (failed, after, learns) in [
        (reset.clone(), 0.0, true),
        (reset.clone(), 3.0, false),
        (reset.answered(), 0.0, false),
        (incomplete, 0.0, false),
    ] {
        let mut server = Server::new();
        let _first = server.serve(Repeat::Possible).await.unwrap();
        let _second = server.plain.connect_plain(WAIT).await.unwrap();
        pass(10.0).await;
        let taken = server.plain.take(WAIT, Repeat::Possible).await.unwrap();
        assert!(taken.reused);
        pass(after).await;
        server.plain.lost(&taken, &failed);
        server.plain.give_back(taken.connection);
        pass(9.0).await;
        let again = server.plain.take(WAIT, Repeat::Possible).await.unwrap();
        assert_eq!(again.reused, !learns, "{failed:?} after {after} s");
    }
}

#[tokio::test(start_paused = true)]
async fn the_pool_is_bounded_and_keeps_the_youngest() {
    let mut server = Server::new();
    let mut taken = Vec::new();
    for _ in 0..limits::IDLE_CONNECTIONS_PER_ADDRESS + 1 {
        taken.push(server.plain.take(WAIT, Repeat::Possible).await.unwrap().connection);
    }
    let mut accepted = std::iter::from_fn(|| server.accepts.try_recv().ok()).collect::<Vec<_>>();
    taken.into_iter().for_each(|connection| server.plain.give_back(connection));
    // The one given back first has gone, and no other.
    let closed = |memory: Memory| poll_closed(Connection::new(Stream::from(memory), BytesMut::new()));
    let last = accepted.pop().expect("there are many");
    assert!(closed(accepted.swap_remove(0)).await);
    assert!(!closed(last).await);
    assert_eq!(server.plain.idle.borrow().len(), limits::IDLE_CONNECTIONS_PER_ADDRESS);
}

async fn poll_closed(connection: Connection) -> bool {
    poll_fn(|cx| Poll::Ready(!is_open(&connection, cx))).await
}

#[tokio::test(start_paused = true)]
async fn the_local_application_is_found_wherever_it_listens() {
    let address = |ip: &str| SocketAddr::new(ip.parse().unwrap(), 80);
    let [pod4, pod6, loop4, loop6] = ["10.0.0.1", "fd00::1", "127.0.0.1", "::1"].map(address);
    // Dialled, where the application listens, and where it is reached.
    let table: &[(SocketAddr, &[SocketAddr], Option<SocketAddr>)] = &[
        (pod4, &[pod4, loop4, loop6], Some(pod4)),
        (pod4, &[loop4, loop6], Some(loop4)),
        (pod4, &[loop6], Some(loop6)),
        (pod6, &[loop4, loop6], Some(loop6)),
        (pod6, &[loop4], Some(loop4)),
        (loop4, &[loop6], Some(loop6)),
        (pod4, &[], None),
        (pod6, &[pod4], None),
    ];
    for (dialled, listening, reached) in table {
        let network = network();
        let mut accepts: Vec<_> = listening.iter().map(|at| (*at, network.listen(*at))).collect();
        let plain = Plain::local(Network::Memory(network.clone()), *dialled);
        // The second time, what was learned by the first is tried first.
        for _ in 0..2 {
            let connected = plain.connect_plain(WAIT).await;
            let at = accepts.iter_mut().find_map(|(at, accepts)| accepts.try_recv().ok().map(|_| *at));
            assert_eq!(at, *reached, "{dialled}, {listening:?}");
            let reason = connected.err().map(|failed| failed.reason);
            assert_eq!(reason, reached.is_none().then_some(Reason::ConnectionRefused), "{dialled}");
        }
        // It moves, and is found again.
        drop(accepts);
        let mut moved = network.listen(*dialled);
        plain.connect_plain(WAIT).await.unwrap();
        assert!(moved.try_recv().is_ok(), "{dialled}, {listening:?}");
    }
}
