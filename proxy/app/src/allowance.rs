//! What may be done to one backend: repetitions within its budget, requests and connections within its limits. Which limits hold is
//! said by the rule of each request; here is what counts against them. A budget is a worker's own, as the requests are that pay for
//! it; limits are the whole proxy's.

use crate::telemetry::{Limited, Permit, Usage};
use policy::{Reason, settings::RetryBudget, settings::Set};
use proxy_balance::{Budget, BudgetLimits};
use proxy_http::failed::Failed;
use std::{cell::RefCell, sync::Arc};
use tokio::time::Instant;

/// Budgets of one backend that are kept: rules rarely differ in them.
const BUDGETS: usize = 8;

#[derive(Default)]
pub struct Allowance {
    usage: Arc<Usage>,
    /// One for each way to limit repetitions.
    budgets: RefCell<Vec<Budget>>,
}

impl Allowance {
    pub fn new(usage: Arc<Usage>) -> Self {
        Self { usage, budgets: RefCell::default() }
    }

    /// One more of what is limited, if there is a limit.
    pub fn take(&self, limited: Limited, limit: Option<&Set<u32>>) -> Result<Option<Permit>, Failed> {
        let Some(Set { value, by }) = limit else { return Ok(None) };
        let permit = self.usage.take(limited, *value);
        permit.map(Some).ok_or_else(|| {
            let (reason, field) = match limited {
                Limited::Connections => (Reason::ConnectionLimitReached, "maxConnections"),
                Limited::Pending => (Reason::RequestLimitReached, "maxPendingRequests"),
                Limited::Requests => (Reason::RequestLimitReached, "maxRequests"),
            };
            Failed::new(reason, format!("limits.{field} of {by} is {value}"))
        })
    }

    /// A request that may be repeated is sent for the first time.
    pub fn request(&self, budget: Option<&Set<RetryBudget>>, now: Instant) {
        self.budget(budget, |budget| budget.request(now.into_std()));
    }

    /// May a request be sent once more? If so, it is counted.
    pub fn withdraw(&self, budget: Option<&Set<RetryBudget>>, now: Instant) -> bool {
        self.budget(budget, |budget| budget.withdraw(now.into_std()))
    }

    fn budget<T>(&self, budget: Option<&Set<RetryBudget>>, with: impl FnOnce(&mut Budget) -> T) -> T {
        let limits = limits(budget.map_or_else(RetryBudget::default, |set| set.value));
        let mut budgets = self.budgets.borrow_mut();
        let at = match budgets.iter().position(|budget| budget.limits() == limits) {
            Some(at) => at,
            None => {
                budgets.truncate(BUDGETS - 1);
                budgets.insert(0, Budget::new(limits));
                0
            }
        };
        with(&mut budgets[at])
    }
}

fn limits(budget: RetryBudget) -> BudgetLimits {
    let RetryBudget { percent, interval, min_count, min_interval } = budget;
    BudgetLimits { percent, interval, min_count, min_interval }
}
