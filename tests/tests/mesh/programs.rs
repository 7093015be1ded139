//! Programs of the distribution, unmodified: nginx with curl and wrk, redis, mariadb, TLS of an application's own.

use std::{
    fs,
    io::{Read, Write},
    path::PathBuf,
    process::Command,
    time::{Duration, Instant},
};
use tests::{
    PATIENCE, eventually,
    grid::{Grid, Route},
    holds,
    manifest::Port,
    namespace::done,
    pod::Pod,
    program::Program,
};

const HTTP: u16 = 8080;

/// nginx that serves a page and a larger file, and logs what it sees.
struct Nginx {
    _program: Program,
    log: PathBuf,
}

impl Nginx {
    fn start(grid: &Grid, pod: &Pod) -> Self {
        let folder = grid.world.folder().join(format!("nginx-{}", pod.manifest.name));
        fs::create_dir(&folder).unwrap();
        fs::write(folder.join("index.html"), "hello\n").unwrap();
        fs::write(folder.join("large"), vec![b'x'; 1_000_000]).unwrap();
        let log = folder.join("access.log");
        let root = folder.display();
        let config = format!(
            "daemon off; worker_processes 1; user root; pid {root}/pid; error_log stderr;\n\
             events {{ worker_connections 256; }}\n\
             http {{ log_format seen '$http_host $request $status $body_bytes_sent'; access_log {root}/access.log seen;\n\
             client_body_temp_path {root}/body; proxy_temp_path {root}/proxy; fastcgi_temp_path {root}/fastcgi;\n\
             uwsgi_temp_path {root}/uwsgi; scgi_temp_path {root}/scgi;\n\
             server {{ listen {HTTP}; listen [::]:{HTTP}; root {root}; }} }}\n"
        );
        fs::write(folder.join("conf"), config).unwrap();
        let program = pod.start("nginx", ["-p", &root.to_string(), "-c", "conf"]);
        pod.wait_for_port(HTTP);
        Self { _program: program, log }
    }

    fn seen(&self) -> String {
        fs::read_to_string(&self.log).unwrap()
    }
}

#[test]
fn nginx_with_curl_and_wrk() {
    let grid = Grid::new(Port::auto(HTTP));
    let nginx = grid.servers().map(|pod| Nginx::start(&grid, pod));
    for (at, Route { name, client, address }) in grid.routes().enumerate() {
        let url = format!("http://{address}/large?way={at}");
        let got = client.done(
            "curl",
            ["-sS", "-f", "-H", "Host: web.test", "-o", "/dev/null", "-w", "%{size_download}", &url],
        );
        assert_eq!(got, "1000000", "{name}");
        let line = format!("web.test GET /large?way={at} HTTP/1.1 200 1000000\n");
        eventually(PATIENCE, || {
            let seen: String = nginx.iter().map(Nginx::seen).collect();
            holds(seen.contains(&line), format!("{name}: {line:?} is not in the log: {seen}"))
        });
        let report = client
            .done("wrk", ["-t1", "-c16", "-d1s", "-H", "Host: web.test", &format!("http://{address}/")]);
        assert!(!report.contains("Non-2xx") && !report.contains("Socket errors"), "{name}: {report}");
        let requests: u32 = report
            .lines()
            .find_map(|line| line.trim().split_once(" requests in ")?.0.parse().ok())
            .unwrap_or_else(|| panic!("{name}: {report}"));
        assert!(requests > 200, "{name}: {report}");
    }
    let peer = grid.meshed_client.identity();
    let labels = [("direction", "inbound"), ("identity", peer.as_str()), ("tls", "1.3"), ("class", "2xx")];
    let verified = grid.meshed_server.metrics().sum("weft_requests_total", &labels);
    assert!(verified > 400.0, "requests of the meshed client came by mTLS: {verified}");
}

#[test]
fn redis_client_is_silent_and_then_talks() {
    const REDIS: u16 = 6379;
    let grid = Grid::new(Port::auto(REDIS));
    let _redis = grid.servers().map(|pod| {
        let program = pod.start(
            "redis-server",
            [
                "--port",
                "6379",
                "--bind",
                "*",
                "-::*",
                "--protected-mode",
                "no",
                "--save",
                "",
                "--appendonly",
                "no",
            ],
        );
        pod.wait_for_port(REDIS);
        program
    });
    for Route { name, client, address } in grid.routes() {
        let (ip, port) = (address.ip().to_string(), address.port().to_string());
        let cli = |words: &[&str]| client.done("redis-cli", [&["-h", &ip, "-p", &port], words].concat());
        assert_eq!(cli(&["SET", "way", name]), "OK\n", "{name}");
        assert_eq!(cli(&["GET", "way"]), format!("{name}\n"));
        // As a pool does: connected long before the first command.
        let mut stream = client.connect(address).unwrap();
        std::thread::sleep(Duration::from_millis(400));
        stream.write_all(b"PING\r\n").unwrap();
        let mut answer = [0; 7];
        stream.read_exact(&mut answer).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!(&answer, b"+PONG\r\n", "{name}");
    }
}

#[test]
fn mariadb_speaks_first_and_soon() {
    const MARIADB: u16 = 3306;
    let grid = Grid::new(Port::auto(MARIADB));
    let template = grid.world.folder().join("mariadb");
    done(Command::new("mariadb-install-db").args([
        "--no-defaults",
        "--user=root",
        "--auth-root-authentication-method=normal",
        "--innodb-log-file-size=4M",
        "--skip-test-db",
        &format!("--datadir={}", template.display()),
    ]));
    let _mariadb = grid.servers().map(|pod| {
        let data = grid.world.folder().join(format!("mariadb-{}", pod.manifest.name));
        done(Command::new("cp").arg("-r").arg(&template).arg(&data));
        let data = data.display();
        let program = pod.start(
            "mariadbd",
            [
                "--no-defaults".to_owned(),
                "--user=root".to_owned(),
                "--skip-grant-tables".to_owned(),
                "--skip-name-resolve".to_owned(),
                "--bind-address=*".to_owned(),
                "--innodb-log-file-size=4M".to_owned(),
                format!("--datadir={data}"),
                format!("--socket={data}/socket"),
                format!("--pid-file={data}/pid"),
            ],
        );
        pod.wait_for_port(MARIADB);
        program
    });
    for route in grid.routes() {
        // The first connection is the one of which nothing is known yet.
        let first = greeting(route);
        let direct = grid.direct().map(greeting).into_iter().max().expect("there are two");
        // On a busy machine everything takes longer.
        let bound = Duration::from_millis(250) + 3 * direct;
        assert!(first < bound, "{}: {first:?}, direct {direct:?}", route.name);
        eprintln!("{first:?}, direct {direct:?}");
        let Route { name, client, address } = route;
        let host = format!("--host={}", address.ip());
        let arguments = ["--no-defaults", &host, "--skip-ssl", "--user=root", "-N", "-e", "select 6 * 7"];
        assert_eq!(client.done("mariadb", arguments), "42\n", "{name}");
    }
}

/// How long a server takes to say its first bytes to a client that says nothing, the connect included.
fn greeting(route: Route<'_>) -> Duration {
    let begin = Instant::now();
    let mut stream = route.client.connect(route.address).unwrap();
    let mut first = [0; 5];
    stream.read_exact(&mut first).unwrap_or_else(|error| panic!("{}: {error}", route.name));
    // Protocol version 10, after a packet header of four bytes.
    assert_eq!(first[4], 10, "{}: a greeting", route.name);
    begin.elapsed()
}

#[test]
fn tls_of_the_application_stays_its_own() {
    const HTTPS: u16 = 8443;
    let grid = Grid::new(Port::auto(HTTPS));
    let folder = grid.world.folder();
    let (key, certificate) = (folder.join("app.key"), folder.join("app.pem"));
    done(
        Command::new("openssl")
            .args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"])
            .args([
                "-days",
                "1",
                "-subj",
                "/CN=the application itself",
                "-addext",
                "subjectAltName=DNS:app.test",
                "-keyout",
                key.to_str().unwrap(),
                "-out",
                certificate.to_str().unwrap(),
            ]),
    );
    let _servers = grid.servers().map(|pod| {
        let program = pod.start(
            "openssl",
            [
                "s_server",
                "-accept",
                "8443",
                "-www",
                "-quiet",
                "-key",
                key.to_str().unwrap(),
                "-cert",
                certificate.to_str().unwrap(),
            ],
        );
        pod.wait_for_port(HTTPS);
        program
    });
    for Route { name, client, address } in grid.routes() {
        let url = format!("https://app.test:{}/", address.port());
        // curl fails when the certificate is not the one that it is told to trust.
        let ip = if address.is_ipv6() { format!("[{}]", address.ip()) } else { address.ip().to_string() };
        let resolve = format!("app.test:{}:{ip}", address.port());
        let page = client.done(
            "curl",
            [
                "-sS",
                "-f",
                "-v",
                "--cacert",
                certificate.to_str().unwrap(),
                "--resolve",
                &resolve,
                "--stderr",
                "-",
                &url,
            ],
        );
        assert!(page.contains("CN=the application itself"), "{name}: {page}");
    }
    let detected = grid.meshed_client.metrics();
    let labels = [("direction", "outbound"), ("protocol", "tls"), ("how", "client_bytes")];
    assert_eq!(detected.sum("weft_detections_total", &labels), 4.0, "{}", detected.0);
}
