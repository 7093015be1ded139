//! Behind `/why`: what becomes of a request or a connection, by what this proxy holds. `weft explain` says the same in the same words.

use crate::discovery::Discovery;
use explain::{About, Question, Verdict};

/// Why there is no verdict.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unanswered {
    /// The question cannot be understood.
    Unclear(String),
    /// Nothing is held about the destination.
    Unknown(String),
}

/// Answers the query of `/why`. Nothing is asked of control for it.
pub fn why(discovery: &Discovery, query: &str) -> Result<Verdict, Unanswered> {
    let Question { to, about } =
        Question::of_query(query).map_err(|error| Unanswered::Unclear(error.to_string()))?;
    let policy = discovery.held(to).ok_or_else(|| {
        let says = format!(
            "nothing is held about {to}: its program has not dialled it lately; /config lists what is held, and \
             weft explain answers without a proxy"
        );
        Unanswered::Unknown(says)
    })?;
    let endpoints = |backend: &policy::ServicePort| discovery.held_endpoints(backend);
    Ok(match about {
        About::Request(ask) => explain::request(&policy, &ask, &endpoints),
        About::Connection { sni } => explain::connection(&policy, sni.as_deref(), &endpoints),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use policy::{Outbound, Protocol, ServiceName, Target};

    #[tokio::test]
    async fn what_is_held_is_explained_and_nothing_else_is_asked_for() {
        let (discovery, script) = Discovery::scripted();
        let cart = ServiceName::new("shop", "cart").port(80);
        let to = "10.96.0.10:80".parse().expect("an address");
        script.outbound(to, Outbound::new(Target::Service(cart.clone()), Protocol::Http1));
        let verdict = why(&discovery, "to=10.96.0.10:80&path=/p").expect("it is held");
        assert_eq!((verdict.outcome.action, verdict.target.as_str()), ("forward", "Service cart.shop:80"));
        assert_eq!(verdict.backends[0].endpoints, None);
        script.endpoints(&cart, Vec::new());
        let verdict = why(&discovery, "to=10.96.0.10:80&path=/p").expect("it is held");
        assert_eq!(verdict.outcome.reason.map(|why| why.word), Some("destination_unavailable"));
        let watches = discovery.figures().watches;
        assert!(matches!(why(&discovery, "to=10.96.0.11:80"), Err(Unanswered::Unknown(_))));
        assert!(matches!(why(&discovery, "too=x"), Err(Unanswered::Unclear(_))));
        assert_eq!(discovery.figures().watches, watches);
    }
}
