//! Half-closed tunnels on paused time.

use super::*;
use crate::connection::Connection;
use bytes::BytesMut;
use proxy_transport::{
    Stream,
    memory::{Step, pair},
};
use std::{net::SocketAddr, rc::Rc, time::Duration};
use tokio::time::{Instant, sleep};

fn connections() -> [Connection; 2] {
    let address = SocketAddr::from(([10, 0, 0, 1], 80));
    let (near, far) = pair(address, address, &(Rc::new(|| Step::Pass(usize::MAX)) as Rc<_>));
    [near, far].map(|memory| Connection::new(Stream::from(memory), BytesMut::new()))
}

async fn write(connection: &mut Connection, bytes: &[u8]) {
    connection.writer.encode(|out| out.extend_from_slice(bytes));
    poll_fn(|cx| connection.writer.poll_flush(cx)).await.unwrap();
}

/// Runs a tunnel whose client has ended its direction; the server then does what `server` does. How long the tunnel lived
/// after that, and how it ended.
async fn half_closed<F: Future<Output = ()>>(
    server: impl FnOnce(Connection) -> F,
) -> (Duration, Result<(), Reason>) {
    let ([client, mut near], [mut hop, far]) = (connections(), connections());
    client.stream().shutdown_write();
    let begin = Instant::now();
    let (sent, received) = (Meter::default(), Meter::default());
    let (up, down) = (
        (Source::raw(&mut near.reader), Sink::Raw { writer: &mut hop.writer }),
        (Source::raw(&mut hop.reader), Sink::Raw { writer: &mut near.writer }),
    );
    let carried = async {
        let ended = tunnel(up, down, &sent, &received, Bounds::NONE).await;
        (begin.elapsed(), ended.map_err(|failed| failed.reason))
    };
    let (carried, ()) = tokio::join!(carried, server(far));
    drop(client);
    carried
}

#[tokio::test(start_paused = true)]
async fn a_half_closed_tunnel_in_which_nothing_moves_is_ended() {
    let silent = half_closed(|far| async move {
        sleep(4 * HALF_CLOSED_IDLE).await;
        drop(far);
    });
    assert_eq!(silent.await, (HALF_CLOSED_IDLE, Err(Reason::ConnectionTerminated)));
}

#[tokio::test(start_paused = true)]
async fn a_half_closed_tunnel_in_which_something_moves_lives_on() {
    let pause = HALF_CLOSED_IDLE - Duration::from_secs(10);
    let (lived, ended) = half_closed(|mut far| async move {
        for _ in 0..10 {
            sleep(pause).await;
            write(&mut far, b"still here").await;
        }
        sleep(pause).await;
    })
    .await;
    assert_eq!((lived, ended), (pause * 11, Ok(())));
}
