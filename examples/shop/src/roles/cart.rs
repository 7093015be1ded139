//! Role cart: what each visitor means to buy, in memory; a cart does not outlive its process.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use serde_json::json;

use super::{Answer, Asked, LINES_LIMIT, Line, Lines, Upstream, Word, identify, price};
use crate::fault::Fault;

/// Carts kept; over it the alphabetically first one is dropped. (A shop that sells would choose with more care.)
const CARTS_LIMIT: usize = 10_000;

pub struct Cart {
    product: Upstream,
    auth: Upstream,
    carts: Mutex<BTreeMap<Word, Vec<Line>>>,
}

impl Cart {
    pub fn new(product: Upstream, auth: Upstream) -> Self {
        Self { product, auth, carts: Mutex::default() }
    }

    pub async fn answer(&self, asked: &Asked) -> Result<Answer, Fault> {
        match asked.route() {
            ("GET", path) if path == ["cart"] => {
                let visitor = identify(&self.auth, asked).await?;
                let lines = self.carts().get(&visitor).cloned().unwrap_or_default();
                Ok(Answer::json(&Lines { lines }))
            }
            ("POST", path) if path == ["cart"] => {
                let line: Line = asked.json()?;
                let visitor = identify(&self.auth, asked).await?;
                let price_cents = price(&self.product, asked, &line.sku).await?;
                let (sku, lines) = (line.sku.clone(), self.add(visitor, line)?);
                Ok(Answer::json(&json!({"added": sku, "price_cents": price_cents, "lines": lines})))
            }
            ("DELETE", path) if path == ["cart"] => {
                let visitor = identify(&self.auth, asked).await?;
                let lines = self.carts().remove(&visitor).unwrap_or_default();
                Ok(Answer::json(&Lines { lines }))
            }
            _ => Err(asked.unknown()),
        }
    }

    /// Returns what the cart then holds.
    fn add(&self, visitor: Word, line: Line) -> Result<Vec<Line>, Fault> {
        let mut carts = self.carts();
        if !carts.contains_key(&visitor) && carts.len() >= CARTS_LIMIT {
            carts.pop_first();
        }
        let lines = carts.entry(visitor).or_default();
        match lines.iter().position(|held| held.sku == line.sku) {
            Some(place) => lines[place].quantity = lines[place].quantity.plus(line.quantity),
            None if lines.len() < LINES_LIMIT => lines.push(line),
            None => return Err(Fault::Conflict(format!("a cart holds {LINES_LIMIT} lines"))),
        }
        Ok(lines.clone())
    }

    fn carts(&self) -> MutexGuard<'_, BTreeMap<Word, Vec<Line>>> {
        self.carts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
