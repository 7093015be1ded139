//! Control comes and goes, pods come and go, documents are wrong: traffic does not notice.

use crate::load::{Load, PORT, named};
use nix::sys::signal::Signal;
use std::{
    io::{self, BufReader, Read, Write},
    net::SocketAddr,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};
use tests::{
    PATIENCE,
    app::{App, ok},
    eventually, holds,
    http::read_head,
    manifest::{NAMESPACE, Phase, Port},
    pod::Pod,
    world::World,
};

/// How soon after a document was written its effect must be seen.
const AT_ONCE: Duration = Duration::from_secs(2);

#[test]
fn nothing_fails_while_control_is_gone() {
    let mut world = World::new();
    let service = world.service("web", "server", &[Port::auto(PORT)]);
    let (server, client) = (world.meshed("server"), world.meshed("client"));
    let _app = named(&server);
    for address in service.at(PORT) {
        assert_eq!(client.client(address).get("/").text(), server.manifest.name);
    }
    Load::around(&client, service.at(PORT)[0], |load| {
        load.wait_for(100);
        world.control.program.kill();
        load.wait_for(1000);
        assert_eq!(client.metrics().sum("weft_control_connected", &[]), 0.0);
        // New connections of both families too.
        for address in service.at(PORT) {
            assert_eq!(client.client(address).get("/").text(), server.manifest.name);
        }
    });
    // What happens meanwhile is learnt when control is back.
    let mut second = world.pod_while_control_is_gone("server", true, Phase::NotReady);
    let moved = Load::around(&client, service.at(PORT)[0], |load| {
        load.wait_for(100);
        world.control.start_again();
        second.start_proxy(world.proxy_options(&second));
        let app = named(&second);
        second.set_phase(Phase::Ready);
        load.wait_for(500);
        app
    });
    eventually(2 * PATIENCE, || {
        let answer = client.client(service.at(PORT)[0]).get("/");
        holds(answer.text() == second.manifest.name, answer.text())
    });
    drop(moved);
}

#[test]
fn endpoints_that_come_and_go_are_seen_at_once() {
    let world = World::new();
    let service = world.service("web", "server", &[Port::auto(PORT)]);
    let client = world.meshed("client");
    let mut first = world.meshed("server");
    let _first = named(&first);
    let names = |count: usize| -> Vec<String> {
        let mut names: Vec<_> =
            (0..count).map(|at| client.client(service.at(PORT)[at % 2]).get("/").text().to_owned()).collect();
        names.sort();
        names.dedup();
        names
    };
    assert_eq!(names(10), [first.manifest.name.clone()]);

    let mut second = world.pod("server", true, Phase::NotReady);
    second.start_proxy(world.proxy_options(&second));
    let _second = named(&second);
    assert_eq!(names(10), [first.manifest.name.clone()], "a pod that is not ready gets nothing");
    second.set_phase(Phase::Ready);
    eventually(AT_ONCE, || holds(names(10).len() == 2, "the second pod gets nothing"));

    first.set_phase(Phase::Terminating);
    eventually(AT_ONCE, || {
        holds(names(10) == [second.manifest.name.clone()], "the first pod still gets requests")
    });
    second.delete();
    eventually(AT_ONCE, || {
        let status = client.client(service.at(PORT)[0]).get("/").head.status();
        holds(status == 503, status.to_string())
    });
    second.set_phase(Phase::Ready);
    eventually(AT_ONCE, || {
        let status = client.client(service.at(PORT)[0]).get("/").head.status();
        holds(status == 200, status.to_string())
    });
}

#[test]
fn a_bad_document_is_reported_and_the_others_apply() {
    let world = World::new();
    let web = world.service("web", "server", &[Port::auto(PORT)]);
    let (server, client) = (world.meshed("server"), world.meshed("client"));
    let _app = named(&server);
    let get = |address| client.client(address).get("/").head.status();
    assert_eq!(get(web.at(PORT)[0]), 200);

    world.manifests.write("broken.yaml", "apiVersion: v1\nkind: Service\nmetadata:\n  name: [unclosed\n");
    let wrong = "apiVersion: v1\nkind: Service\nmetadata: {name: wrong, namespace: test}\nspec:\n  ports:\n  - port: eighty\n";
    world.manifests.write("wrong.yaml", wrong);
    for told in ["broken.yaml:", "wrong.yaml:6", "spec.ports[0].port"] {
        eventually(PATIENCE, || {
            let problems = world.control.page("/problems");
            holds(problems.contains(told), format!("{told} is not in {problems}"))
        });
    }
    // What is right beside them applies, new and old.
    let later = world.service("later", "server", &[Port::auto(PORT)]);
    assert_eq!(get(later.at(PORT)[1]), 200);
    // A Service whose document has become nonsense stays as it was.
    world.manifests.write(
        "service-web.yaml",
        "apiVersion: v1\nkind: Service\nmetadata: {name: web, namespace: test}\nspec: 7\n",
    );
    eventually(PATIENCE, || {
        let problems = world.control.page("/problems");
        holds(problems.contains("service-web.yaml"), problems)
    });
    assert_eq!(get(web.at(PORT)[0]), 200);
    for file in ["broken.yaml", "wrong.yaml", "service-web.yaml"] {
        world.manifests.remove(file);
    }
    eventually(PATIENCE, || {
        let problems = world.control.metrics().sum("weft_control_problems", &[]);
        holds(problems == 0.0, world.control.page("/problems"))
    });
}

#[test]
fn a_pod_is_replaced_under_load() {
    let world = World::new();
    let service = world.service("web", "server", &[Port::auto(PORT)]);
    let client = world.meshed("client");
    for meshed in [true, false] {
        let start = || {
            let mut pod = world.pod("server", meshed, Phase::NotReady);
            if meshed {
                pod.start_proxy(world.proxy_options(&pod));
            }
            let app = named(&pod);
            pod.set_phase(Phase::Ready);
            (pod, app)
        };
        let mut old = start();
        eventually(AT_ONCE, || {
            let status = client.client(service.at(PORT)[0]).get("/").head.status();
            holds(status == 200, status.to_string())
        });
        for _ in 0..3 {
            old = Load::around(&client, service.at(PORT)[0], |load| {
                load.wait_for(200);
                let new = start();
                let address = new.0.at(PORT)[0].to_string();
                eventually(AT_ONCE, || {
                    let (_, config) = client.page("GET", "/config").map_err(|error| error.to_string())?;
                    holds(config.contains(&address), config)
                });
                let (mut leaving, app) = old;
                leaving.set_phase(Phase::Terminating);
                // The kubelet signals at once, while proxies still learn of it; applications finish what they have.
                if let Some(proxy) = &leaving.proxy {
                    proxy.signal(Signal::SIGTERM);
                }
                load.wait_for(200);
                drop(app);
                if meshed {
                    let status = leaving.proxy_mut().wait(PATIENCE);
                    assert!(status.success(), "{status}");
                }
                leaving.delete();
                load.wait_for(200);
                new
            });
        }
        old.0.delete();
    }
}

/// Answers `/slow` when the test says so, anything else at once.
fn slow_app(pod: &Pod, go: &'static AtomicBool) -> App {
    App::tcp(pod, PORT, move |stream| {
        let mut reader = BufReader::new(stream.try_clone().unwrap());
        while let Ok(Some(head)) = read_head(&mut reader) {
            while head.target() == "/slow" && !go.load(Ordering::Relaxed) {
                thread::sleep(Duration::from_millis(5));
            }
            if (&stream).write_all(&ok("whole")).is_err() {
                return;
            }
        }
    })
}

#[test]
fn a_drain_lets_everything_end() {
    static GO: AtomicBool = AtomicBool::new(false);
    let world = World::new();
    let service = world.service("web", "server", &[Port::auto(PORT)]);
    let (mut server, mut client) = (world.meshed("server"), world.meshed("client"));
    let _app = slow_app(&server, &GO);
    let address = service.at(PORT)[0];
    let mut idle = client.client(address);
    assert_eq!(idle.get("/").text(), "whole");
    let mut slow = client.client(address);
    slow.send("GET /slow HTTP/1.1\r\nHost: a\r\n\r\n");
    let stranger = world.unmeshed("stranger");
    let mut direct = stranger.client(server.at(PORT)[0]);
    direct.send("GET /slow HTTP/1.1\r\nHost: a\r\n\r\n");
    let in_flight = |pod: &Pod| pod.metrics().sum("weft_requests_in_flight", &[]);
    eventually(PATIENCE, || {
        let counts = (in_flight(&client), in_flight(&server));
        holds(counts == (1.0, 2.0), format!("{counts:?}"))
    });
    for pod in [&server, &client] {
        pod.proxy().signal(Signal::SIGTERM);
        eventually(PATIENCE, || {
            let (status, why) = pod.page("GET", "/ready").map_err(|error| error.to_string())?;
            holds(status == 503 && why.contains("draining"), why)
        });
    }
    // An idle connection ends, a new one is still served: the application may need it to finish.
    idle.assert_ended();
    assert_eq!(client.client(address).get("/").text(), "whole");
    assert!(client.proxy_mut().status().is_none() && server.proxy_mut().status().is_none());
    GO.store(true, Ordering::Relaxed);
    for one in [&mut slow, &mut direct] {
        let answer = one.answer("GET");
        assert_eq!((answer.head.status(), answer.text()), (200, "whole"));
        assert_eq!(answer.head.field("connection"), Some("close"), "{answer:?}");
        one.assert_ended();
    }
    for pod in [&mut client, &mut server] {
        let status = pod.proxy_mut().wait(Duration::from_secs(5));
        assert!(status.success(), "{status}");
    }
}

#[test]
fn a_drain_has_an_end() {
    let world = World::new();
    let service = world.service("web", "server", &[Port::auto(PORT)]);
    let server = world.meshed("server");
    let _app = App::echo(&server, PORT);
    let mut client = world.pod("client", true, Phase::Ready);
    let mut options = world.proxy_options(&client);
    options.flags.extend(["--drain-timeout".into(), "1s".into()]);
    client.start_proxy(options);
    let mut stream = client.connect(service.at(PORT)[0]).unwrap();
    stream.write_all(b"\x00stays open").unwrap();
    stream.read_exact(&mut [0; 11]).unwrap();
    let begin = Instant::now();
    let (status, _) = client.page("POST", "/shutdown").unwrap();
    assert_eq!(status, 200);
    // Until then it is carried as ever.
    stream.write_all(b"still").unwrap();
    stream.read_exact(&mut [0; 5]).unwrap();
    let status = client.proxy_mut().wait(Duration::from_secs(5));
    assert!(begin.elapsed() >= Duration::from_secs(1), "after {:?}", begin.elapsed());
    assert!(status.success(), "{status}");
    let ended = stream.read(&mut [0; 1]);
    assert!(
        matches!(ended, Ok(0)) || ended.is_err_and(|error| error.kind() == io::ErrorKind::ConnectionReset)
    );
}

#[test]
fn what_proxies_say_of_themselves() {
    let world = World::new();
    let service = world.service("web", "server", &[Port::auto(PORT)]);
    let (server, client) = (world.meshed("server"), world.meshed("client"));
    let _app = named(&server);
    let mut kept = client.client(service.at(PORT)[0]);
    for _ in 0..7 {
        assert_eq!(kept.get("/").head.status(), 200);
    }
    // An answer is counted when its end has gone.
    let over = |pod: &Pod| pod.metrics().sum("weft_requests_total", &[]);
    eventually(PATIENCE, || holds((over(&server), over(&client)) == (7.0, 7.0), client.metrics().0));
    let (theirs, ours) = (server.metrics(), client.metrics());
    let web = format!("web.{NAMESPACE}:{PORT}");
    let outbound = [
        ("direction", "outbound"),
        ("service", web.as_str()),
        ("workload", &server.workload()),
        ("identity", &server.identity()),
        ("backend", &server.at(PORT)[0].to_string()),
        ("tls", "1.3"),
        ("class", "2xx"),
    ];
    assert_eq!(ours.sum("weft_requests_total", &outbound), 7.0, "{}", ours.0);
    let inbound =
        [("direction", "inbound"), ("identity", &client.identity()), ("tls", "1.3"), ("class", "2xx")];
    assert_eq!(theirs.sum("weft_requests_total", &inbound), 7.0, "{}", theirs.0);
    let of_web = [("direction", "outbound"), ("service", web.as_str())];
    assert_eq!(ours.sum("weft_request_duration_seconds_count", &of_web), 7.0, "{}", ours.0);
    let hybrid = [("key_exchange", "X25519MLKEM768")];
    assert!(theirs.sum("weft_handshakes_total", &hybrid) >= 1.0, "{}", theirs.0);
    for metrics in [&ours, &theirs] {
        assert_eq!(metrics.sum("weft_control_connected", &[]), 1.0);
        assert!(metrics.sum("weft_certificate_expiry_seconds", &[]) > 3600.0);
    }
    let (status, config) = client.page("GET", "/config").unwrap();
    assert!(status == 200 && config.contains(&server.at(PORT)[0].to_string()), "{config}");
    assert_eq!(client.page("GET", "/live").unwrap().0, 200);
}

#[test]
fn a_service_that_comes_after_it_was_dialled_is_found() {
    let world = World::new();
    let (server, client) = (world.meshed("server"), world.meshed("client"));
    let _app = named(&server);
    // The first that this world gives a Service.
    let expected = SocketAddr::from(([10, 96, 0, 1], PORT));
    let answer = client.client(expected).get("/");
    assert!(answer.head.status() >= 500, "nobody has this address: {answer:?}");
    let service = world.service("web", "server", &[Port::auto(PORT)]);
    assert_eq!(service.at(PORT)[0], expected);
    eventually(AT_ONCE, || {
        let answer = client.client(expected).get("/");
        holds(answer.text() == server.manifest.name, format!("{answer:?}"))
    });
}
