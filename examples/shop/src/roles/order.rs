//! Role order: takes an order, prices it, empties the cart, and remembers the last ones.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use hyper::Method;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::{Answer, Asked, LINES_LIMIT, Line, Lines, Upstream, Word, identify, price};
use crate::fault::Fault;

/// Orders remembered; the oldest is forgotten first.
const ORDERS_LIMIT: usize = 1_000;
/// Orders shown to a visitor, the newest first.
const SHOWN: usize = 5;

pub struct Order {
    product: Upstream,
    cart: Upstream,
    auth: Upstream,
    book: Mutex<Book>,
}

#[derive(Default)]
struct Book {
    placed: u64,
    last: VecDeque<Placed>,
}

#[derive(Clone, Serialize)]
struct Placed {
    id: String,
    visitor: Word,
    lines: Vec<Line>,
    total_cents: u64,
}

/// The body of POST /orders. Lines that the visitor has confirmed are ordered as they are; without them it is what
/// the cart holds.
#[derive(Deserialize)]
struct Wish {
    lines: Option<Vec<Line>>,
}

impl Order {
    pub fn new(product: Upstream, cart: Upstream, auth: Upstream) -> Self {
        Self { product, cart, auth, book: Mutex::default() }
    }

    pub async fn answer(&self, asked: &Asked) -> Result<Answer, Fault> {
        match asked.route() {
            ("POST", path) if path == ["orders"] => self.place(asked).await,
            ("GET", path) if path == ["orders"] => {
                let visitor = identify(&self.auth, asked).await?;
                let book = self.book();
                let own = book.last.iter().rev().filter(|order| order.visitor == visitor);
                Ok(Answer::json(&json!({"orders": own.take(SHOWN).collect::<Vec<_>>()})))
            }
            _ => Err(asked.unknown()),
        }
    }

    async fn place(&self, asked: &Asked) -> Result<Answer, Fault> {
        let Wish { lines } = asked.json()?;
        let visitor = identify(&self.auth, asked).await?;
        let lines = match lines {
            Some(lines) => lines,
            None => self.cart.fetch::<Lines>(asked, "/cart").await?.lines,
        };
        if !(1..=LINES_LIMIT).contains(&lines.len()) {
            return Err(Fault::Conflict(format!(
                "an order has 1 to {LINES_LIMIT} lines, not {}",
                lines.len()
            )));
        }
        let mut total_cents = 0;
        for line in &lines {
            total_cents += price(&self.product, asked, &line.sku).await? * u64::from(line.quantity.0);
        }
        // Last, so that an order that cannot be placed leaves the cart as it was.
        self.cart.call(asked, Method::DELETE, "/cart", Bytes::new()).await?;
        Ok(Answer::json(&self.book().enter(visitor, lines, total_cents)))
    }

    fn book(&self) -> MutexGuard<'_, Book> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Book {
    fn enter(&mut self, visitor: Word, lines: Vec<Line>, total_cents: u64) -> Placed {
        self.placed += 1;
        let order = Placed { id: format!("o-{:06}", self.placed), visitor, lines, total_cents };
        if self.last.len() >= ORDERS_LIMIT {
            self.last.pop_front();
        }
        self.last.push_back(order.clone());
        order
    }
}
