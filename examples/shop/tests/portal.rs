//! The whole shop as processes on loopback: driven by the visitor, with one service gone, and told to stop.

#![allow(clippy::unwrap_used)]

use std::collections::HashSet;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, ChildStderr, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

/// A role that runs until it is dropped.
struct Role {
    child: Child,
    address: SocketAddr,
    /// Kept open, so that the role can go on writing.
    _stderr: BufReader<ChildStderr>,
}

impl Role {
    fn start(role: &str, listen: &str, args: &[String]) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_weft-shop"))
            .args(["--role", role, "--listen", listen])
            .args(args)
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut stderr = BufReader::new(child.stderr.take().unwrap());
        let mut line = String::new();
        stderr.read_line(&mut line).unwrap();
        let address = line.trim().rsplit_once(" ready on ").unwrap_or_else(|| panic!("{role}: {line}")).1;
        Self { address: address.parse().unwrap(), child, _stderr: stderr }
    }

    fn url(&self, name: &str) -> String {
        format!("--{name}-url=http://{}", self.address)
    }

    fn terminate(&self) {
        let kill = format!("kill -TERM {}", self.child.id());
        assert!(Command::new("sh").args(["-c", &kill]).status().unwrap().success());
    }

    /// Waits for the end, at most ten seconds.
    fn wait(&mut self) -> ExitStatus {
        let deadline = Instant::now() + Duration::from_secs(10);
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            assert!(Instant::now() < deadline, "it does not end");
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

impl Drop for Role {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Sends one request on `stream` and reads the answer: status, head, body.
fn ask(stream: &mut TcpStream, request: &str, body: &str) -> (u16, String, String) {
    let length = body.len();
    write!(stream, "{request} HTTP/1.1\r\nhost: shop\r\ncontent-length: {length}\r\n\r\n{body}").unwrap();
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        stream.read_exact(&mut byte).unwrap();
        head.push(byte[0]);
    }
    let head = String::from_utf8(head).unwrap().to_lowercase();
    let field = |name: &str| head.lines().find_map(|line| line.strip_prefix(name));
    let length = field("content-length: ").unwrap().parse().unwrap();
    let mut body = vec![0; length];
    stream.read_exact(&mut body).unwrap();
    (head[9..12].parse().unwrap(), head, String::from_utf8(body).unwrap())
}

fn ask_once(role: &Role, request: &str, body: &str) -> (u16, Value) {
    let (status, _, body) = ask(&mut TcpStream::connect(role.address).unwrap(), request, body);
    (status, serde_json::from_str(&body).unwrap())
}

/// Sends visitors, for longer each time, until they have taken every step, none of them in vain. How fast they get there is the machine's matter.
fn visit_every_step(customer: &Role) {
    let mut left = HashSet::from(["front", "list", "look", "enter", "fill", "cart", "buy", "orders"]);
    for seconds in [1, 2, 4, 8, 16] {
        let visit = Command::new(env!("CARGO_BIN_EXE_weft-shop"))
            .args(["--role", "visitor", "--rps", "100", "--json"])
            .arg(format!("--duration={seconds}s"))
            .arg(format!("--target=http://{}", customer.address))
            .output()
            .unwrap();
        assert!(visit.status.success());
        let report: Value = serde_json::from_slice(&visit.stdout).unwrap();
        assert_eq!(report["failures"], serde_json::json!({}), "{report}");
        left.retain(|step| report["steps"][step].as_u64().unwrap_or(0) == 0);
        if left.is_empty() {
            return;
        }
    }
    panic!("nobody took the steps {left:?}");
}

#[test]
fn visitors_go_through_the_whole_shop_and_a_missing_service_is_named() {
    let any = "127.0.0.1:0";
    let mut review = Role::start("review", any, &[]);
    let review_address = review.address.to_string();
    let auth = Role::start("auth", any, &[]);
    let product = Role::start("product", any, &["--version=v2".into(), review.url("review")]);
    let cart = Role::start("cart", any, &[product.url("product"), auth.url("auth")]);
    let order = Role::start("order", any, &[product.url("product"), cart.url("cart"), auth.url("auth")]);
    let behind = [product.url("product"), cart.url("cart"), auth.url("auth"), order.url("order")];
    let customer = Role::start("customer", any, &behind);

    visit_every_step(&customer);

    let (status, loom) = ask_once(&customer, "GET /products/loom", "");
    assert_eq!(
        (status, loom["version"].as_str(), loom["quote"]["author"].is_string()),
        (200, Some("v2"), true)
    );
    for (request, body, status) in [
        ("GET /products/anvil", "", 404),
        ("GET /nowhere", "", 404),
        ("GET /cart", "", 401),
        ("POST /session", "{", 400),
        ("POST /session", &format!("\"{}\"", "x".repeat(20_000)), 413),
    ] {
        assert_eq!(ask_once(&customer, request, body).0, status, "{request}");
    }

    review.terminate();
    assert!(review.wait().success());
    let (status, told) = ask_once(&customer, "GET /products/loom", "");
    assert_eq!(
        (status, &told["upstream"], &told["cause"]["upstream"]),
        (502, &"product".into(), &"review".into())
    );
    assert_eq!(told["cause"]["reason"], "connection_refused");
    let _review = Role::start("review", &review_address, &[]);
    assert_eq!(ask_once(&customer, "GET /products/loom", "").0, 200);
}

#[test]
fn a_role_told_to_stop_serves_on_unready_and_then_ends() {
    let mut review = Role::start("review", "127.0.0.1:0", &["--drain=1s".into()]);
    let mut kept = TcpStream::connect(review.address).unwrap();
    let mut idle = TcpStream::connect(review.address).unwrap();
    for stream in [&mut kept, &mut idle] {
        let (status, head, _) = ask(stream, "GET /healthz", "");
        assert!(status == 200 && !head.contains("connection: close"), "{head}");
    }
    review.terminate();
    let deadline = Instant::now() + Duration::from_secs(5);
    while ask_once(&review, "GET /healthz", "").0 != 503 {
        assert!(Instant::now() < deadline, "it stays ready");
    }
    let (status, head, _) = ask(&mut kept, "GET /reviews/loom", "");
    assert!(status == 200 && head.contains("\r\nconnection: close\r\n"), "{head}");
    for mut stream in [kept, idle] {
        assert_eq!(stream.read(&mut [0]).unwrap(), 0);
    }
    assert!(review.wait().success());
    assert!(TcpStream::connect(review.address).is_err());
}

#[test]
fn a_role_without_its_upstream_says_which_flag_is_missing() {
    let cart = Command::new(env!("CARGO_BIN_EXE_weft-shop")).args(["--role", "cart"]).output().unwrap();
    assert!(!cart.status.success());
    let told = String::from_utf8(cart.stderr).unwrap();
    assert!(told.contains("PRODUCT_URL"), "{told}");
}
