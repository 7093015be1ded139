//! The request that is asked about, as people write it.

use percent_encoding::percent_decode_str;
use policy::Facts;
use std::{fmt, net::SocketAddr};

/// A request's head.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ask {
    pub method: String,
    /// Path and query.
    pub target: String,
    pub fields: Vec<(String, String)>,
    pub grpc: bool,
}

/// What a proxy is asked: `to=10.96.0.10:8080&method=GET&path=/p/7&header=x-user:beta`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Question {
    /// The original destination.
    pub to: SocketAddr,
    pub about: About,
}

/// A request, or a connection whose bytes nobody reads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum About {
    Request(Ask),
    /// `sni`: the name that a TLS client asks for, an empty one if none; `None`: it is no TLS.
    Connection {
        sni: Option<String>,
    },
}

/// The question cannot be understood; what to write instead.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InvalidAsk(String);

impl Ask {
    pub fn new(method: &str, target: &str) -> Self {
        Self { method: method.into(), target: target.into(), fields: Vec::new(), grpc: false }
    }

    /// A call of gRPC: `shop.Cart/Add`.
    pub fn grpc(call: &str) -> Result<Self, InvalidAsk> {
        let call = call.trim_start_matches('/');
        let whole = call.split_once('/').is_some_and(|(service, method)| {
            !service.is_empty() && !method.is_empty() && !method.contains('/')
        });
        if !whole {
            return Err(InvalidAsk(format!("{call:?} is no call of gRPC: write service/method")));
        }
        let fields = vec![("content-type".to_owned(), "application/grpc".to_owned())];
        Ok(Self { method: "POST".into(), target: format!("/{call}"), fields, grpc: true })
    }

    /// Adds `name: value`.
    pub fn field(&mut self, written: &str) -> Result<(), InvalidAsk> {
        match written.split_once(':') {
            Some((name, value)) if !name.trim().is_empty() => {
                self.fields.push((name.trim().to_ascii_lowercase(), value.trim().into()));
                Ok(())
            }
            _ => Err(InvalidAsk(format!("{written:?} is no header: write 'name: value'"))),
        }
    }

    pub fn facts(&self) -> Facts<'_> {
        let Self { method, target, fields, grpc } = self;
        Facts { method, target: target.as_bytes(), fields, grpc: *grpc }
    }
}

impl Question {
    /// Reads the query of `/why`.
    pub fn of_query(query: &str) -> Result<Self, InvalidAsk> {
        let (mut to, mut method, mut path, mut grpc, mut fields) = (None, None, None, None, Vec::new());
        let (mut sni, mut bytes) = (None, false);
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let value = decoded(value)?;
            match name {
                "to" => to = Some(value),
                "method" => method = Some(value),
                "path" => path = Some(value),
                "grpc" => grpc = Some(value),
                "header" => fields.push(value),
                "sni" => sni = Some(value),
                "bytes" => bytes = true,
                other => return Err(InvalidAsk(format!("nobody knows what {other:?} asks; {FORM}"))),
            }
        }
        let to = to.ok_or_else(|| InvalidAsk(format!("say where to; {FORM}")))?;
        let to = to.parse().map_err(|_| InvalidAsk(format!("{to:?} is not address:port; {FORM}")))?;
        if bytes || sni.is_some() {
            return Ok(Self { to, about: About::Connection { sni } });
        }
        let mut ask = match grpc {
            Some(call) => Ask::grpc(&call)?,
            None => Ask::new(method.as_deref().unwrap_or("GET"), path.as_deref().unwrap_or("/")),
        };
        fields.iter().try_for_each(|field| ask.field(field))?;
        Ok(Self { to, about: About::Request(ask) })
    }
}

const FORM: &str = "ask like /why?to=10.96.0.10:8080&method=GET&path=/p/7&header=x-user:beta, with grpc=service/method for a \
                    call, with sni=NAME or bytes for a connection";

fn decoded(value: &str) -> Result<String, InvalidAsk> {
    let text = percent_decode_str(value).decode_utf8();
    text.map(Into::into).map_err(|_| InvalidAsk(format!("{value:?} is not UTF-8 once it is decoded")))
}

impl fmt::Display for Ask {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.grpc {
            true => write!(f, "gRPC {}", self.target.trim_start_matches('/')),
            false => write!(f, "{} {}", self.method, self.target),
        }
    }
}

impl fmt::Display for InvalidAsk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for InvalidAsk {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_question_is_read_as_it_is_written() {
        let query = "to=10.96.0.10:8080&method=PUT&path=/p%3Fa=b&header=X-User:%20beta&header=x-a:1";
        let fields = vec![("x-user".into(), "beta".into()), ("x-a".into(), "1".into())];
        let ask = Ask { fields, ..Ask::new("PUT", "/p?a=b") };
        let to = "10.96.0.10:8080".parse().expect("an address");
        assert_eq!(Question::of_query(query), Ok(Question { to, about: About::Request(ask) }));
        let plain = Question { to, about: About::Request(Ask::new("GET", "/")) };
        assert_eq!(Question::of_query("to=10.96.0.10:8080"), Ok(plain));
        let call = Question { to, about: About::Request(Ask::grpc("a.B/C").expect("a call")) };
        assert_eq!(Question::of_query("to=10.96.0.10:8080&grpc=a.B/C"), Ok(call));
        let of = |sni| Ok(Question { to, about: About::Connection { sni } });
        assert_eq!(Question::of_query("to=10.96.0.10:8080&sni=a.example"), of(Some("a.example".into())));
        assert_eq!(Question::of_query("to=10.96.0.10:8080&bytes"), of(None));
    }

    #[test]
    fn what_cannot_be_understood_says_how_to_ask() {
        for (query, says) in [
            ("", "say where to; ask like"),
            ("to=cart", "\"cart\" is not address:port; ask like"),
            ("to=10.0.0.1:80&colour=red", "nobody knows what \"colour\" asks; ask like"),
            ("to=10.0.0.1:80&header=x", "\"x\" is no header: write 'name: value'"),
            ("to=10.0.0.1:80&grpc=a", "\"a\" is no call of gRPC: write service/method"),
            ("to=%ff", "\"%ff\" is not UTF-8 once it is decoded"),
        ] {
            let said = Question::of_query(query).expect_err(query).to_string();
            assert!(said.starts_with(says), "{said}");
        }
    }
}
