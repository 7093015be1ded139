//! What people see: lines that stay, and below them a table that is refreshed in place where a terminal can do that,
//! and printed now and then where it cannot.

use std::io::{self, IsTerminal, Write};
use std::time::{Duration, Instant};

use anyhow::Context;
use comfy_table::{CellAlignment, LineStyle, Table, TableStyle};

use super::signals::Edge;

/// Between two tables where they cannot be refreshed in place.
const PRINT_EVERY: Duration = Duration::from_secs(10);
/// CSI sequences (ECMA-48): up and erase below; automatic line wrap off and on (DECAWM), so that a line stays one.
const ERASE_BELOW: &str = "\x1b[J";
const NO_WRAP: &str = "\x1b[?7l";
const WRAP: &str = "\x1b[?7h";

/// A rule under the header and one under the rows.
const STYLE: TableStyle = TableStyle::new()
    .header_separator(LineStyle::none().fill('─').junction('─'))
    .bottom_border(LineStyle::none().fill('─').junction('─'));

pub struct View {
    stream: Box<dyn Write>,
    is_terminal: bool,
    /// What stands below the lines that stay.
    frame: String,
    printed: Option<Instant>,
}

/// An edge over the whole run, and over the last seconds.
pub struct Row {
    whole: Edge,
    recent: Edge,
    /// Of `recent`.
    time: Duration,
}

impl View {
    /// On stderr when stdout is kept for the report.
    pub fn new(stdout_is_taken: bool) -> Self {
        let (stream, is_terminal): (Box<dyn Write>, bool) = if stdout_is_taken {
            (Box::new(io::stderr()), io::stderr().is_terminal())
        } else {
            (Box::new(io::stdout()), io::stdout().is_terminal())
        };
        Self { stream, is_terminal, frame: String::new(), printed: None }
    }

    /// A line, or several, that stay.
    pub fn say(&mut self, text: &str) -> anyhow::Result<()> {
        let frame = std::mem::take(&mut self.frame);
        let erased = self.erasing(&frame);
        self.write(&format!("{erased}{text}\n{}", self.framed(&frame)))?;
        self.frame = frame;
        Ok(())
    }

    /// Something passing, for terminals only.
    pub fn status(&mut self, text: &str) -> anyhow::Result<()> {
        if !self.is_terminal || text == self.frame {
            return Ok(());
        }
        self.write(&format!("{}{}", self.erasing(&self.frame), self.framed(text)))?;
        self.frame = text.into();
        Ok(())
    }

    pub fn clear(&mut self) -> anyhow::Result<()> {
        self.status("")
    }

    /// The table of now.
    pub fn refresh(&mut self, table: &str) -> anyhow::Result<()> {
        if self.is_terminal {
            return self.status(table);
        }
        if self.printed.is_some_and(|printed| printed.elapsed() < PRINT_EVERY) {
            return Ok(());
        }
        self.printed = Some(Instant::now());
        self.write(table)
    }

    /// The last table, which stays.
    pub fn settle(&mut self, table: &str) -> anyhow::Result<()> {
        self.clear()?;
        self.write(table)
    }

    fn erasing(&self, frame: &str) -> String {
        let lines = frame.lines().count();
        if lines == 0 { String::new() } else { format!("\x1b[{lines}A\r{ERASE_BELOW}") }
    }

    fn framed(&self, text: &str) -> String {
        if text.is_empty() { String::new() } else { format!("{NO_WRAP}{text}{WRAP}") }
    }

    fn write(&mut self, text: &str) -> anyhow::Result<()> {
        let written = self.stream.write_all(text.as_bytes()).and_then(|()| self.stream.flush());
        written.context("writing to the terminal")
    }
}

/// Each edge, with what it did since the earlier state, which was this long ago.
pub fn rows(edges: &[Edge], earlier: &[Edge], time: Duration) -> Vec<Row> {
    let row = |edge: &Edge| {
        let before = earlier.iter().find(|before| (&before.from, &before.to) == (&edge.from, &edge.to));
        let recent = before.map_or_else(|| edge.clone(), |before| edge.since(before));
        Row { whole: edge.clone(), recent, time }
    };
    edges.iter().map(row).collect()
}

/// The service graph with its golden signals. Counts and success are of the whole run, rate and latency recent.
pub fn table(rows: &[Row], elapsed: Duration) -> String {
    let header = [
        "edge",
        "requests",
        "per s",
        "success",
        "p50 ms",
        "p95 ms",
        "p99 ms",
        "mTLS",
        "identities, client -> server",
    ];
    let mut table = Table::new();
    table.load_style(STYLE).set_header(header);
    for row in rows {
        table.add_row(cells(row));
    }
    for number in 1..=6 {
        if let Some(column) = table.column_mut(number) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    let requests: u64 = rows.iter().map(|row| row.whole.requests).sum();
    let failed: u64 = rows.iter().map(|row| row.whole.failed).sum();
    let rate: f64 = rows.iter().map(Row::rate).sum();
    let seconds = elapsed.as_secs();
    format!("{table}\n {seconds} s: {requests} requests, {rate:.0} per s over all edges, {failed} failed\n")
}

fn cells(row: &Row) -> [String; 9] {
    let Row { whole, recent, .. } = row;
    let latency = |q| format!("{:.1}", recent.durations.quantile(q) * 1_000.0);
    let identity = |identity: &Option<String>| identity.as_deref().map_or("?".into(), short);
    [
        format!("{} -> {}", whole.from, whole.to),
        whole.requests.to_string(),
        format!("{:.0}", row.rate()),
        percent(whole.success_rate()),
        latency(0.5),
        latency(0.95),
        latency(0.99),
        if whole.mtls { "yes" } else { "NO" }.into(),
        format!("{} -> {}", identity(&whole.client_identity), identity(&whole.server_identity)),
    ]
}

impl Row {
    fn rate(&self) -> f64 {
        self.recent.requests as f64 / self.time.as_secs_f64().max(0.001)
    }
}

/// A hundred only when nothing failed.
fn percent(rate: f64) -> String {
    let percent = rate * 100.0;
    if rate < 1.0 { format!("{:.2} %", percent.min(99.99)) } else { "100 %".into() }
}

/// `shop/cart` for the SPIFFE identity of service account cart in namespace shop.
fn short(identity: &str) -> String {
    let path = identity.split("/ns/").nth(1);
    path.map_or_else(|| identity.into(), |path| path.replace("/sa/", "/"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::{Arc, Mutex};

    fn edge(requests: u64, failed: u64) -> Edge {
        let id = |name: &str| Some(format!("spiffe://cluster.local/ns/shop/sa/{name}"));
        let mut edge =
            Edge { from: "customer".into(), to: "product".into(), requests, failed, ..Edge::default() };
        (edge.client_identity, edge.server_identity, edge.mtls) =
            (id("customer"), id("product"), failed == 0);
        edge.durations.add_bucket(0.002, requests);
        edge.durations.add_bucket(f64::INFINITY, requests);
        edge
    }

    #[test]
    fn the_table_tells_the_signals_of_each_edge() {
        let text = table(
            &rows(&[edge(1_234, 0)], &[edge(1_034, 0)], Duration::from_secs(2)),
            Duration::from_secs(9),
        );
        let row = text.lines().find(|line| line.contains("customer -> product")).unwrap();
        let words: Vec<_> = row.split_whitespace().collect();
        let expected = "customer -> product 1234 100 100 % 1.0 1.9 2.0 yes shop/customer -> shop/product";
        assert_eq!(words.join(" "), expected);
        assert!(text.ends_with(" 9 s: 1234 requests, 100 per s over all edges, 0 failed\n"), "{text}");
        assert!(text.lines().all(|line| line.chars().count() <= 120), "{text}");
    }

    #[test]
    fn one_failure_of_a_million_is_seen() {
        assert_eq!(percent(0.999_999), "99.99 %");
        assert_eq!(percent(1.0), "100 %");
        assert!(table(&rows(&[edge(9, 1)], &[], Duration::ZERO), Duration::ZERO).contains(" NO "));
    }

    #[derive(Clone, Default)]
    struct Screen(Arc<Mutex<Vec<u8>>>);

    impl Write for Screen {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn frames_are_replaced_in_place_on_a_terminal_only() {
        let shown = |is_terminal| {
            let screen = Screen::default();
            let stream = Box::new(screen.clone());
            let mut view = View { stream, is_terminal, frame: String::new(), printed: None };
            view.status("wait\n").unwrap();
            view.refresh("a\nb\n").unwrap();
            view.refresh("c\nd\n").unwrap();
            view.say("event").unwrap();
            view.settle("end\n").unwrap();
            let bytes = screen.0.lock().unwrap().clone();
            String::from_utf8(bytes).unwrap().replace(NO_WRAP, "").replace(WRAP, "")
        };
        assert_eq!(shown(false), "a\nb\nevent\nend\n");
        let expected = "wait\n\x1b[1A\r\x1b[Ja\nb\n\x1b[2A\r\x1b[Jc\nd\n\x1b[2A\r\x1b[Jevent\nc\nd\n\x1b[2A\r\x1b[Jend\n";
        assert_eq!(shown(true), expected);
    }
}
