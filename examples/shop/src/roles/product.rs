//! Role product: the catalogue. Version v1 tells the rating of a product, v2 also quotes a review.

use serde::Serialize;
use serde_json::{Value, json};

use super::{Answer, Asked, Price, Upstream, Word};
use crate::fault::Fault;

pub struct Product {
    version: String,
    review: Upstream,
}

#[derive(Serialize)]
pub struct Item {
    pub sku: &'static str,
    pub name: &'static str,
    pub price_cents: u64,
    pub text: &'static str,
}

const fn item(sku: &'static str, name: &'static str, price_cents: u64, text: &'static str) -> Item {
    Item { sku, name, price_cents, text }
}

/// All there is to buy.
pub const CATALOGUE: [Item; 8] = [
    item("loom", "Table loom", 28_900, "Forty centimetres of weaving width, folds flat, beech."),
    item("shuttle", "Boat shuttle", 1_950, "Open bottom, takes a ten-centimetre bobbin."),
    item("bobbin", "Bobbins, box of 12", 890, "Turned birch; they do not rattle."),
    item("reed", "Reed, 40/10", 3_400, "Stainless steel, forty dents in ten centimetres."),
    item("wool", "Wool, 500 g", 2_250, "Two-ply, undyed, from sheep with a view."),
    item("linen", "Linen, 500 g", 2_780, "Wet-spun; gets better each wash."),
    item("lamp", "Work lamp", 4_990, "Warm light on a long arm, so that evenings count too."),
    item("scissors", "Thread scissors", 1_290, "Forged, small enough to lose, red so that you do not."),
];

impl Product {
    pub fn new(version: &str, review: Upstream) -> Self {
        Self { version: version.to_owned(), review }
    }

    pub async fn answer(&self, asked: &Asked) -> Result<Answer, Fault> {
        let (method, path) = asked.route();
        match (method, path.as_slice()) {
            ("GET", ["products"]) => Ok(Answer::json(&json!({
                "version": self.version,
                "products": CATALOGUE.iter().map(|i| json!({"sku": i.sku, "name": i.name, "price_cents": i.price_cents}))
                    .collect::<Vec<_>>(),
            }))),
            ("GET", ["products", sku]) => self.show(asked, find(sku)?).await,
            ("GET", ["products", sku, "price"]) => {
                let Item { sku, price_cents, .. } = find(sku)?;
                let sku = Word::try_from((*sku).to_owned())
                    .expect("a test holds that the catalogue has only words");
                Ok(Answer::json(&Price { sku, price_cents: *price_cents }))
            }
            _ => Err(asked.unknown()),
        }
    }

    async fn show(&self, asked: &Asked, item: &Item) -> Result<Answer, Fault> {
        let opinion: Value = self.review.fetch(asked, &format!("/reviews/{}", item.sku)).await?;
        let mut shown = json!({"version": self.version, "product": item, "rating": opinion["rating"]});
        if self.version != "v1" {
            shown["quote"] = opinion["reviews"][0].clone();
        }
        Ok(Answer::json(&shown))
    }
}

fn find(sku: &str) -> Result<&'static Item, Fault> {
    CATALOGUE.iter().find(|item| item.sku == sku).ok_or_else(|| Fault::NotFound(format!("product {sku:?}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_catalogue_has_only_words() {
        for item in &CATALOGUE {
            assert!(Word::try_from(item.sku.to_owned()).is_ok(), "{}", item.sku);
        }
    }
}
