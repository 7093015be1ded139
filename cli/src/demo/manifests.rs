//! The shop's manifests, as they stand in `examples/manifests`, so that the program needs no other file.

macro_rules! stock {
    ($($name:literal),* $(,)?) => {
        [$(($name, include_str!(concat!("../../../examples/manifests/", $name)))),*]
    };
}

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
