//! How control starts and ends, and what reaches its ports besides proxies.

use super::discovery::{SERVICE, asked, pod};
use crate::client::{config, folder, next, soon, start, start_with};
use control_serve::{Server, StartError};
use proxy_wire::v1;
use std::{
    ffi::OsStr,
    fs,
    io::{BufRead, BufReader},
    os::unix::fs::PermissionsExt,
    process::{Command, Stdio},
    time::Duration,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

#[tokio::test]
async fn the_state_is_made_once_and_used_again() {
    let control = start(&[("cart-1.yaml", &pod("cart-1", "10.1.0.1"))]).await;
    let read = |name: &str| fs::read(control.path(name)).expect(name);
    let names = ["state/ca.pem", "state/issuer.pem", "state/issuer.key", "state/tokens/shop/cart.token"];
    let first = names.map(read);
    let mode = |name: &str| fs::metadata(control.path(name)).expect(name).permissions().mode() & 0o777;
    assert_eq!((mode("state/issuer.key"), mode(names[3])), (0o600, 0o600));
    assert_eq!((mode("state/tokens"), mode("state/tokens/shop")), (0o700, 0o700));
    control.stop.send(()).expect("it runs");
    soon(control.task).await.expect("no panic").expect("a clean end");
    let again = start_with(control.folder, |_| {}).await;
    assert_eq!(names.map(|name| fs::read(again.path(name)).expect(name)), first);
}

#[tokio::test]
async fn a_state_that_cannot_be_used_says_what_to_do() {
    let control = start(&[]).await;
    control.stop.send(()).expect("it runs");
    soon(control.task).await.expect("no panic").expect("a clean end");
    let folder = control.folder;
    let path = |name: &str| folder.path().join("state").join(name);
    for (name, text, expected) in [
        ("issuer.key", Some("no key"), "issuer.key is malformed"),
        ("issuer.pem", Some(""), "issuer.pem is malformed"),
        (
            "ca.pem",
            Some("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"),
            "do not work with ca.pem",
        ),
        ("ca.pem", None, "ca.pem is missing"),
        ("issuer.key", None, "issuer.key is missing"),
    ] {
        let good = fs::read(path(name)).expect(name);
        match text {
            Some(text) => fs::write(path(name), text).expect(name),
            None => fs::remove_file(path(name)).expect(name),
        }
        let error = Server::start(config(&folder)).await.err().expect("it does not start");
        assert!(matches!(&error, StartError::Authority(_)), "{error:?}");
        assert!(error.to_string().contains(expected), "{error}");
        fs::write(path(name), good).expect(name);
    }
    Server::start(config(&folder)).await.expect("as it was before");
}

#[tokio::test]
async fn a_directory_that_is_not_there_is_said_at_the_start() {
    let folder = folder(&[]);
    fs::remove_dir(folder.path().join("manifests")).expect("a folder");
    let error = Server::start(config(&folder)).await.err().expect("it does not start");
    assert!(matches!(error, StartError::Directory(_)), "{error:?}");
}

#[tokio::test]
async fn the_end_is_clean_while_proxies_watch() {
    let control = start(&[("cart.yaml", SERVICE)]).await;
    let mut updates = control.endpoints().await.watch(asked()).await.expect("a watch").into_inner();
    let mut trust =
        control.identity().await.watch_trust(v1::TrustRequest {}).await.expect("a watch").into_inner();
    next(&mut updates).await;
    next(&mut trust).await;
    assert!(control.admin("/metrics").await.contains("\nweft_control_watches 1\n"));
    control.stop.send(()).expect("it runs");
    let end = soon(updates.message()).await.expect("no error");
    assert!(end.is_none(), "the stream ends, it does not break");
    assert!(soon(trust.message()).await.expect("no error").is_none());
    soon(control.task).await.expect("no panic").expect("a clean end");
}

#[tokio::test]
async fn the_admin_port_answers() {
    let control = start(&[("cart.yaml", SERVICE)]).await;
    assert!(control.admin("/ready").await.starts_with("HTTP/1.1 200 "));
    assert!(control.admin("/live").await.starts_with("HTTP/1.1 200 "));
    assert!(control.admin("/").await.starts_with("HTTP/1.1 404 "));
    let metrics = control.admin("/metrics").await;
    assert!(metrics.ends_with("# EOF\n"), "{metrics}");
    assert!(metrics.contains("weft_control_issuer_expiry_seconds "), "{metrics}");
}

#[tokio::test]
async fn garbage_and_silence_on_the_port_disturb_nobody() {
    let control = start(&[("cart.yaml", SERVICE)]).await;
    let mut silent = Vec::new();
    for _ in 0..50 {
        silent.push(TcpStream::connect(control.address).await.expect("a connection"));
    }
    for garbage in [&b"GET / HTTP/1.1\r\n\r\n"[..], &[0x16, 3, 1, 0xff, 0xff, 1, 2, 3], &[0; 4096]] {
        let mut stream = TcpStream::connect(control.address).await.expect("a connection");
        stream.write_all(garbage).await.expect("garbage");
        stream.shutdown().await.expect("an end");
        let mut rest = Vec::new();
        // Closed, by an alert or a reset.
        let _ = soon(stream.read_to_end(&mut rest)).await;
        assert!(rest.len() < 64, "{rest:?}");
    }
    let mut updates = control.endpoints().await.watch(asked()).await.expect("a watch").into_inner();
    next(&mut updates).await;
    drop(silent);
}

#[tokio::test]
async fn a_directory_without_events_is_looked_at_now_and_then() {
    let folder = folder(&[("cart.yaml", SERVICE)]);
    let control = start_with(folder, |config| config.rescan = Duration::from_millis(50)).await;
    let mut updates = control.endpoints().await.watch(asked()).await.expect("a watch").into_inner();
    next(&mut updates).await;
    // The root is replaced: events on the old one tell nothing any more.
    fs::rename(control.path("manifests"), control.path("away")).expect("a move");
    fs::create_dir(control.path("manifests")).expect("a folder");
    for (name, text) in [("cart.yaml", SERVICE), ("cart-1.yaml", &pod("cart-1", "10.1.0.1"))] {
        fs::write(control.path("manifests").join(name), text).expect("a manifest");
    }
    let endpoints = next(&mut updates).await.endpoints.expect("content").endpoints;
    assert_eq!(endpoints.len(), 1);
}

#[test]
fn the_program_says_when_it_is_ready_and_ends_on_sigterm() {
    let folder = folder(&[("cart.yaml", SERVICE)]);
    let mut control = Command::new(env!("CARGO_BIN_EXE_weft-control"))
        .args(["--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0", "--log", "error"])
        .args([OsStr::new("--directory"), folder.path().join("manifests").as_os_str()])
        .env("WEFT_CONTROL_STATE", folder.path().join("state"))
        .stderr(Stdio::piped())
        .spawn()
        .expect("the program");
    let mut lines = BufReader::new(control.stderr.take().expect("its log")).lines();
    let ready = lines.next().expect("a line").expect("text");
    assert!(ready.starts_with("weft-control: ready: serving 127.0.0.1:"), "{ready}");
    assert!(ready.ends_with("/manifests (1 objects, 0 problems)"), "{ready}");
    let kill = format!("kill -TERM {}", control.id());
    assert!(Command::new("sh").args(["-c", &kill]).status().expect("a shell").success());
    assert!(control.wait().expect("an end").success());
}

#[test]
fn the_program_says_why_it_does_not_start() {
    let folder = folder(&[]);
    let output = Command::new(env!("CARGO_BIN_EXE_weft-control"))
        .args([OsStr::new("--directory"), folder.path().join("none").as_os_str()])
        .args([OsStr::new("--state"), folder.path().join("state").as_os_str()])
        .args(["--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0"])
        .output()
        .expect("the program");
    let log = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success());
    assert!(log.contains("/none: No such file or directory"), "{log}");
}
