//! Policies on the running shop, one after the other: a canary whose weights are shifted, an A/B test, and a bad release behind
//! retries and a breaker. Each is a manifest of `examples/policies`, applied as a user would; what came of it the proxies tell.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::{REFRESH, Show};
use crate::demo::manifests::{AB, CANARY, FLAKY};
use crate::demo::signals::graph;

/// How long a step lasts, where there is no end that they have to be done by.
const STEP: Duration = Duration::from_secs(4);

/// One change of policy.
struct Step {
    says: &'static str,
    file: &'static str,
    text: &'static str,
    /// Weights in the place of the manifest's 90 and 10.
    weights: Option<[u32; 2]>,
    /// The services whose shares are told.
    between: &'static [&'static str],
}

const PRODUCTS: &[&str] = &["product-v1", "product-v2"];

const STEPS: [Step; 4] = [
    Step {
        says: "canary: one of ten requests for product to v2",
        file: "canary.yaml",
        text: CANARY,
        weights: None,
        between: PRODUCTS,
    },
    Step {
        says: "canary: the weights are shifted, half of them to v2",
        file: "canary.yaml",
        text: CANARY,
        weights: Some([50, 50]),
        between: PRODUCTS,
    },
    Step {
        says: "A/B: visitors of group B by their User-Agent to v2",
        file: "ab.yaml",
        text: AB,
        weights: None,
        between: PRODUCTS,
    },
    Step {
        says: "a release of review that fails 4 of 5 requests, behind retries and a breaker",
        file: "flaky.yaml",
        text: FLAKY,
        weights: None,
        between: &["review"],
    },
];

/// How far it is.
#[derive(Default)]
pub struct Policies {
    /// Steps begun.
    begun: usize,
    /// Since when, for how long and from which counts on the present one runs.
    current: Option<(Instant, Duration, Counts)>,
}

/// Requests and failures by service.
type Counts = BTreeMap<String, (u64, u64)>;

impl Policies {
    pub fn are_over(&self) -> bool {
        self.begun == STEPS.len() && self.current.is_none()
    }

    /// Goes on as far as the time allows; all of it is to be done by `end`.
    pub(super) fn advance(&mut self, show: &mut Show, end: Option<Instant>) -> anyhow::Result<()> {
        match &self.current {
            Some((since, time, _)) if since.elapsed() < *time => return Ok(()),
            Some((.., before)) => {
                let told = tell(&STEPS[self.begun - 1], before, &counts(show)?);
                show.view.say(&told)?;
                self.current = None;
            }
            None => {}
        }
        if let Some(step) = STEPS.get(self.begun) {
            let left = (STEPS.len() - self.begun) as u32;
            let time = end.map_or(STEP, |end| end.saturating_duration_since(Instant::now()) / left);
            apply(show, step)?;
            self.current = Some((Instant::now(), time.max(REFRESH), counts(show)?));
            self.begun += 1;
        }
        Ok(())
    }
}

/// Gives the step's objects to control, and starts its pods.
fn apply(show: &mut Show, step: &Step) -> anyhow::Result<()> {
    show.view.say(&format!("      policy: {} (examples/policies/{})", step.says, step.file))?;
    let text = match step.weights {
        Some([one, other]) => step
            .text
            .replace("weight: 90", &format!("weight: {one}"))
            .replace("weight: 10", &format!("weight: {other}")),
        None => step.text.to_owned(),
    };
    let (manifests, pods) = show.cluster.apply(step.file, &text)?;
    manifests.iter().try_for_each(|manifest| show.kubelet.apply(manifest))?;
    pods.into_iter().try_for_each(|pod| show.kubelet.run(pod))
}

fn counts(show: &Show) -> anyhow::Result<Counts> {
    let mut counts = Counts::new();
    for edge in graph(&show.kubelet.scrape()?) {
        let (requests, failed) = counts.entry(edge.to).or_default();
        *requests += edge.requests;
        *failed += edge.failed;
    }
    Ok(counts)
}

/// What became of the requests meanwhile.
fn tell(step: &Step, before: &Counts, after: &Counts) -> String {
    let of = |service: &str| {
        let (requests, failed) = after.get(service).copied().unwrap_or_default();
        let (requests_before, failed_before) = before.get(service).copied().unwrap_or_default();
        (requests - requests_before, failed - failed_before)
    };
    let all: u64 = step.between.iter().map(|service| of(service).0).sum();
    let failed: u64 = step.between.iter().map(|service| of(service).1).sum();
    let shares: Vec<_> = step
        .between
        .iter()
        .map(|service| {
            let requests = of(service).0;
            format!("{service} {requests} ({:.0} %)", requests as f64 * 100.0 / all.max(1) as f64)
        })
        .collect();
    let failures = if failed == 0 { "no failed request".into() } else { format!("{failed} FAILED requests") };
    format!("              {}; {failures}", shares.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_weight_that_is_shifted_stands_in_the_manifest() {
        for weight in ["weight: 90\n", "weight: 10\n"] {
            assert_eq!(CANARY.matches(weight).count(), 1, "{weight}");
        }
    }

    #[test]
    fn shares_are_of_what_came_meanwhile() {
        let counts = |v1, v2| Counts::from([("product-v1".into(), (v1, 0)), ("product-v2".into(), (v2, 0))]);
        let told = tell(&STEPS[0], &counts(100, 100), &counts(190, 110));
        assert_eq!(told.trim(), "product-v1 90 (90 %), product-v2 10 (10 %); no failed request");
    }
}
