//! Role customer: the front of the shop. It renders the page at `/` and hands the rest of the browser's API on to the
//! services behind; it keeps nothing.

use std::fmt::Write;

use hyper::Method;
use serde::Deserialize;

use super::{Answer, Asked, Upstream};
use crate::fault::Fault;

pub struct Customer {
    pub product: Upstream,
    pub cart: Upstream,
    pub order: Upstream,
    pub auth: Upstream,
}

/// As product lists it.
#[derive(Deserialize)]
struct List {
    version: String,
    products: Vec<Listed>,
}

#[derive(Deserialize)]
struct Listed {
    sku: String,
    name: String,
    price_cents: u64,
}

impl Customer {
    pub async fn answer(&self, asked: &Asked) -> Result<Answer, Fault> {
        let (method, path) = asked.route();
        match (method, path.as_slice()) {
            ("GET", []) => {
                let page = page(&self.product.fetch(asked, "/products").await?);
                Ok(Answer { media: "text/html; charset=utf-8", body: page.into() })
            }
            ("GET", ["products"] | ["products", _]) => forward(&self.product, asked, &asked.path).await,
            ("POST", ["session"]) => forward(&self.auth, asked, "/sessions").await,
            ("GET" | "POST" | "DELETE", ["cart"]) => forward(&self.cart, asked, "/cart").await,
            ("GET" | "POST", ["orders"]) => forward(&self.order, asked, "/orders").await,
            _ => Err(asked.unknown()),
        }
    }
}

async fn forward(upstream: &Upstream, asked: &Asked, path: &str) -> Result<Answer, Fault> {
    let body = if asked.method == Method::POST { asked.body.clone() } else { bytes::Bytes::new() };
    let body = upstream.call(asked, asked.method.clone(), path, body).await?;
    Ok(Answer { media: "application/json", body })
}

/// The front page, in which the goods take the place of a mark.
fn page(list: &List) -> String {
    let mut goods = String::new();
    for Listed { sku, name, price_cents } in &list.products {
        let (sku, name) = (escape(sku), escape(name));
        let (units, cents) = (price_cents / 100, price_cents % 100);
        write!(goods, "<li><b>{name}</b><i>{units}.{cents:02}</i><button value=\"{sku}\">Add</button></li>")
            .expect("writing to a String does not fail");
    }
    let template = include_str!("front.html");
    template.replace("<!--version-->", &escape(&list.version)).replace("<!--goods-->", &goods)
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&quot;")
        .replace('\'', "&#39;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_lists_the_goods_and_trusts_no_name() {
        let name = "<script>\"&'".to_owned();
        let products = vec![Listed { sku: "loom".to_owned(), name, price_cents: 28_905 }];
        let page = page(&List { version: "v2".to_owned(), products });
        assert!(
            page.contains("<b>&lt;script&gt;&quot;&amp;&#39;</b><i>289.05</i><button value=\"loom\">"),
            "{page}"
        );
        assert!(page.contains("catalogue v2"), "{page}");
    }
}
