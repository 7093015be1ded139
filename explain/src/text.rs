//! The same for people: aligned, without what says nothing.

use crate::{Backend, Considered, EndpointView, Setting, Tls, Verdict, Vouching, settings::NONE};
use std::fmt;

/// Of endpoints more are not printed one by one.
const ENDPOINTS: usize = 8;

impl fmt::Display for Verdict {
    /// One line says what is done; below it stand the reasons, a part each.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{} to {}: {}", self.asked, self.target, self.outcome.says)?;
        if let Some(why) = &self.outcome.reason {
            f.write_str(&part("Why", &[vec![why.says.into()], vec![why.remedy.into()]]))?;
        }
        f.write_str(&part("Rule", &self.rule()))?;
        let lost = |one: &&Considered| one.lost.is_some();
        let others: Vec<_> = self.considered.iter().filter(lost).map(row_of_loser).collect();
        f.write_str(&part("Lost", &others))?;
        let mut filters: Vec<_> = self.filters.iter().map(|filter| vec![filter.clone()]).collect();
        filters.extend(self.path.iter().map(|path| vec![format!("a backend is asked for {path}")]));
        f.write_str(&part("Filters", &filters))?;
        f.write_str(&part("Backends", &self.backends.iter().flat_map(rows_of_backend).collect::<Vec<_>>()))?;
        if self.outcome.action == "forward" {
            f.write_str(&part("Settings", &self.carried()))?;
            f.write_str(&part("Speaks", &[vec![spoken(&self.protocol)]]))?;
        }
        Ok(())
    }
}

impl Verdict {
    fn rule(&self) -> Vec<Vec<String>> {
        match (&self.rule, &self.by) {
            (Some(rule), Some(by)) => vec![vec![format!("{rule} by {by}")]],
            (Some(rule), None) => vec![vec![rule.clone()]],
            (None, _) if self.considered.is_empty() => vec![vec!["none: no route is attached".into()]],
            (None, _) => vec![vec!["none of those that are attached".into()]],
        }
    }
}

impl Verdict {
    /// What is set, and what is not in as few lines as that takes.
    fn carried(&self) -> Vec<Vec<String>> {
        let nothing = |one: &&Setting| one.by.is_none() && one.value == NONE;
        let mut rows: Vec<_> = self.settings.iter().filter(|one| !nothing(one)).map(row_of_setting).collect();
        let mut unset = Vec::new();
        if self.settings.iter().any(|one| nothing(&one)) {
            unset.push("other timeouts");
        }
        let backends = || self.backends.iter().flat_map(|one| &one.settings);
        for name in ["limits", "failureAccrual"] {
            let mut of = backends().filter(|one| one.name.starts_with(name)).peekable();
            if of.peek().is_some() && of.all(|one| nothing(&one)) {
                unset.push(name);
            }
        }
        let retried = self.settings.iter().any(|one| one.name.starts_with("retry."));
        let budget = backends().find(|one| one.name == "retryBudget" && one.by.is_none() && retried);
        rows.extend(budget.map(row_of_setting));
        if !unset.is_empty() {
            rows.push(vec![unset.join(", "), NONE.into(), "default".into()]);
        }
        rows
    }
}

fn spoken(protocol: &str) -> String {
    match protocol {
        "Auto" => "what the proxies find out: nobody said it".into(),
        other => other.into(),
    }
}

fn row_of_loser(one: &Considered) -> Vec<String> {
    vec![one.rule.clone(), one.by.clone(), one.lost.clone().unwrap_or_default()]
}

fn row_of_setting(setting: &Setting) -> Vec<String> {
    let by = setting.by.as_deref().unwrap_or("default");
    vec![setting.name.into(), setting.value.clone(), by.into()]
}

fn rows_of_backend(backend: &Backend) -> Vec<Vec<String>> {
    let Backend { to, percent, filters, settings, endpoints, .. } = backend;
    let behind = endpoints.as_deref().map(behind);
    let behind = match backend.resolved {
        true => behind.unwrap_or_else(|| "its endpoints are not known here".into()),
        false => String::new(),
    };
    let mut rows = vec![vec![format!("{percent} %"), to.clone(), behind]];
    let below = |cells: [String; 2]| vec![String::new(), format!("  {}", cells[0]), cells[1].clone()];
    let known = endpoints.iter().flatten();
    rows.extend(known.clone().take(ENDPOINTS).map(|endpoint| {
        let name = endpoint.workload.as_deref().unwrap_or("no Pod");
        below([format!("{} {name}", endpoint.address), who(endpoint)])
    }));
    if let Some(more) = known.count().checked_sub(ENDPOINTS).filter(|more| *more > 0) {
        rows.push(below([format!("and {more} more"), String::new()]));
    }
    rows.extend(filters.iter().map(|filter| below([filter.clone(), String::new()])));
    rows.extend(settings.iter().filter_map(|setting| {
        let by = setting.by.as_ref()?;
        Some(below([format!("{} {}, by {by}", setting.name, setting.value), String::new()]))
    }));
    rows
}

/// How many endpoints there are, and how they are spoken to.
fn behind(endpoints: &[EndpointView]) -> String {
    let meshed = endpoints.iter().filter(|endpoint| endpoint.identity.is_some()).count();
    let tls = endpoints.iter().filter(|endpoint| endpoint.tls.is_some()).count();
    match (endpoints.len(), meshed, tls) {
        (0, ..) => "no endpoints".into(),
        (1, 1, _) => "1 endpoint, by mTLS".into(),
        (1, _, 1) => "1 endpoint, by TLS".into(),
        (1, ..) => "1 endpoint, in plaintext".into(),
        (all, meshed, _) if all == meshed => format!("{all} endpoints, all by mTLS"),
        (all, _, tls) if all == tls => format!("{all} endpoints, all by TLS"),
        (all, 0, 0) => format!("{all} endpoints, all in plaintext"),
        (all, meshed, 0) => format!("{all} endpoints, {meshed} of them by mTLS"),
        (all, 0, tls) => format!("{all} endpoints, {tls} of them by TLS"),
        (all, meshed, tls) => format!("{all} endpoints, {meshed} of them by mTLS, {tls} by TLS"),
    }
}

/// Who must answer at an endpoint.
fn who(endpoint: &EndpointView) -> String {
    match (&endpoint.identity, &endpoint.tls) {
        (Some(identity), _) => identity.clone(),
        (None, Some(Tls { by, authorities: Vouching::None, .. })) => {
            format!("no connection: nobody vouches for its TLS ({by})")
        }
        (None, Some(Tls { hostname, alt_names, by, .. })) => {
            let names = alt_names.iter().map(|name| format!(", as {name}")).collect::<String>();
            format!("TLS to {hostname}{names} ({by})")
        }
        (None, None) => "no proxy".into(),
    }
}

/// A part of the text: its name before the first row, and all rows aligned. Nothing where there is no row.
pub fn part(name: &str, rows: &[Vec<String>]) -> String {
    let mut text = String::new();
    for (at, line) in table(rows).lines().enumerate() {
        let name = if at == 0 { name } else { "" };
        text.push_str(format!("  {name:<9} {line}").trim_end());
        text.push('\n');
    }
    text
}

/// Rows with their columns aligned, a line each.
pub fn table(rows: &[Vec<String>]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or_default();
    let mut widths = vec![0; columns];
    for row in rows {
        // The last cell that says something pushes nothing aside.
        let last = row.iter().rposition(|cell| !cell.is_empty()).unwrap_or_default();
        for (width, cell) in widths.iter_mut().zip(&row[..last]) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let mut text = String::new();
    for row in rows {
        let cells = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}"));
        let line = cells.collect::<Vec<_>>().join("  ");
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}
