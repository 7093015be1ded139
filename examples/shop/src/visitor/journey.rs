//! Where visitors go: journeys as lists of steps, the request of each step, and what a right answer to it looks like.
//! Pure and without chance: the same visitor in the same round takes the same way.

use hyper::Method;
use serde_json::{Value, json};

/// What a visitor knows of the catalogue.
const SKUS: [&str; 8] = ["loom", "shuttle", "bobbin", "reed", "wool", "linen", "lamp", "scissors"];

/// One request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    Front,
    List,
    Look(&'static str),
    Enter,
    Fill(&'static str, u32),
    Cart,
    Buy(&'static str, u32),
    Orders,
}

/// Of ten journeys five only browse, three leave a cart behind, two buy.
pub fn journey(visitor: u64, round: u64) -> Vec<Step> {
    // Neighbours start at different places of the mix, so that a short run has all of it.
    let turn = visitor * 3 + round;
    let sku = pick(turn);
    match turn % 10 {
        0 | 2 | 4 | 6 | 8 => vec![Step::Front, Step::List, Step::Look(sku), Step::Look(pick(turn + 3))],
        1 | 5 | 9 => vec![Step::Front, Step::Enter, Step::Look(sku), Step::Fill(sku, 1), Step::Cart],
        _ => purchase(turn),
    }
}

/// The journey that calls every service.
pub fn purchase(turn: u64) -> Vec<Step> {
    let (sku, quantity) = (pick(turn), 1 + (turn % 3) as u32);
    vec![
        Step::Front,
        Step::Enter,
        Step::Look(sku),
        Step::Fill(sku, quantity),
        Step::Buy(sku, quantity),
        Step::Orders,
    ]
}

fn pick(turn: u64) -> &'static str {
    SKUS[(turn % SKUS.len() as u64) as usize]
}

impl Step {
    pub fn name(&self) -> &'static str {
        match self {
            Self::Front => "front",
            Self::List => "list",
            Self::Look(_) => "look",
            Self::Enter => "enter",
            Self::Fill(..) => "fill",
            Self::Cart => "cart",
            Self::Buy(..) => "buy",
            Self::Orders => "orders",
        }
    }

    /// Method, path and body.
    pub fn request(&self, visitor: &str) -> (Method, String, String) {
        match self {
            Self::Front => (Method::GET, "/".into(), String::new()),
            Self::List => (Method::GET, "/products".into(), String::new()),
            Self::Look(sku) => (Method::GET, format!("/products/{sku}"), String::new()),
            Self::Enter => (Method::POST, "/session".into(), json!({"visitor": visitor}).to_string()),
            Self::Fill(sku, quantity) => (Method::POST, "/cart".into(), line(sku, *quantity).to_string()),
            Self::Cart => (Method::GET, "/cart".into(), String::new()),
            // The lines are sent along, so that an order does not depend on a cart that a restart has emptied.
            Self::Buy(sku, quantity) => {
                (Method::POST, "/orders".into(), json!({"lines": [line(sku, *quantity)]}).to_string())
            }
            Self::Orders => (Method::GET, "/orders".into(), String::new()),
        }
    }

    /// Whether `body` answers this very request: `None` if it does not, else the token if the step gives one.
    pub fn check(&self, visitor: &str, body: &[u8]) -> Option<Option<String>> {
        if *self == Self::Front {
            return body.ends_with(b"</html>\n").then_some(None);
        }
        let answer: Value = serde_json::from_slice(body).ok()?;
        let right = match self {
            Self::Front => false,
            Self::List => answer["products"].as_array().is_some_and(|list| list.len() == SKUS.len()),
            Self::Look(sku) => answer["product"]["sku"] == *sku && answer["rating"].is_string(),
            Self::Enter => {
                let token = answer["token"].as_str().filter(|_| answer["visitor"] == visitor)?;
                return Some(Some(token.to_owned()));
            }
            Self::Fill(sku, _) => answer["added"] == *sku,
            // What is in it is not compared: a cart lives no longer than the process that holds it.
            Self::Cart => answer["lines"].is_array(),
            Self::Buy(sku, quantity) => {
                answer["visitor"] == visitor && answer["lines"] == json!([line(sku, *quantity)])
            }
            Self::Orders => {
                let orders = answer["orders"].as_array()?;
                orders.iter().all(|order| order["visitor"] == visitor)
            }
        };
        right.then_some(None)
    }
}

fn line(sku: &str, quantity: u32) -> Value {
    json!({"sku": sku, "quantity": quantity})
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::roles::CATALOGUE;

    #[test]
    fn visitors_know_the_catalogue() {
        assert_eq!(SKUS.as_slice(), CATALOGUE.iter().map(|item| item.sku).collect::<Vec<_>>());
    }

    #[test]
    fn the_mix_is_five_three_two() {
        let mut mix = BTreeMap::new();
        for round in 0..100 {
            let steps = journey(7, round);
            let last = steps.last().map(Step::name).unwrap();
            *mix.entry(last).or_insert(0) += 1;
        }
        assert_eq!(mix, BTreeMap::from([("look", 50), ("cart", 30), ("orders", 20)]));
    }

    #[test]
    fn only_the_answer_to_this_request_is_right() {
        let look = r#"{"product":{"sku":"loom"},"rating":"4.6"}"#;
        let bought = r#"{"id":"o-1","visitor":"ann","lines":[{"sku":"loom","quantity":2}],"total_cents":1}"#;
        let session = r#"{"visitor":"ann","token":"t"}"#;
        let cases: [(Step, &str, bool); 12] = [
            (Step::Look("loom"), look, true),
            (Step::Look("lamp"), look, false),
            (Step::Look("loom"), &look[..look.len() - 1], false),
            (Step::Enter, session, true),
            (Step::Enter, r#"{"visitor":"bob","token":"t"}"#, false),
            (Step::Buy("loom", 2), bought, true),
            (Step::Buy("loom", 1), bought, false),
            (Step::Orders, r#"{"orders":[{"visitor":"ann"}]}"#, true),
            (Step::Orders, r#"{"orders":[{"visitor":"bob"}]}"#, false),
            (Step::Front, "<html>\n</html>\n", true),
            (Step::Front, "<html>\n</ht", false),
            (Step::Cart, look, false),
        ];
        for (step, body, right) in cases {
            assert_eq!(step.check("ann", body.as_bytes()).is_some(), right, "{step:?} {body}");
        }
        assert_eq!(Step::Enter.check("ann", session.as_bytes()), Some(Some("t".to_owned())));
    }
}
