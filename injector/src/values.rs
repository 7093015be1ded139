//! The values that people write into annotations and into the configuration: port lists, networks, quantities, times,
//! log filters. Each is read from text, says what it expects, and is written as it was understood. Pure.

use init::PortRange;
use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use std::{fmt, str::FromStr};

/// A text that can be read as a value, or says which form it should have.
pub trait Form: FromStr {
    /// What is expected, as it follows the word "expected".
    const EXPECTED: &str;
}

/// Ports and ranges of ports between commas: `22,9000-9010`. An empty text holds none.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize, Serialize)]
#[serde(try_from = "String", into = "String")]
pub struct Ports(pub Vec<PortRange>);

/// Networks between commas: `10.0.0.0/8,fd00::/8`. An empty text holds none.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize, Serialize)]
#[serde(try_from = "String", into = "String")]
pub struct Subnets(pub Vec<IpNet>);

/// A quantity as Kubernetes writes it, kept as it was written.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
#[serde(try_from = "String", into = "String")]
pub struct Quantity {
    text: String,
    /// In thousand-millionths, rounded up.
    nanos: u128,
}

/// A duration in one unit, as the proxy's command line takes it: `500ms`, `30s`, `2m`, `1h`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
#[serde(try_from = "String", into = "String")]
pub struct Time(String);

/// A level, or levels by module: `info`, `warn,proxy_app=debug`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
#[serde(try_from = "String", into = "String")]
pub struct LogFilter(String);

/// The reference of an image.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
#[serde(try_from = "String", into = "String")]
pub struct Image(String);

/// What the proxy's access log holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum AccessLog {
    #[default]
    Off,
    Errors,
    All,
}

/// How the proxy stands in the pod.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Sidecar {
    /// An init container that is restarted always: it starts before the application and ends after it.
    #[default]
    Native,
    /// A container beside the application's.
    Classic,
}

/// Who redirects the pod's connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Redirection {
    /// The init container `weft-init`, which needs NET_ADMIN.
    #[default]
    Init,
    /// The CNI plugin of the node.
    Cni,
}

/// The text is not of the form that is expected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Unreadable;

impl Ports {
    /// Whether one of them is this port.
    pub fn contains(&self, port: u16) -> bool {
        self.0.iter().any(|range| range.contains(port))
    }
}

impl Quantity {
    /// Whether this is more than the other.
    pub fn exceeds(&self, other: &Quantity) -> bool {
        self.nanos > other.nanos
    }

    /// Whether two texts are the same quantity, as `1000m` and `1` are.
    pub fn same(one: &str, other: &str) -> bool {
        match (one.parse::<Quantity>(), other.parse::<Quantity>()) {
            (Ok(one), Ok(other)) => one.nanos == other.nanos,
            _ => false,
        }
    }
}

impl Form for Ports {
    const EXPECTED: &str = "ports from 1 to 65535 and ranges of them between commas, as in 22,9000-9010";
}

impl Form for Subnets {
    const EXPECTED: &str = "networks between commas, as in 10.0.0.0/8,fd00::/8";
}

impl Form for Quantity {
    const EXPECTED: &str = "a quantity of Kubernetes, as in 100m, 0.5 or 64Mi";
}

impl Form for Time {
    const EXPECTED: &str = "a duration in one unit, as in 500ms, 30s, 2m or 1h";
}

impl Form for LogFilter {
    const EXPECTED: &str =
        "off, error, warn, info, debug or trace, or these by module, as in warn,proxy_app=debug";
}

impl Form for Image {
    const EXPECTED: &str = "the reference of an image, as in registry.example/weft/proxy:1.2.3";
}

impl Form for AccessLog {
    const EXPECTED: &str = "off, errors or all";
}

impl Form for Sidecar {
    const EXPECTED: &str = "native or classic";
}

impl Form for Redirection {
    const EXPECTED: &str = "init or cni";
}

impl FromStr for Ports {
    type Err = Unreadable;

    fn from_str(text: &str) -> Result<Self, Unreadable> {
        list(text).map(Ports)
    }
}

impl FromStr for Subnets {
    type Err = Unreadable;

    fn from_str(text: &str) -> Result<Self, Unreadable> {
        list(text).map(Subnets)
    }
}

/// Values between commas; none of an empty text.
fn list<T: FromStr>(text: &str) -> Result<Vec<T>, Unreadable> {
    let values = text.split(',').map(str::trim).filter(|value| !value.is_empty());
    values.map(|value| value.parse().map_err(|_| Unreadable)).collect()
}

impl FromStr for Quantity {
    type Err = Unreadable;

    fn from_str(text: &str) -> Result<Self, Unreadable> {
        let end = text.find(|symbol: char| !symbol.is_ascii_digit() && symbol != '.').unwrap_or(text.len());
        let (number, suffix) = text.split_at(end);
        let (whole, part) = number.split_once('.').unwrap_or((number, ""));
        if (whole.is_empty() && part.is_empty()) || part.contains('.') || whole.len() + part.len() > 20 {
            return Err(Unreadable);
        }
        let digits: u128 = format!("{whole}{part}").parse().map_err(|_| Unreadable)?;
        let (multiplier, divisor) = scale(suffix).ok_or(Unreadable)?;
        let numerator = digits
            .checked_mul(multiplier)
            .and_then(|product| product.checked_mul(1_000_000_000))
            .ok_or(Unreadable)?;
        let nanos = numerator.div_ceil(divisor * 10u128.pow(part.len() as u32));
        Ok(Quantity { text: text.to_owned(), nanos })
    }
}

/// What a suffix multiplies by, and what it divides by.
fn scale(suffix: &str) -> Option<(u128, u128)> {
    const BINARY: [&str; 6] = ["Ki", "Mi", "Gi", "Ti", "Pi", "Ei"];
    const DECIMAL: [&str; 6] = ["k", "M", "G", "T", "P", "E"];
    const SMALL: [&str; 3] = ["m", "u", "n"];
    let place = |names: &[&str]| names.iter().position(|name| *name == suffix).map(|at| at as u32 + 1);
    if suffix.is_empty() {
        return Some((1, 1));
    }
    if let Some(power) = place(&BINARY) {
        return Some((1024u128.pow(power), 1));
    }
    if let Some(power) = place(&DECIMAL) {
        return Some((1000u128.pow(power), 1));
    }
    if let Some(power) = place(&SMALL) {
        return Some((1, 1000u128.pow(power)));
    }
    let exponent: i32 = suffix.strip_prefix(['e', 'E'])?.parse().ok()?;
    match exponent {
        0..=18 => Some((10u128.pow(exponent as u32), 1)),
        -9..0 => Some((1, 10u128.pow(exponent.unsigned_abs()))),
        _ => None,
    }
}

impl FromStr for Time {
    type Err = Unreadable;

    fn from_str(text: &str) -> Result<Self, Unreadable> {
        let end = text.find(|symbol: char| !symbol.is_ascii_digit()).unwrap_or(text.len());
        let (number, unit) = text.split_at(end);
        let is_number = number.parse::<u32>().is_ok();
        match is_number && ["ms", "s", "m", "h"].contains(&unit) {
            true => Ok(Time(text.to_owned())),
            false => Err(Unreadable),
        }
    }
}

impl FromStr for LogFilter {
    type Err = Unreadable;

    /// Narrower than what the proxy takes: a single word that is no level would there be a module's name, and a
    /// misspelt level silence everything.
    fn from_str(text: &str) -> Result<Self, Unreadable> {
        let is_level = |word: &str| ["off", "error", "warn", "info", "debug", "trace"].contains(&word);
        let is_module = |word: &str| {
            !word.is_empty() && word.chars().all(|c| c.is_ascii_alphanumeric() || "_:-".contains(c))
        };
        let reads = text.split(',').all(|directive| match directive.split_once('=') {
            Some((module, level)) => is_module(module) && is_level(level),
            None => is_level(directive),
        });
        if reads { Ok(LogFilter(text.to_owned())) } else { Err(Unreadable) }
    }
}

impl FromStr for Image {
    type Err = Unreadable;

    fn from_str(text: &str) -> Result<Self, Unreadable> {
        let fits = |symbol: char| symbol.is_ascii_alphanumeric() || "._-/:@".contains(symbol);
        let reads = text.starts_with(|symbol: char| symbol.is_ascii_alphanumeric())
            && text.ends_with(|symbol: char| symbol.is_ascii_alphanumeric())
            && text.chars().all(fits);
        if reads { Ok(Image(text.to_owned())) } else { Err(Unreadable) }
    }
}

impl FromStr for AccessLog {
    type Err = Unreadable;

    fn from_str(text: &str) -> Result<Self, Unreadable> {
        match text {
            "off" => Ok(AccessLog::Off),
            "errors" => Ok(AccessLog::Errors),
            "all" => Ok(AccessLog::All),
            _ => Err(Unreadable),
        }
    }
}

impl FromStr for Sidecar {
    type Err = Unreadable;

    fn from_str(text: &str) -> Result<Self, Unreadable> {
        match text {
            "native" => Ok(Sidecar::Native),
            "classic" => Ok(Sidecar::Classic),
            _ => Err(Unreadable),
        }
    }
}

impl FromStr for Redirection {
    type Err = Unreadable;

    fn from_str(text: &str) -> Result<Self, Unreadable> {
        match text {
            "init" => Ok(Redirection::Init),
            "cni" => Ok(Redirection::Cni),
            _ => Err(Unreadable),
        }
    }
}

impl fmt::Display for Ports {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        commas(f, &self.0)
    }
}

impl fmt::Display for Subnets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        commas(f, &self.0)
    }
}

fn commas<T: fmt::Display>(f: &mut fmt::Formatter<'_>, values: &[T]) -> fmt::Result {
    for (place, value) in values.iter().enumerate() {
        write!(f, "{}{value}", if place == 0 { "" } else { "," })?;
    }
    Ok(())
}

impl fmt::Display for AccessLog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            AccessLog::Off => "off",
            AccessLog::Errors => "errors",
            AccessLog::All => "all",
        })
    }
}

/// Texts that are kept as they are, and all that comes as a string from a configuration.
macro_rules! strings {
    (kept: $($kept:ident . $text:tt),*; read: $($read:ident),*) => {
        $(impl fmt::Display for $kept {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.$text)
            }
        })*
        $(impl TryFrom<String> for $read {
            type Error = String;

            fn try_from(text: String) -> Result<Self, String> {
                text.parse().map_err(|_| format!("{text:?}: expected {}", Self::EXPECTED))
            }
        }

        impl From<$read> for String {
            fn from(value: $read) -> String {
                value.to_string()
            }
        })*
    };
}

strings! {
    kept: Quantity.text, Time.0, LogFilter.0, Image.0;
    read: Ports, Subnets, Quantity, Time, LogFilter, Image
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantities_are_compared_by_what_they_are() {
        for (one, other) in
            [("1000m", "1"), ("0.5", "500m"), ("1024Mi", "1Gi"), ("1e3", "1k"), ("1E3", "1k"), (".5", "500m")]
        {
            assert!(Quantity::same(one, other), "{one} {other}");
        }
        assert!(!Quantity::same("1", "2") && !Quantity::same("x", "x"));
        let read = |text: &str| text.parse::<Quantity>().unwrap();
        assert!(read("1Mi").exceeds(&read("1M")) && !read("1M").exceeds(&read("1000k")));
        for text in
            ["", ".", "1.2.3", "-1", "1 Mi", "1mi", "m", "1e99", "99999999999999999999999", "1e", "+1"]
        {
            assert_eq!(text.parse::<Quantity>(), Err(Unreadable), "{text}");
        }
    }

    #[test]
    fn lists_are_written_as_they_were_understood() {
        let ports: Ports = " 22, 9000-9010,,80 ".parse().unwrap();
        assert_eq!(ports.to_string(), "22,9000-9010,80");
        assert!(ports.contains(9005) && !ports.contains(9011));
        assert_eq!("".parse(), Ok(Ports::default()));
        assert_eq!("0".parse::<Ports>(), Err(Unreadable));
        assert_eq!("10.0.0.0/8,fd00::/8".parse::<Subnets>().unwrap().to_string(), "10.0.0.0/8,fd00::/8");
        assert_eq!("10.0.0.0/40".parse::<Subnets>(), Err(Unreadable));
    }

    #[test]
    fn misspelt_levels_are_no_modules() {
        for (text, reads) in [
            ("info", true),
            ("warn,proxy_app=debug", true),
            ("proxy_app::inbound=trace", true),
            ("inof", false),
            ("", false),
            ("proxy_app=loud", false),
            ("=info", false),
        ] {
            assert_eq!(text.parse::<LogFilter>().is_ok(), reads, "{text}");
        }
    }
}
