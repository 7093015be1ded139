//! The shop's manifests and policies, as they stand in `examples`, so that the program needs no other file.

macro_rules! stock {
    ($($name:literal),* $(,)?) => {
        [$(($name, include_str!(concat!("../../../examples/manifests/", $name)))),*]
    };
}

/// One product request in ten to v2.
pub const CANARY: &str = include_str!("../../../examples/policies/canary.yaml");
/// Product v2 for some User-Agents.
pub const AB: &str = include_str!("../../../examples/policies/ab.yaml");
/// A bad release of review, behind retries and a breaker.
pub const FLAKY: &str = include_str!("../../../examples/policies/flaky.yaml");

/// File name and text, in the order of the names.
pub const STOCK: [(&str, &str); 8] = stock![
    "00-namespace.yaml",
    "auth.yaml",
    "cart.yaml",
    "customer.yaml",
    "order.yaml",
    "product.yaml",
    "review.yaml",
    "visitor.yaml",
];
