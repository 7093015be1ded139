//! The access log of real proxies: what a line says on both sides, that it is off unless wanted, and what a full disk does.

use nix::sched::{CloneFlags, unshare};
use serde_json::Value;
use std::{
    fs,
    io::{Read, Write},
    net::Shutdown,
    os::unix::fs::chown,
    path::{Path, PathBuf},
    process::Command,
};
use tests::{
    PATIENCE,
    app::App,
    eventually, holds,
    manifest::{Phase, Port},
    namespace::done,
    pod::Pod,
    world::{Service, World},
};

const HTTP: u16 = 8080;
const BYTES: u16 = 9000;
const PROXY_UID: u32 = 2140;

/// A client and a server with proxies that log, and a folder that those may write to.
struct Logging {
    client: Pod,
    server: Pod,
    service: Service,
    folder: PathBuf,
    _apps: [App; 2],
    _world: World,
}

impl Logging {
    /// `prepare` is called with the folder before the proxies start.
    fn new(mode: &str, prepare: impl FnOnce(&Path)) -> Self {
        let world = World::new();
        let service = world.service("web", "server", &[Port::auto(HTTP), Port::auto(BYTES)]);
        let mut server = world.pod("server", true, Phase::Ready);
        let mut client = world.pod("client", true, Phase::Ready);
        let apps = [App::mirror(&server, HTTP), App::echo(&server, BYTES)];
        let folder = world.folder().join("access");
        fs::create_dir(&folder).unwrap();
        prepare(&folder);
        chown(&folder, Some(PROXY_UID), Some(PROXY_UID)).unwrap();
        for pod in [&mut client, &mut server] {
            let mut options = world.proxy_options(pod);
            let file = folder.join(&pod.manifest.app).display().to_string();
            options.flags = ["--access-log", mode, "--access-log-file", &file].map(String::from).into();
            pod.start_proxy(options);
        }
        Self { client, server, service, folder, _apps: apps, _world: world }
    }

    fn get(&self, path: &str) -> u16 {
        self.client.client(self.service.at(HTTP)[0]).get(path).head.status()
    }

    /// The lines of one pod's proxy that have a field of this value, once there is one.
    fn lines(&self, pod: &Pod, key: &str, value: &str) -> Vec<Value> {
        eventually(PATIENCE, || {
            let text = fs::read_to_string(self.folder.join(&pod.manifest.app)).unwrap_or_default();
            let lines: Vec<Value> =
                text.lines().map(|line| serde_json::from_str(line).expect("each line is JSON")).collect();
            let fitting: Vec<_> = lines.into_iter().filter(|line| line[key] == value).collect();
            if fitting.is_empty() { Err(format!("no {key}={value} in:\n{text}")) } else { Ok(fitting) }
        })
    }
}

fn outcome(pod: &Pod, outcome: &str) -> f64 {
    pod.metrics().sum("weft_access_log_lines_total", &[("outcome", outcome)])
}

#[track_caller]
fn assert_fields(line: &Value, fields: &[(&str, Value)]) {
    for (key, value) in fields {
        assert_eq!(line[key], *value, "{key} in {line}");
    }
}

#[test]
fn a_request_and_a_connection_have_a_line_on_each_side() {
    let mesh = Logging::new("all", |_| {});
    assert_eq!(mesh.get("/cart?token=secret"), 200);
    let service = format!("default/web:{HTTP}");
    let client = mesh.lines(&mesh.client, "url.path", "/cart");
    let server = mesh.lines(&mesh.server, "url.path", "/cart");
    assert_eq!((client.len(), server.len()), (1, 1));
    let pod = mesh.server.at(HTTP)[0].to_string();
    for (line, direction) in [(&client[0], "outbound"), (&server[0], "inbound")] {
        assert_fields(
            line,
            &[
                ("weft.direction", direction.into()),
                ("network.protocol.name", "http".into()),
                ("network.protocol.version", "1.1".into()),
                ("http.request.method", "GET".into()),
                ("http.response.status_code", 200.into()),
                ("weft.next_hop", pod.clone().into()),
                ("weft.client.identity", mesh.client.identity().into()),
                ("weft.server.identity", mesh.server.identity().into()),
                ("tls.protocol.version", "1.3".into()),
                ("weft.attempts", 1.into()),
                ("client.address", mesh.client.at(0)[0].ip().to_string().into()),
            ],
        );
        assert!(line["weft.service"].as_str().is_some_and(|told| !told.is_empty()), "{service}: {line}");
        assert!(line["weft.bytes.to_client"].as_u64().is_some_and(|bytes| bytes > 0), "{line}");
        assert!(line["weft.duration_ms"].as_f64().is_some_and(|time| time > 0.0), "{line}");
        assert!(line.get("weft.reason").is_none() && !line.to_string().contains("secret"), "{line}");
    }
    assert_eq!(client[0]["weft.peer.workload"], mesh.server.workload());
    assert!(client[0]["weft.first_byte_ms"].as_f64() <= client[0]["weft.duration_ms"].as_f64());

    let mut stream = mesh.client.connect(mesh.service.at(BYTES)[1]).unwrap();
    stream.write_all(&[0x80; 1000]).unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    stream.read_to_end(&mut Vec::new()).unwrap();
    for (pod, address) in
        [(&mesh.client, mesh.service.at(BYTES)[1]), (&mesh.server, mesh.server.at(BYTES)[1])]
    {
        let lines = mesh.lines(pod, "weft.destination", &address.to_string());
        assert_eq!(lines.len(), 1);
        let bytes = [("weft.bytes.from_client", 1000.into()), ("weft.bytes.to_client", 1000.into())];
        assert_fields(&lines[0], &bytes);
        assert!(lines[0].get("http.request.method").is_none() && lines[0].get("weft.reason").is_none());
    }

    let (file, old) = (mesh.folder.join("client"), mesh.folder.join("client.1"));
    fs::rename(&file, &old).unwrap();
    assert_eq!(mesh.get("/renamed"), 200);
    assert_eq!(mesh.lines(&mesh.client, "url.path", "/renamed").len(), 1);
    assert_eq!(outcome(&mesh.client, "written"), 3.0);
    assert_eq!(outcome(&mesh.client, "dropped") + outcome(&mesh.client, "failed"), 0.0);
}

#[test]
fn errors_alone_are_logged_where_only_they_are_wanted() {
    let mesh = Logging::new("errors", |_| {});
    assert_eq!(mesh.get("/fine"), 200);
    let nobody = mesh.server.at(1)[0];
    let answer = mesh.client.client(nobody).get("/refused");
    let told = answer.head.field("proxy-status").unwrap_or_default();
    assert!(told.contains("error=connection_refused"), "{answer:?}");
    let lines = mesh.lines(&mesh.server, "url.path", "/refused");
    assert_eq!(lines.len(), 1);
    assert_fields(
        &lines[0],
        &[("weft.reason", "connection_refused".into()), ("http.response.status_code", 502.into())],
    );
    assert_eq!(mesh.server.metrics().reason("inbound", "connection_refused"), 1.0);
    // The client's proxy was told by its peer that nothing was executed, and had nobody else to ask.
    let lines = mesh.lines(&mesh.client, "url.path", "/refused");
    assert_eq!((lines.len(), &lines[0]["weft.reason"]), (1, &"connection_refused".into()));
    for pod in ["client", "server"] {
        let text = fs::read_to_string(mesh.folder.join(pod)).unwrap();
        assert!(!text.contains("/fine"), "{text}");
    }
}

#[test]
fn a_full_disk_costs_lines_and_no_requests_until_there_is_room() {
    let mesh = Logging::new("all", |folder| {
        // For this thread and the programs that it starts from here on.
        unshare(CloneFlags::CLONE_NEWNS).unwrap();
        done(Command::new("mount").args(["--make-rprivate", "/"]));
        done(Command::new("mount").args(["-t", "tmpfs", "-o", "size=64k", "tmpfs"]).arg(folder));
    });
    assert_eq!(mesh.get("/before"), 200);
    mesh.lines(&mesh.client, "url.path", "/before");
    let filler = mesh.folder.join("filler");
    // Ends with the disk's.
    let _ = fs::write(&filler, vec![0; 128 * 1024]);
    // What is left of the file's last page takes a few lines more.
    let mut sent = 0;
    eventually(PATIENCE, || {
        sent += 1;
        assert_eq!(mesh.get("/full"), 200);
        holds(outcome(&mesh.client, "failed") > 0.0, format!("{sent} lines have found room"))
    });
    assert!(mesh.client.proxy().log().contains("the access log cannot be written"));
    fs::remove_file(&filler).unwrap();
    assert_eq!(mesh.get("/after"), 200);
    let file = mesh.folder.join("client");
    eventually(PATIENCE, || {
        let text = fs::read_to_string(&file).unwrap();
        holds(text.contains("\"url.path\":\"/after\""), text)
    });
    // The counts follow the lines.
    let told = || (outcome(&mesh.client, "written"), outcome(&mesh.client, "failed"));
    eventually(PATIENCE, || {
        let (written, failed) = told();
        holds(
            written + failed == f64::from(sent) + 2.0,
            format!("{sent} sent, {written} written, {failed} failed"),
        )
    });
    let text = fs::read_to_string(&file).unwrap();
    let broken = text.lines().filter(|line| serde_json::from_str::<Value>(line).is_err()).count();
    assert!(broken <= 1, "only the line that the end of the disk cut:\n{text}");
    assert_eq!(told().0, (text.lines().count() - broken) as f64, "{text}");
    assert!(mesh.client.proxy().log().contains("the access log is written again"));
}
