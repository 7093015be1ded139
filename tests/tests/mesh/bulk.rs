//! Long bodies and slow readers: exact, in flat memory, and none at the cost of another.

use std::{
    io::{self, BufReader, BufWriter, Read, Write},
    net::TcpStream,
    sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    thread,
    time::{Duration, Instant},
};
use tests::{
    PATIENCE,
    app::{App, ok},
    eventually,
    grid::{Grid, Route},
    holds,
    http::{Client, read_head},
    manifest::Port,
    pattern,
    pod::Pod,
};

const PORT: u16 = 8080;
const MIB: u64 = 1024 * 1024;
/// How much a proxy's memory may grow, however much it carries.
const GROWTH: u64 = 20 * MIB;

/// Bytes of the longest bodies: `WEFT_TEST_BULK_BYTES`, or 1 GiB.
fn bulk_bytes() -> u64 {
    std::env::var("WEFT_TEST_BULK_BYTES").map_or(1024 * MIB, |text| text.parse().expect("a number of bytes"))
}

/// `PUT` checks its body against the pattern and says how long it was; `GET /N` gives N bytes of it.
fn carrier(pod: &Pod) -> App {
    App::tcp(pod, PORT, |stream| {
        let _ = carry(stream);
    })
}

fn carry(stream: TcpStream) -> io::Result<()> {
    let mut writer = BufWriter::with_capacity(64 * 1024, stream.try_clone()?);
    let mut reader = BufReader::with_capacity(64 * 1024, stream);
    while let Some(head) = read_head(&mut reader)? {
        if head.method() == "PUT" {
            let length = head.field("content-length").expect("it has one").parse().expect("a number");
            let got = pattern::check(&mut reader, length);
            writer.write_all(&ok(&format!("{got:?}")))?;
        } else {
            let length: u64 = head.target()[1..].parse().expect("a number");
            write!(writer, "HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n")?;
            pattern::write(&mut writer, length)?;
        }
        writer.flush()?;
    }
    Ok(())
}

fn upload(client: &mut Client, length: u64) {
    client.send(format!("PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: {length}\r\n\r\n"));
    pattern::write(&mut client.stream(), length).unwrap();
    assert_eq!(client.answer("PUT").text(), format!("Ok({length})"));
}

fn download(client: &mut Client, length: u64) {
    client.send(format!("GET /{length} HTTP/1.1\r\nHost: a\r\n\r\n"));
    assert_eq!(client.head().unwrap().status(), 200);
    assert_eq!(pattern::check(client.reader(), length).unwrap(), length);
}

/// Watches the memory of proxies while something runs: by how much each grew at most.
fn growth(pods: &[&Pod], run: impl FnOnce()) -> Vec<u64> {
    let before: Vec<u64> = pods.iter().map(|pod| pod.proxy().resident()).collect();
    let highest: Vec<AtomicU64> = before.iter().copied().map(AtomicU64::new).collect();
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        let watching = scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                for (pod, highest) in pods.iter().zip(&highest) {
                    highest.fetch_max(pod.proxy().resident(), Ordering::Relaxed);
                }
                thread::sleep(Duration::from_millis(20));
            }
        });
        let ran = std::panic::catch_unwind(std::panic::AssertUnwindSafe(run));
        done.store(true, Ordering::Relaxed);
        watching.join().unwrap();
        ran.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
    });
    before.iter().zip(highest).map(|(before, highest)| highest.into_inner() - before).collect()
}

#[test]
fn long_bodies_are_exact_in_flat_memory() {
    let grid = Grid::new(Port::auto(PORT));
    let _apps = grid.servers().map(carrier);
    let pods = [&grid.meshed_client, &grid.meshed_server];
    for (at, Route { name, client, address }) in grid.routes().enumerate() {
        let length = if at == 0 { bulk_bytes() } else { bulk_bytes() / 16 };
        let mut client = client.client(address);
        // What it takes to carry anything is not growth.
        upload(&mut client, 4 * MIB);
        download(&mut client, 4 * MIB);
        let grown = growth(&pods, || upload(&mut client, length));
        assert!(
            grown.iter().all(|grown| *grown < GROWTH),
            "{name}: grown by {grown:?} bytes while uploading"
        );
        let grown = growth(&pods, || download(&mut client, length));
        assert!(
            grown.iter().all(|grown| *grown < GROWTH),
            "{name}: grown by {grown:?} bytes while downloading"
        );
    }
}

#[test]
fn a_slow_reader_among_a_hundred_stalls_only_itself() {
    const READERS: usize = 99;
    const LENGTH: u64 = 4 * MIB;
    let grid = Grid::new(Port::auto(PORT));
    let _apps = grid.servers().map(carrier);
    let pods = [&grid.meshed_client, &grid.meshed_server];
    for Route { name, client: pod, address } in grid.routes().step_by(2) {
        download(&mut pod.client(address), LENGTH);
        let grown = growth(&pods, || {
            let mut slow = pod.client(address);
            slow.send(format!("GET /{} HTTP/1.1\r\nHost: a\r\n\r\n", 16 * LENGTH));
            slow.head().unwrap();
            let (done, begin) = (AtomicUsize::new(0), Instant::now());
            let mut read = vec![0; 0];
            thread::scope(|scope| {
                for _ in 0..READERS {
                    scope.spawn(|| {
                        download(&mut pod.client(address), LENGTH);
                        done.fetch_add(1, Ordering::Relaxed);
                    });
                }
                while done.load(Ordering::Relaxed) < READERS {
                    // 1 KiB a second.
                    let mut some = [0; 100];
                    slow.reader().read_exact(&mut some).unwrap();
                    read.extend(some);
                    thread::sleep(Duration::from_millis(100));
                    let waited = begin.elapsed();
                    assert!(waited < 3 * PATIENCE, "{name}: {done:?} of {READERS} are done after {waited:?}");
                }
            });
            // The slow one has lost nothing.
            let mut all = read.as_slice().chain(slow.reader());
            assert_eq!(pattern::check(&mut all, 16 * LENGTH).unwrap(), 16 * LENGTH, "{name}");
        });
        // Each stream's window is a bound: what waits for one slow reader is little.
        assert!(grown.iter().all(|grown| *grown < 4 * GROWTH), "{name}: grown by {grown:?} bytes");
    }
}

#[test]
fn a_slow_application_stalls_only_its_own_requests() {
    let grid = Grid::new(Port::auto(PORT));
    let _apps = grid.servers().map(|pod| {
        App::tcp(pod, PORT, |stream| {
            let mut reader = BufReader::new(stream.try_clone().unwrap());
            while let Ok(Some(head)) = read_head(&mut reader) {
                if head.target() == "/stuck" {
                    // Reads nothing until its client has gone.
                    thread::sleep(Duration::from_secs(4));
                    return;
                }
                (&stream).write_all(&ok("quick")).unwrap();
            }
        })
    });
    for Route { name, client: pod, address } in grid.meshed_routes() {
        let stuck: Vec<_> = (0..20)
            .map(|_| {
                let mut stuck = pod.client(address);
                stuck.send("PUT /stuck HTTP/1.1\r\nHost: a\r\nContent-Length: 100000000\r\n\r\n");
                stuck.stream().set_nonblocking(true).unwrap();
                stuck
            })
            .collect();
        // Fills whatever takes their bytes.
        let part = vec![b'x'; 64 * 1024];
        let full = |mut stream: &TcpStream| -> bool { stream.write(&part).is_err() };
        eventually(PATIENCE, || {
            thread::sleep(Duration::from_millis(50));
            holds(stuck.iter().all(|one| (0..64).any(|_| full(one.stream()))), "the uploads still flow")
        });
        let begin = Instant::now();
        let mut client = pod.client(address);
        for _ in 0..100 {
            assert_eq!(client.get("/").text(), "quick", "{name}");
        }
        let took = begin.elapsed();
        assert!(took < Duration::from_secs(2), "{name}: 100 requests beside stuck uploads took {took:?}");
    }
}
