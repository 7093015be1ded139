//! Each reason is forced once, in a world of two proxies on paused time: what the client is told, what the access log says
//! and what is counted are one word.
//!
//! `table` says how each is forced; `world` is where that happens. A reason without a row fails the test.

#[path = "../simulation/authority.rs"]
mod authority;
#[path = "../simulation/panics.rs"]
mod panics;
mod table;
mod world;

use policy::Reason;
use serde_json::Value;
use table::{ROWS, Row, Told};
use world::{Heard, World};

#[test]
fn each_reason_has_one_row() {
    for reason in Reason::ALL {
        let rows = ROWS.iter().filter(|row| row.reason == *reason).count();
        assert!(rows > 0, "{reason} has no row in `table`: nobody has seen that it can be given");
    }
}

#[test]
fn header_log_and_metric_are_one_word() {
    let wrong: Vec<_> = ROWS.iter().flat_map(|row| judge(row).err()).collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Lives through a row's world and looks at all three.
fn judge(row: &Row) -> Result<(), String> {
    let lived = World::live(row);
    let (word, by) = (row.reason.as_str(), row.by);
    let wrong = |what: &str| Err(format!("{word} ({}): {what}\n  {lived:?}", row.name));
    let (status, grpc_status) = match row.told {
        Told::Status(status) => (Some(status), None),
        Told::Grpc(code) => (Some(200), Some(code)),
        Told::Reset => (None, None),
    };
    match (status, &lived.heard) {
        (None, Heard::Reset) => {}
        (Some(status), Heard::Answer(answer)) => {
            let answer = answer.to_ascii_lowercase();
            if !answer.starts_with(&format!("http/1.1 {status} ")) {
                return wrong(&format!("the status is not {status}"));
            }
            if !answer.contains(&format!("\r\nproxy-status: weft-{}; error={word};", by.as_str())) {
                return wrong("Proxy-Status does not say so");
            }
            if grpc_status.is_some_and(|code| !answer.contains(&format!("\r\ngrpc-status: {code}\r\n"))) {
                return wrong("grpc-status is another one");
            }
        }
        _ => return wrong(&format!("the client should have {:?}", row.told)),
    }
    let given = &lived.given[by as usize];
    let lines: Vec<_> = given.lines.iter().filter(|line| line.get("weft.reason").is_some()).collect();
    let [line] = lines[..] else { return wrong("it is not one line of the log that has a reason") };
    if line["weft.reason"] != word || line["weft.direction"] != by.as_str() {
        return wrong("the log says another word, or another direction");
    }
    let number = |key| line.get(key).and_then(Value::as_u64);
    if number("http.response.status_code") != status.map(u64::from)
        || number("rpc.grpc.status_code") != grpc_status.map(u64::from)
    {
        return wrong("the log says another status");
    }
    if line["client.address"] == Value::Null {
        return wrong("the log does not say who asked");
    }
    match given.counted.as_slice() {
        [(counted, 1)] if counted == word => Ok(()),
        _ => wrong("what is counted is not once this word"),
    }
}
