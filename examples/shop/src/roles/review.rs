//! Role review: what others thought. Made up, but always the same for the same product.

use serde_json::json;

use super::{Answer, Asked};
use crate::fault::Fault;

const OPINIONS: [(u64, &str, &str); 5] = [
    (5, "Ada", "Does what it says and nothing else. I have bought a second one."),
    (4, "Joseph", "Good, once you have read the instructions from the end."),
    (5, "Grace", "Arrived early; the cat sat in the box, so everyone was content."),
    (3, "Edsger", "Fine, but I would have left half of it away."),
    (4, "Barbara", "A solid thing with a clear purpose."),
];

/// How many of the opinions a product gets.
const SHOWN: usize = 3;

pub fn answer(asked: &Asked) -> Result<Answer, Fault> {
    let (method, path) = asked.route();
    let ("GET", ["reviews", sku]) = (method, path.as_slice()) else { return Err(asked.unknown()) };
    let first = sku.bytes().map(usize::from).sum::<usize>() % OPINIONS.len();
    let picked: Vec<_> = OPINIONS.iter().cycle().skip(first).take(SHOWN).collect();
    // In tenths of a star, rounded down: no floating point in an answer that tests compare.
    let rating_tenths = picked.iter().map(|(stars, ..)| stars * 10).sum::<u64>() / picked.len() as u64;
    let reviews: Vec<_> = picked
        .iter()
        .map(|(stars, author, text)| json!({"stars": stars, "author": author, "text": text}))
        .collect();
    Ok(Answer::json(&json!({
        "sku": sku,
        "rating": format!("{}.{}", rating_tenths / 10, rating_tenths % 10),
        "reviews": reviews,
    })))
}
