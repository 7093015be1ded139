//! Connections that did one GET each and then rest: what they cost is memory.

use std::cell::RefCell;
use std::net::SocketAddr;
use std::rc::Rc;

use tokio::net::TcpStream;
use tokio::task::JoinSet;

use crate::exchange::{After, connect, get, request};

/// How many are opened at a time.
const AT_A_TIME: usize = 32;

/// Connections at rest. They close when it is dropped.
#[derive(Debug, Default)]
pub struct Held {
    /// Those that did their GET.
    pub open: Vec<TcpStream>,
    /// How many did not.
    pub failed: usize,
}

/// Opens `connections` of them.
pub async fn open(to: SocketAddr, connections: usize) -> Held {
    let held = Rc::new(RefCell::new(Held::default()));
    let mut tasks = JoinSet::new();
    for at in 0..AT_A_TIME {
        let held = Rc::clone(&held);
        let share = connections / AT_A_TIME + usize::from(at < connections % AT_A_TIME);
        tasks.spawn_local(async move {
            let request = request(to, After::Keep);
            for _ in 0..share {
                let opened = async {
                    let mut stream = connect(to).await?;
                    get(&mut stream, &request, After::Keep).await.map(|()| stream)
                };
                match opened.await {
                    Ok(stream) => held.borrow_mut().open.push(stream),
                    Err(_) => held.borrow_mut().failed += 1,
                }
            }
        });
    }
    tasks.join_all().await;
    held.take()
}
