//! Control is frozen, emptied, away for longer than certificates live, and its root is replaced: traffic does not notice.

use crate::load::{Load, PORT, named};
use nix::sys::signal::Signal;
use std::{fs, path::Path, thread, time::Duration};
use tests::{
    PATIENCE, eventually, holds,
    manifest::{Phase, Port},
    pod::Pod,
    world::World,
};

/// How soon endpoints must be right again, whatever control did.
const CONVERGED: Duration = Duration::from_secs(65);

/// A pod that is ready, and seen by a client.
fn appears(world: &World, client: &Pod, to: std::net::SocketAddr) -> (Pod, tests::app::App) {
    let mut pod = world.pod("server", true, Phase::NotReady);
    pod.start_proxy(world.proxy_options(&pod));
    let app = named(&pod);
    pod.set_phase(Phase::Ready);
    eventually(CONVERGED, || {
        let answer = client.client(to).get("/");
        holds(answer.text() == pod.manifest.name, answer.text())
    });
    (pod, app)
}

fn assert_no_failure(pods: &[&Pod]) {
    for pod in pods {
        let metrics = pod.metrics();
        assert_eq!(metrics.sum("weft_reasons_total", &[]), 0.0, "{}", metrics.0);
        let handshakes = metrics.sum("weft_handshakes_total", &[]);
        let done =
            ["full", "resumed"].map(|outcome| metrics.sum("weft_handshakes_total", &[("outcome", outcome)]));
        assert_eq!(handshakes, done.iter().sum::<f64>(), "{}", metrics.0);
    }
}

#[test]
fn a_frozen_control_stops_nothing_and_what_it_missed_is_learnt() {
    let world = World::new();
    let to = world.service("web", "server", &[Port::auto(PORT)]).at(PORT)[0];
    let (server, client) = (world.meshed("server"), world.meshed("client"));
    let _app = named(&server);
    assert_eq!(client.client(to).get("/").head.status(), 200);
    Load::around(&client, to, |load| {
        load.wait_for(100);
        world.control.program.signal(Signal::SIGSTOP);
        eventually(Duration::from_secs(20), || {
            let connected = client.metrics().sum("weft_control_connected", &[]);
            holds(connected == 0.0, "a frozen control is not noticed")
        });
        load.wait_for(500);
        world.control.program.signal(Signal::SIGCONT);
        let (mut pod, app) = appears(&world, &client, to);
        load.wait_for(100);
        pod.set_phase(Phase::Terminating);
        let name = pod.manifest.name.clone();
        eventually(CONVERGED, || {
            let ended = (0..10).all(|_| client.client(to).get("/").text() != name);
            holds(ended, "the pod that left is still chosen")
        });
        drop(app);
    });
    assert_no_failure(&[&server, &client]);
}

#[test]
fn a_control_that_comes_back_empty_takes_nothing_away() {
    let mut world = World::new();
    let to = world.service("web", "server", &[Port::auto(PORT)]).at(PORT)[0];
    let (server, client) = (world.meshed("server"), world.meshed("client"));
    let _app = named(&server);
    assert_eq!(client.client(to).get("/").head.status(), 200);
    let (manifests, away) = (world.manifests.folder().to_owned(), world.folder().join("away"));
    let doubted = |pod: &Pod| pod.metrics().sum("weft_control_doubted", &[]);
    Load::around(&client, to, |load| {
        load.wait_for(100);
        world.control.program.kill();
        fs::rename(&manifests, &away).unwrap();
        fs::create_dir(&manifests).unwrap();
        world.control.start_again();
        assert_eq!(world.control.metrics().sum("weft_control_objects", &[]), 0.0);
        // The Service's address and its endpoints.
        eventually(2 * PATIENCE, || holds(doubted(&client) >= 2.0, client.metrics().0));
        load.wait_for(1000);
        for entry in fs::read_dir(&away).unwrap().flatten() {
            fs::rename(entry.path(), manifests.join(entry.file_name())).unwrap();
        }
        eventually(PATIENCE, || holds(doubted(&client) == 0.0, client.metrics().0));
        let second = appears(&world, &client, to);
        load.wait_for(100);
        second.0.delete();
        eventually(CONVERGED, || {
            let first = (0..10).all(|_| client.client(to).get("/").text() == server.manifest.name);
            holds(first, "the pod that left is still chosen")
        });
    });
    assert_no_failure(&[&server, &client]);
    // A control that is there and says so is believed at once.
    server.delete();
    eventually(Duration::from_secs(2), || {
        let status = client.client(to).get("/").head.status();
        holds(status == 503, status.to_string())
    });
}

#[test]
fn an_outage_longer_than_certificates_live_heals_by_itself() {
    const LIFETIME: u64 = 10;
    let mut world = World::with_control(&["--certificate-lifetime", "10s"]);
    let to = world.service("web", "server", &[Port::auto(PORT)]).at(PORT)[0];
    let (server, client) = (world.meshed("server"), world.meshed("client"));
    let _app = named(&server);
    let left = |pod: &Pod| pod.metrics().sum("weft_certificate_expiry_seconds", &[]);
    Load::around(&client, to, |load| {
        load.wait_for(100);
        world.control.program.kill();
        let expired = || [&server, &client].map(left);
        eventually(Duration::from_secs(2 * LIFETIME), || {
            holds(expired().iter().all(|left| *left < 0.0), format!("{:?}", expired()))
        });
        // Connections outlive the certificates that they were made with.
        load.wait_for(500);
        world.control.start_again();
        eventually(Duration::from_secs(30), || {
            holds(expired().iter().all(|left| *left > 0.0), format!("{:?}", expired()))
        });
        load.wait_for(100);
    });
    assert_no_failure(&[&server, &client]);
}

/// Replaces a file as careful programs do.
fn replace(folder: &Path, file: &str, bytes: Vec<u8>) {
    fs::write(folder.join("new"), bytes).unwrap();
    fs::rename(folder.join("new"), folder.join(file)).unwrap();
}

#[test]
fn the_root_is_replaced_twice_under_load() {
    // The issuer and its root are put there together: control tells the root first.
    let world = World::with_control(&["--certificate-lifetime", "10s", "--root-spread", "3s"]);
    let service = world.service("web", "server", &[Port::auto(PORT)]);
    let (server, client) = (world.meshed("server"), world.meshed("client"));
    let _app = named(&server);
    let state = world.control.state();
    let read = |folder: &Path, file: &str| fs::read(folder.join(file)).unwrap();
    let roots = || [&server, &client].map(|pod| pod.proxy().log().matches("roots are trusted now").count());
    let certified = || {
        let of =
            |pod: &Pod| pod.metrics().sum("weft_certificate_attempts_total", &[("outcome", "certified")]);
        [of(&server), of(&client)]
    };
    Load::around(&client, service.at(PORT)[0], |load| {
        for (name, round) in [("second", 1), ("third", 2)] {
            load.wait_for(100);
            let other = world.another_control(name, &[]);
            let both = [read(state, "ca.pem"), read(other.state(), "ca.pem")].concat();
            replace(state, "ca.pem", both);
            replace(state, "issuer.key", read(other.state(), "issuer.key"));
            replace(state, "issuer.pem", read(other.state(), "issuer.pem"));
            eventually(PATIENCE, || {
                holds(roots().iter().all(|count| *count == 2 * round - 1), format!("{:?}", roots()))
            });
            world_said(&world, "the new issuer signs now", round);
            // The certificates of before end; the one that is asked for now is of the new issuer.
            let before = certified();
            eventually(Duration::from_secs(20), || {
                let now = certified();
                holds((0..2).all(|at| now[at] > before[at]), format!("{before:?} {now:?}"))
            });
            replace(state, "ca.pem", read(other.state(), "ca.pem"));
            eventually(PATIENCE, || {
                holds(roots().iter().all(|count| *count == 2 * round), format!("{:?}", roots()))
            });
            load.wait_for(200);
            assert_eq!(client.client(service.at(PORT)[1]).get("/").text(), server.manifest.name);
            thread::sleep(Duration::from_secs(1));
        }
    });
    assert_no_failure(&[&server, &client]);
    let failed = client.metrics().sum("weft_certificate_attempts_total", &[("outcome", "failed")]);
    assert_eq!(failed, 0.0, "{}", client.proxy().log());
    let problems = world.control.page("/problems");
    assert_eq!(world.control.metrics().sum("weft_control_problems", &[]), 0.0, "{problems}");
}

fn world_said(world: &World, text: &str, times: usize) {
    eventually(PATIENCE, || {
        let log = world.control.program.log();
        holds(log.matches(text).count() == times, log)
    });
}

#[test]
fn a_control_that_is_told_to_end_alarms_nobody() {
    let mut world = World::new();
    let to = world.service("web", "server", &[Port::auto(PORT)]).at(PORT)[0];
    let (server, client) = (world.meshed("server"), world.meshed("client"));
    let _app = named(&server);
    assert_eq!(client.client(to).get("/").head.status(), 200);
    let made = |pod: &Pod| pod.metrics().sum("weft_control_attempts_total", &[("outcome", "connected")]);
    Load::around(&client, to, |load| {
        load.wait_for(100);
        world.control.program.signal(Signal::SIGTERM);
        let status = world.control.program.wait(PATIENCE);
        assert!(status.success(), "{status}");
        world.control.start_again();
        for pod in [&server, &client] {
            eventually(2 * PATIENCE, || holds(made(pod) == 2.0, pod.metrics().0));
        }
        load.wait_for(200);
    });
    assert_no_failure(&[&server, &client]);
    for pod in [&server, &client] {
        // Nobody listened for a moment, which is told once.
        let log = pod.proxy().log();
        let warnings: Vec<_> = log.lines().filter(|line| line.contains("WARN")).collect();
        assert!(
            warnings.len() <= 1 && warnings.iter().all(|line| line.contains("cannot connect")),
            "{warnings:?}"
        );
    }
}
