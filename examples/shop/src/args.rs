//! Flags and environment, parsed into types. No defaults hide here that depend on where the process runs.

use std::net::SocketAddr;
use std::time::Duration;

use clap::{Args as Group, Parser, ValueEnum};

use crate::client::Target;

/// The example shop: six services and a visitor in one binary.
#[derive(Parser, Debug)]
#[command(name = "weft-shop", disable_version_flag = true)]
pub struct Args {
    /// What this process is
    #[arg(long, env = "SHOP_ROLE", value_enum)]
    pub role: Role,
    /// The version it says it is; product v2 also quotes reviews
    #[arg(long, env = "SHOP_VERSION", default_value = "v1")]
    pub version: String,
    /// Address to serve on; `[::]` takes IPv4 too
    #[arg(long, env = "SHOP_LISTEN", default_value = "[::]:8080")]
    pub listen: SocketAddr,
    /// After SIGTERM: how long to go on serving, not ready, before connections are closed
    #[arg(long, env = "SHOP_DRAIN", default_value = "2s", value_parser = duration)]
    pub drain: Duration,
    /// Answer so many percent of requests with 503, evenly: a release that should not have gone out
    #[arg(long, env = "SHOP_FAILING", value_name = "PERCENT", default_value_t = 0, value_parser = clap::value_parser!(u8).range(0..=100))]
    pub failing: u8,
    #[command(flatten)]
    pub upstreams: Upstreams,
    #[command(flatten)]
    pub visit: Visit,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Role {
    /// The front: the page at / and the API of the browser
    Customer,
    /// The catalogue
    Product,
    /// What each visitor means to buy
    Cart,
    /// What was bought
    Order,
    /// Who a visitor is
    Auth,
    /// What others thought of a product
    Review,
    /// A load generator in the place of an ingress
    Visitor,
}

/// Where the other services are. A role asks only for those that it calls.
#[derive(Group, Debug, Default)]
#[command(next_help_heading = "Upstreams")]
pub struct Upstreams {
    /// For customer, cart and order
    #[arg(long, env = "PRODUCT_URL", value_name = "URL")]
    pub product_url: Option<Target>,
    /// For customer and order
    #[arg(long, env = "CART_URL", value_name = "URL")]
    pub cart_url: Option<Target>,
    /// For customer
    #[arg(long, env = "ORDER_URL", value_name = "URL")]
    pub order_url: Option<Target>,
    /// For customer, cart and order
    #[arg(long, env = "AUTH_URL", value_name = "URL")]
    pub auth_url: Option<Target>,
    /// For product
    #[arg(long, env = "REVIEW_URL", value_name = "URL")]
    pub review_url: Option<Target>,
}

/// How the visitor behaves.
#[derive(Group, Debug, Clone)]
#[command(next_help_heading = "Visitor")]
pub struct Visit {
    /// The customer service
    #[arg(long, env = "TARGET_URL", value_name = "URL", required_if_eq("role", "visitor"))]
    pub target: Option<Target>,
    /// Requests a second, held whatever the answers take
    #[arg(long, env = "VISITOR_RPS", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub rps: u32,
    /// Stop after this time; without it, at SIGTERM
    #[arg(long, env = "VISITOR_DURATION", value_parser = duration)]
    pub duration: Option<Duration>,
    /// Visitors at a time, and so the most requests in flight
    #[arg(long, env = "VISITOR_CROWD", default_value_t = 32, value_parser = clap::value_parser!(u32).range(1..=4096))]
    pub crowd: u32,
    /// How long to try one uncounted purchase until it succeeds, before the clock starts; 0 does not try
    #[arg(long, env = "VISITOR_WAIT", default_value = "60s", value_parser = duration)]
    pub wait: Duration,
    /// Print the report as one JSON object on one line of stdout
    #[arg(long)]
    pub json: bool,
    /// Print a line every second to stderr
    #[arg(long)]
    pub progress: bool,
}

/// `500ms`, `30s`, `2m`, or a bare number of seconds.
pub fn duration(text: &str) -> Result<Duration, String> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let number: u64 = number.parse().map_err(|_| format!("{text:?} does not begin with a whole number"))?;
    let millis_per_unit: u64 = match unit {
        "ms" => 1,
        "" | "s" => 1_000,
        "m" => 60_000,
        _ => return Err(format!("unit {unit:?} is none of ms, s, m")),
    };
    number
        .checked_mul(millis_per_unit)
        .map(Duration::from_millis)
        .ok_or_else(|| format!("{text:?} is too long"))
}
