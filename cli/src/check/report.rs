//! The report for people: a line a check, and below it what is wrong, why it matters and what to do.

use super::facts::Facts;
use super::finding::{Breach, Finding, Weight};

/// Breaches of a check that are told one by one; `-o json` tells all.
const TOLD: usize = 10;

/// Sound checks are a line each, others are told in full.
pub fn text(findings: &[Finding], facts: &Facts) -> String {
    let mut text = String::new();
    for finding in findings {
        text += &format!("{} {}: {}\n", sign(finding.weight), finding.check, finding.what);
        let told = &finding.breaches[..finding.breaches.len().min(TOLD)];
        for same in told.chunk_by(|one, next| one.mend == next.mend) {
            text += &tell(same);
        }
        if finding.breaches.len() > TOLD {
            text +=
                &format!("         and {} more: --output json tells all\n", finding.breaches.len() - TOLD);
        }
        if finding.weight >= Weight::Warning {
            text += &format!("         why it matters: {}\n", finding.why);
        }
    }
    text + &summary(findings, facts)
}

/// Breaches that are mended alike: what to do stands once, below them.
fn tell(same: &[Breach]) -> String {
    let mut text = String::new();
    for Breach { at, found, .. } in same {
        let colon = if at.is_empty() { "" } else { ": " };
        text += &format!("         {at}{colon}{found}\n");
    }
    match same.first().map(|breach| breach.mend.as_str()).filter(|mend| !mend.is_empty()) {
        Some(mend) => text + &format!("           -> {mend}\n"),
        None => text,
    }
}

fn sign(weight: Weight) -> &'static str {
    match weight {
        Weight::Ok => "ok      ",
        Weight::Notice => "notice  ",
        Weight::Warning => "WARNING ",
        Weight::Unknown => "UNKNOWN ",
        Weight::Failed => "FAILED  ",
    }
}

fn summary(findings: &[Finding], facts: &Facts) -> String {
    let count = |weight| findings.iter().filter(|finding| finding.weight == weight).count();
    let (failed, unknown, warnings) = (count(Weight::Failed), count(Weight::Unknown), count(Weight::Warning));
    let of = format!("{} checks, namespace {}", findings.len(), facts.namespace);
    match (failed, unknown, warnings) {
        (0, 0, 0) => format!("all is well ({of})\n"),
        (0, 0, warnings) => format!("all works; {warnings} with a warning ({of})\n"),
        _ => format!("{failed} failed, {unknown} unknown, {warnings} with a warning ({of})\n"),
    }
}
