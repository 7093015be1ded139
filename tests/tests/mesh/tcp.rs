//! TCP connections of any protocol: every byte, each side's end by itself, and resets as resets.

use socket2::SockRef;
use std::{
    io::{ErrorKind, Read, Write},
    net::{Shutdown, SocketAddr, TcpStream},
    sync::mpsc::{Receiver, channel},
    thread,
    time::Duration,
};
use tests::{
    PATIENCE,
    app::App,
    grid::{Grid, Route},
    manifest::Port,
    pattern,
};

const PORT: u16 = 9000;

/// Both servers run the same application; it tells the test what it has to say.
fn serve<T: Send + 'static>(
    port: Port,
    serve: impl Fn(TcpStream) -> T + Send + Sync + Clone + 'static,
) -> (Grid, [App; 2], Receiver<T>) {
    let grid = Grid::new(port);
    let (told, tells) = channel();
    let apps = grid.servers().map(|pod| {
        let (serve, told) = (serve.clone(), told.clone());
        App::tcp(pod, PORT, move |stream| {
            let _ = told.send(serve(stream));
        })
    });
    (grid, apps, tells)
}

fn reset(stream: TcpStream) {
    SockRef::from(&stream).set_linger(Some(Duration::ZERO)).unwrap();
}

#[test]
fn both_directions_at_once_are_exact() {
    const LENGTH: u64 = 20_000_000;
    let (grid, _apps, tells) = serve(Port::auto(PORT), |stream| {
        let mut writer = stream.try_clone().unwrap();
        let sending = thread::spawn(move || {
            pattern::write(&mut writer, LENGTH).and_then(|()| writer.shutdown(Shutdown::Write))
        });
        let got = pattern::check(&mut &stream, u64::MAX).map_err(|error| error.to_string());
        sending.join().unwrap().map_err(|error| error.to_string()).and(got)
    });
    for Route { name, client, address } in grid.routes() {
        let stream = client.connect(address).unwrap();
        let mut writer = stream.try_clone().unwrap();
        let sending = thread::spawn(move || {
            pattern::write(&mut writer, LENGTH).and_then(|()| writer.shutdown(Shutdown::Write))
        });
        assert_eq!(pattern::check(&mut &stream, u64::MAX).unwrap(), LENGTH, "{name}");
        sending.join().unwrap().unwrap();
        assert_eq!(tells.recv_timeout(PATIENCE).unwrap(), Ok(LENGTH), "{name}");
    }
}

#[test]
fn the_end_of_one_direction_leaves_the_other() {
    const LENGTH: u64 = 1_000_000;
    let (grid, _apps, tells) = serve(Port::auto(PORT), |mut stream| {
        let mut first = [0; 1];
        stream.read_exact(&mut first).unwrap();
        match first {
            // Answers only when the client has ended.
            [b'c'] => {
                let got = pattern::check(&mut stream, u64::MAX).unwrap();
                thread::sleep(Duration::from_millis(100));
                pattern::write(&mut stream, LENGTH).unwrap();
                got
            }
            // Ends first, and listens on.
            _ => {
                stream.write_all(b"bye").unwrap();
                stream.shutdown(Shutdown::Write).unwrap();
                pattern::check(&mut stream, u64::MAX).unwrap()
            }
        }
    });
    for Route { name, client, address } in grid.routes() {
        let mut stream = client.connect(address).unwrap();
        stream.write_all(b"c").unwrap();
        pattern::write(&mut stream, LENGTH).unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
        assert_eq!(pattern::check(&mut stream, u64::MAX).unwrap(), LENGTH, "{name}");
        assert_eq!(tells.recv_timeout(PATIENCE).unwrap(), LENGTH, "{name}");

        let mut stream = client.connect(address).unwrap();
        stream.write_all(b"s").unwrap();
        let mut said = Vec::new();
        stream.read_to_end(&mut said).unwrap();
        assert_eq!(said, b"bye", "{name}");
        thread::sleep(Duration::from_millis(100));
        pattern::write(&mut stream, LENGTH).unwrap();
        drop(stream);
        assert_eq!(tells.recv_timeout(PATIENCE).unwrap(), LENGTH, "{name}");
    }
}

/// What a reader found at the end of a connection.
fn ending(stream: &mut TcpStream) -> (u64, Option<ErrorKind>) {
    let (mut total, mut buffer) = (0, [0; 65_536]);
    loop {
        match stream.read(&mut buffer) {
            Ok(0) => return (total, None),
            Ok(count) => total += count as u64,
            Err(error) => return (total, Some(error.kind())),
        }
    }
}

#[test]
fn a_reset_arrives_as_one_and_after_all_that_came_before() {
    const LENGTH: u64 = 50_000;
    let (grid, _apps, tells) = serve(Port::auto(PORT), |mut stream| {
        let mut first = [0; 1];
        stream.read_exact(&mut first).unwrap();
        if first == *b"s" {
            pattern::write(&mut stream, LENGTH).unwrap();
            // The kernel forgets what it has not sent when it resets.
            thread::sleep(Duration::from_millis(200));
            reset(stream);
            (0, None)
        } else {
            stream.write_all(b"ready").unwrap();
            thread::sleep(Duration::from_millis(400));
            ending(&mut stream)
        }
    });
    let reset_after = |count| (count, Some(ErrorKind::ConnectionReset));
    for Route { name, client, address } in grid.routes().chain(grid.direct()) {
        let mut stream = client.connect(address).unwrap();
        stream.write_all(b"s").unwrap();
        tells.recv_timeout(PATIENCE).unwrap();
        thread::sleep(Duration::from_millis(100));
        assert_eq!(ending(&mut stream), reset_after(LENGTH), "{name}: from the server");

        let mut stream = client.connect(address).unwrap();
        stream.write_all(b"c").unwrap();
        stream.read_exact(&mut [0; 5]).unwrap();
        pattern::write(&mut stream, LENGTH).unwrap();
        thread::sleep(Duration::from_millis(200));
        reset(stream);
        assert_eq!(tells.recv_timeout(PATIENCE).unwrap(), reset_after(LENGTH), "{name}: from the client");
    }
}

#[test]
fn a_reset_of_a_silent_client_and_of_a_silent_server_arrive() {
    let (grid, _apps, tells) = serve(Port::auto(PORT), |mut stream| {
        let mut first = [0; 1];
        match stream.read(&mut first) {
            Ok(1) => {
                reset(stream);
                None
            }
            Ok(_) => Some(Ok(())),
            Err(error) => Some(Err(error.kind())),
        }
    });
    for Route { name, client, address } in grid.routes().chain(grid.direct()) {
        let mut stream = client.connect(address).unwrap();
        stream.write_all(b"?").unwrap();
        assert_eq!(tells.recv_timeout(PATIENCE).unwrap(), None);
        assert_eq!(ending(&mut stream), (0, Some(ErrorKind::ConnectionReset)), "{name}: from the server");

        // Silent for longer than a proxy waits before it connects to the server.
        let stream = client.connect(address).unwrap();
        thread::sleep(Duration::from_millis(300));
        reset(stream);
        let told = tells.recv_timeout(PATIENCE).unwrap_or_else(|_| panic!("{name}: the server sees no end"));
        assert_eq!(told, Some(Err(ErrorKind::ConnectionReset)), "{name}: from the client");
    }
}

#[test]
fn a_declared_protocol_is_believed() {
    let port = Port { app_protocol: Some("tcp"), ..Port::auto(PORT) };
    let (grid, _apps, tells) = serve(port, |mut stream| {
        let mut all = Vec::new();
        stream.read_to_end(&mut all).unwrap();
        stream.write_all(b"got it").unwrap();
        String::from_utf8(all).unwrap()
    });
    // It looks like HTTP, and would be refused if it were taken for it.
    let said = "GET / HTTP/1.1\nnot: HTTP at all\n";
    for Route { name, client, address } in grid.meshed_routes() {
        let mut stream = client.connect(address).unwrap();
        stream.write_all(said.as_bytes()).unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        assert_eq!(answer, "got it", "{name}");
        assert_eq!(tells.recv_timeout(PATIENCE).unwrap(), said, "{name}");
    }
}

#[test]
fn the_server_speaks_first() {
    let (grid, _apps, _tells) = serve(Port::auto(PORT), |mut stream| {
        stream.write_all(b"220 mail.test\r\n").unwrap();
        let mut asked = [0; 6];
        stream.read_exact(&mut asked).unwrap();
        stream.write_all(b"221 bye\r\n").unwrap();
    });
    for Route { name, client, address } in grid.routes() {
        for _ in 0..3 {
            let mut stream = client.connect(address).unwrap();
            let mut greeting = [0; 15];
            stream.read_exact(&mut greeting).unwrap_or_else(|error| panic!("{name}: {error}"));
            assert_eq!(&greeting, b"220 mail.test\r\n", "{name}");
            stream.write_all(b"QUIT\r\n").unwrap();
            let mut rest = Vec::new();
            stream.read_to_end(&mut rest).unwrap();
            assert_eq!(rest, b"221 bye\r\n", "{name}");
        }
    }
}

#[test]
fn traffic_to_the_world_outside_passes() {
    let grid = Grid::new(Port::auto(PORT));
    grid.world.bridge.ip("addr add 198.51.100.7/32 dev lo\naddr add 2001:db8::7/128 dev lo nodad");
    let listener = grid.world.bridge.listen(PORT);
    let outside = thread::spawn(move || {
        for stream in listener.incoming().take(2) {
            let mut stream = stream.unwrap();
            let mut head = [0; 18];
            stream.read_exact(&mut head).unwrap();
            assert_eq!(&head, b"GET / HTTP/1.1\r\nHo");
            stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\noutside").unwrap();
        }
    });
    for address in ["198.51.100.7", "2001:db8::7"] {
        let address = SocketAddr::new(address.parse().unwrap(), PORT);
        assert_eq!(grid.meshed_client.client(address).get("/").text(), "outside", "{address}");
    }
    outside.join().unwrap();
}
