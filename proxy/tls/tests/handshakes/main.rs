//! Real handshakes in memory: who is accepted, who is refused and in which words, on both sides.

mod authority;
mod issue;
mod wire;

use authority::{Authority, CART, DOMAIN, ORDER, leaf};
use policy::{Reason, SpiffeId};
use proxy_tls::{Certificate, Credentials, Error, Trust, control_client, control_identity, control_server};
use rcgen::ExtendedKeyUsagePurpose::{ClientAuth, ServerAuth};
use rustls::{HandshakeKind, NamedGroup};
use rustls_pki_types::UnixTime;
use std::{sync::Arc, time::Duration};
use wire::{Side, shake, shake_as};

fn id(text: &str) -> SpiffeId {
    text.parse().expect("an identity")
}

fn credentials(trust: &Trust, certificate: &Certificate) -> Credentials {
    Credentials::new(trust, certificate).expect("credentials")
}

/// One proxy's credentials of a good kind.
fn proxy(authority: &Authority, identity: &str) -> Credentials {
    credentials(&authority.trust(), &authority.certificate(&leaf(identity)))
}

#[test]
fn both_know_each_other_afterwards() {
    let authority = Authority::new("root");
    let (cart, order) = (proxy(&authority, CART), proxy(&authority, ORDER));
    let (client, server) = shake(&cart, &order, ORDER).expect("a handshake");
    assert_eq!(*cart.connected(&client, &id(ORDER)).expect("the server"), id(ORDER));
    assert_eq!(*order.accepted(&server).expect("the client"), id(CART));
    assert_eq!(server.server_name(), Some("order.shop.serviceaccount.identity.cluster.local"));
}

#[test]
fn the_key_exchange_is_hybrid_and_the_cipher_cheap() {
    let authority = Authority::new("root");
    let (client, _) = shake(&proxy(&authority, CART), &proxy(&authority, ORDER), ORDER).expect("a handshake");
    let group = client.negotiated_key_exchange_group().expect("a key exchange");
    assert_eq!(group.name(), NamedGroup::X25519MLKEM768);
    let suite = client.negotiated_cipher_suite().expect("a suite").suite();
    assert_eq!(suite, rustls::CipherSuite::TLS13_AES_128_GCM_SHA256);
    assert_eq!(client.protocol_version(), Some(rustls::ProtocolVersion::TLSv1_3));
    assert_eq!(client.handshake_kind(), Some(HandshakeKind::Full), "no second round trip for the key share");
}

#[test]
fn a_peer_without_the_hybrid_key_exchange_is_served() {
    let authority = Authority::new("root");
    let (cart, order) = (proxy(&authority, CART), proxy(&authority, ORDER));
    let mut old = rustls::ClientConfig::clone(&cart.client);
    let mut provider = rustls::crypto::CryptoProvider::clone(old.crypto_provider());
    provider.kx_groups.remove(0);
    // The verifier and the certificate stay; only the offer differs.
    old = rustls::ClientConfig::builder_with_provider(provider.into())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .expect("TLS 1.3")
        .dangerous()
        .with_custom_certificate_verifier(wire::anybody())
        .with_client_cert_resolver(Arc::clone(&old.client_auth_cert_resolver));
    old.alpn_protocols = cart.client.alpn_protocols.clone();
    let (client, server) = shake_as(&old.into(), &order.server, ORDER).expect("a handshake");
    assert_eq!(client.negotiated_key_exchange_group().map(|group| group.name()), Some(NamedGroup::X25519));
    assert_eq!(*order.accepted(&server).expect("the client"), id(CART));
}

// ---- refusals ----

/// What the one side says of the other; the other is told by an alert.
#[track_caller]
fn refused(result: Result<wire::Pair, (Side, rustls::Error)>, by: Side, says: &str) {
    let (side, error) = result.expect_err("a refusal");
    assert_eq!(side, by, "{error}");
    let detail = proxy_tls::detail(&error);
    assert!(detail.contains(says), "{detail:?} does not say {says:?}");
    assert_eq!(proxy_tls::reason(&error), Reason::TlsCertificateError);
}

#[test]
fn certificates_that_are_not_accepted_of_either_side() {
    let (authority, foreign) = (Authority::new("root"), Authority::new("foreign"));
    let (good, trust) = (proxy(&authority, CART), authority.trust());
    let other_domain = "spiffe://elsewhere/ns/shop/sa/order";
    let table = [
        (foreign.certificate(&leaf(ORDER)), "of no root that is trusted here"),
        (authority.certificate(&leaf(ORDER).valid(-7200, -3600)), "expired 36"),
        (authority.certificate(&leaf(ORDER).valid(3600, 7200)), "valid only in 3"),
        (authority.certificate(&leaf(other_domain)), "of another trust domain than cluster.local"),
    ];
    for (bad, says) in &table {
        let bad = credentials(&trust, bad);
        refused(shake(&good, &bad, ORDER), Side::Client, says);
        refused(shake(&bad, &good, CART), Side::Server, says);
    }
}

#[test]
fn certificates_of_the_wrong_purpose_are_refused() {
    let authority = Authority::new("root");
    let good = proxy(&authority, CART);
    let bad =
        |purpose| credentials(&authority.trust(), &authority.certificate(&leaf(ORDER).only_for(purpose)));
    let says = "not meant for this side";
    refused(shake(&good, &bad(ClientAuth), ORDER), Side::Client, says);
    refused(shake(&bad(ServerAuth), &good, CART), Side::Server, says);
    assert!(shake(&good, &bad(ServerAuth), ORDER).is_ok(), "it may serve");
}

#[test]
fn a_server_of_another_identity_is_refused_by_both_names() {
    let authority = Authority::new("root");
    let (cart, order) = (proxy(&authority, CART), proxy(&authority, ORDER));
    let expected = "spiffe://cluster.local/ns/shop/sa/auth";
    let says = format!("expected {expected} but the peer is {ORDER}");
    refused(shake(&cart, &order, expected), Side::Client, &says);
    // And by who asks for another one than it named to rustls.
    let (client, _) = shake(&cart, &order, ORDER).expect("a handshake");
    let error = cart.connected(&client, &id(expected)).expect_err("a refusal");
    assert_eq!(error.to_string(), says);
    assert_eq!(error.reason(), Reason::TlsCertificateError);
}

#[test]
fn service_accounts_may_hold_dots() {
    let authority = Authority::new("root");
    for name in ["a.b", "cart.shop", "x.serviceaccount.identity.y"] {
        let dotted = format!("spiffe://{DOMAIN}/ns/shop/sa/{name}");
        let (cart, server) = (proxy(&authority, CART), proxy(&authority, &dotted));
        let (client, _) = shake(&cart, &server, &dotted).expect(name);
        assert!(cart.connected(&client, &id(&dotted)).is_ok());
        refused(shake(&cart, &server, CART), Side::Client, "expected");
    }
    let long = format!("spiffe://{DOMAIN}/ns/shop/sa/{}", vec!["x".repeat(60); 4].join("."));
    assert!(matches!(proxy_tls::server_name(&id(&long)), Err(Error::Unnameable(_))));
}

#[test]
fn five_minutes_of_skew_are_borne_and_no_more() {
    let authority = Authority::new("root");
    let good = proxy(&authority, CART);
    for (from, to, borne) in
        [(-3600, -240, true), (-3600, -360, false), (240, 3600, true), (360, 3600, false)]
    {
        let certificate = authority.certificate(&leaf(ORDER).valid(from, to));
        let off = credentials(&authority.trust(), &certificate);
        assert_eq!(shake(&good, &off, ORDER).is_ok(), borne, "server valid from {from} s to {to} s");
        assert_eq!(shake(&off, &good, CART).is_ok(), borne, "client valid from {from} s to {to} s");
    }
}

#[test]
fn the_skew_ends_to_the_second_on_either_side() {
    let authority = Authority::new("root");
    let (good, order) = (proxy(&authority, CART), proxy(&authority, ORDER));
    let seconds = |time: std::time::SystemTime| {
        time.duration_since(std::time::UNIX_EPOCH).expect("after the epoch").as_secs()
    };
    let (from, to) = (seconds(order.certificate().not_before()), seconds(order.certificate().not_after()));
    for (clock, borne) in [(from - 301, false), (from - 300, true), (to + 300, true), (to + 301, false)] {
        // Resumed sessions are judged elsewhere.
        let unknown = |credentials: &Credentials| {
            let mut client = rustls::ClientConfig::clone(&credentials.client);
            client.resumption = rustls::client::Resumption::disabled();
            client
        };
        let mut client = unknown(&good);
        client.time_provider = Arc::new(At(clock));
        assert_eq!(
            shake_as(&client.into(), &order.server, ORDER).is_ok(),
            borne,
            "a client's clock at {clock}"
        );
        let mut server = rustls::ServerConfig::clone(&good.server);
        server.time_provider = Arc::new(At(clock));
        assert_eq!(
            shake_as(&unknown(&order).into(), &server.into(), CART).is_ok(),
            borne,
            "a server's clock at {clock}"
        );
    }
}

#[derive(Debug)]
struct At(u64);

impl rustls::time_provider::TimeProvider for At {
    fn current_time(&self) -> Option<UnixTime> {
        Some(UnixTime::since_unix_epoch(Duration::from_secs(self.0)))
    }
}

#[test]
fn a_leaf_just_expired_is_borne_below_an_issuer_that_is_younger_than_the_skew() {
    let root = Authority::new("root");
    let good = proxy(&root, CART);
    for (issuer_from, leaf_from, leaf_to, borne) in
        [(-120, -110, -60, true), (-120, -300, -60, true), (60, 60, 3600, true), (-120, -1800, -360, false)]
    {
        let issuer = root.below_from("issuer", issuer_from);
        let chain = issuer.chain(&leaf(ORDER).valid(leaf_from, leaf_to), &[issuer.root()]);
        let order = credentials(&root.trust(), &chain);
        let says = format!("an issuer from {issuer_from} s, a leaf from {leaf_from} s to {leaf_to} s");
        assert_eq!(shake(&good, &order, ORDER).is_ok(), borne, "{says}");
        assert_eq!(shake(&order, &good, CART).is_ok(), borne, "{says}");
    }
}

#[test]
fn a_client_without_certificate_is_refused() {
    let authority = Authority::new("root");
    let order = proxy(&authority, ORDER);
    let mut nobody = wire::client_without_certificate();
    nobody.alpn_protocols = vec![proxy_tls::ALPN.to_vec()];
    refused(shake_as(&nobody.into(), &order.server, ORDER), Side::Server, "no certificate");
}

#[test]
fn another_protocol_is_refused() {
    let authority = Authority::new("root");
    let (cart, order) = (proxy(&authority, CART), proxy(&authority, ORDER));
    let mut other = rustls::ClientConfig::clone(&cart.client);
    other.alpn_protocols = vec![b"h2".to_vec()];
    let (side, error) = shake_as(&other.clone().into(), &order.server, ORDER).expect_err("a refusal");
    assert_eq!((side, proxy_tls::reason(&error)), (Side::Server, Reason::TlsProtocolError));

    // Without any ALPN rustls goes on: `accepted` and `connected` do not.
    other.alpn_protocols.clear();
    let (client, server) = shake_as(&other.into(), &order.server, ORDER).expect("a handshake");
    for error in [order.accepted(&server).err(), cart.connected(&client, &id(ORDER)).err()] {
        let error = error.expect("a refusal");
        assert_eq!(error.to_string(), "the peer does not speak weft/1");
        assert_eq!(error.reason(), Reason::TlsProtocolError);
    }
}

#[test]
fn tls_1_2_is_refused() {
    let authority = Authority::new("root");
    let order = proxy(&authority, ORDER);
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let old = rustls::ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS12])
        .expect("TLS 1.2")
        .dangerous()
        .with_custom_certificate_verifier(wire::anybody())
        .with_no_client_auth();
    let (side, error) = shake_as(&old.into(), &order.server, ORDER).expect_err("a refusal");
    assert_eq!((side, proxy_tls::reason(&error)), (Side::Server, Reason::TlsProtocolError));
}

#[test]
fn the_refused_learn_of_it_by_an_alert() {
    let (authority, foreign) = (Authority::new("root"), Authority::new("foreign"));
    let good = proxy(&authority, CART);
    let bad = credentials(&authority.trust(), &foreign.certificate(&leaf(ORDER)));
    let error = wire::told(&good, &bad, ORDER);
    assert_eq!(proxy_tls::reason(&error), Reason::TlsAlertReceived);
    assert_eq!(proxy_tls::detail(&error), "the peer refused us by the TLS alert UnknownCA");
    let io = std::io::Error::other(error.clone());
    assert_eq!(proxy_tls::tls_error(&io), Some(&error));
    assert_eq!(proxy_tls::tls_error(&std::io::Error::from(std::io::ErrorKind::BrokenPipe)), None);
}

// ---- sessions ----

#[test]
fn the_second_handshake_resumes_and_knows_the_peer() {
    let authority = Authority::new("root");
    let (cart, order) = (proxy(&authority, CART), proxy(&authority, ORDER));
    for kind in [HandshakeKind::Full, HandshakeKind::Resumed, HandshakeKind::Resumed] {
        let (client, server) = shake(&cart, &order, ORDER).expect("a handshake");
        assert_eq!(client.handshake_kind(), Some(kind));
        assert_eq!(*cart.connected(&client, &id(ORDER)).expect("the server"), id(ORDER));
        assert_eq!(*order.accepted(&server).expect("the client"), id(CART));
        let group = client.negotiated_key_exchange_group().map(|group| group.name());
        assert_eq!(group, Some(NamedGroup::X25519MLKEM768), "forward secrecy is kept");
    }
}

#[test]
fn a_session_with_one_identity_is_never_resumed_for_another() {
    let authority = Authority::new("root");
    let (cart, order) = (proxy(&authority, CART), proxy(&authority, ORDER));
    let other = "spiffe://cluster.local/ns/shop/sa/auth";
    shake(&cart, &order, ORDER).expect("a handshake");
    refused(shake(&cart, &order, other), Side::Client, "expected");
}

#[test]
fn renewed_credentials_begin_anew_on_either_side() {
    let authority = Authority::new("root");
    let (cart, order) = (proxy(&authority, CART), proxy(&authority, ORDER));
    shake(&cart, &order, ORDER).expect("a handshake");
    let renewed = proxy(&authority, ORDER);
    let (client, _) = shake(&cart, &renewed, ORDER).expect("a handshake");
    assert_eq!(client.handshake_kind(), Some(HandshakeKind::Full), "another server certificate");
    let renewed = proxy(&authority, CART);
    let (client, _) = shake(&renewed, &order, ORDER).expect("a handshake");
    assert_eq!(client.handshake_kind(), Some(HandshakeKind::Full), "another client certificate");
}

#[test]
fn a_resumed_peer_is_judged_again() {
    let authority = Authority::new("root");
    let order = proxy(&authority, ORDER);
    // The clock of the server's handshakes stands in the past, when the client's certificate was good.
    let mut past = rustls::ServerConfig::clone(&order.server);
    past.time_provider = Arc::new(Ago(Duration::from_secs(5400)));
    let past = Arc::new(past);
    let short = authority.certificate(&leaf(CART).valid(-7200, -3600));
    let cart = credentials(&authority.trust(), &short);
    for kind in [HandshakeKind::Full, HandshakeKind::Resumed] {
        let (client, server) = shake_as(&cart.client, &past, ORDER).expect("a handshake");
        assert_eq!(client.handshake_kind(), Some(kind));
        let error = order.accepted(&server).expect_err("a refusal");
        assert!(error.to_string().contains("expired 36"), "{error}");
    }

    // The same when a root has gone since.
    let cart = proxy(&authority, CART);
    let (_, server) = shake(&cart, &order, ORDER).expect("a handshake");
    let rotated = credentials(&Authority::new("new").trust(), order.certificate());
    assert!(rotated.accepted(&server).expect_err("a refusal").to_string().contains("of no root"));
}

#[derive(Debug)]
struct Ago(Duration);

impl rustls::time_provider::TimeProvider for Ago {
    fn current_time(&self) -> Option<UnixTime> {
        let now = Duration::from_secs(UnixTime::now().as_secs());
        Some(UnixTime::since_unix_epoch(now - self.0))
    }
}

// ---- roots ----

#[test]
fn roots_rotate_without_a_gap() {
    let (old, new) = (Authority::new("old"), Authority::new("new"));
    let both = old.trust().with(&new.trust());
    let steps = [
        // Everyone trusts both; one has a new certificate already; then all; then the old root goes.
        (
            credentials(&both, &old.certificate(&leaf(CART))),
            credentials(&old.trust(), &old.certificate(&leaf(ORDER))),
        ),
        (
            credentials(&both, &new.certificate(&leaf(CART))),
            credentials(&both, &old.certificate(&leaf(ORDER))),
        ),
        (
            credentials(&new.trust(), &new.certificate(&leaf(CART))),
            credentials(&both, &new.certificate(&leaf(ORDER))),
        ),
    ];
    for (cart, order) in &steps {
        shake(cart, order, ORDER).expect("cart calls order");
        shake(order, cart, CART).expect("order calls cart");
    }
    let late = credentials(&both, &old.certificate(&leaf(ORDER)));
    let done = credentials(&new.trust(), &new.certificate(&leaf(CART)));
    refused(shake(&done, &late, ORDER), Side::Client, "of no root");
}

#[test]
fn an_intermediate_issuer_is_followed_to_its_root() {
    let root = Authority::new("root");
    let issuer = root.below("issuer");
    let with = |identity| issuer.chain(&leaf(identity), &[issuer.root()]);
    let (cart, order) = (credentials(&root.trust(), &with(CART)), credentials(&root.trust(), &with(ORDER)));
    let (client, server) = shake(&cart, &order, ORDER).expect("a handshake");
    assert!(cart.connected(&client, &id(ORDER)).is_ok() && order.accepted(&server).is_ok());
    let without = credentials(&root.trust(), &issuer.certificate(&leaf(ORDER)));
    refused(shake(&cart, &without, ORDER), Side::Client, "of no root");
}

#[test]
fn trust_is_equal_by_its_roots_and_wants_good_ones() {
    let (one, other) = (Authority::new("one"), Authority::new("other"));
    let domain = || DOMAIN.parse().expect("a trust domain");
    assert_eq!(one.trust().with(&other.trust()), other.trust().with(&one.trust()));
    assert_ne!(one.trust(), other.trust());
    let pem = format!("{}\n{}", one.pem(), other.pem());
    assert_eq!(
        Trust::from_pem(domain(), pem.as_bytes()).expect("two roots"),
        one.trust().with(&other.trust())
    );
    for bad in [Trust::from_pem(domain(), b"nothing"), Trust::from_der(domain(), vec![vec![1, 2, 3]])] {
        assert!(matches!(bad, Err(Error::Roots(_))));
    }
    let half = Trust::from_der(domain(), vec![one.root().to_vec(), vec![0]]);
    assert!(matches!(half, Err(Error::Roots(_))), "half a bundle is none");
}

// ---- control ----

#[test]
fn control_is_reached_without_a_certificate_and_known_by_name() {
    let authority = Authority::new("root");
    let control = control_identity(&DOMAIN.parse().expect("a trust domain")).to_string();
    let client = control_client(&authority.trust()).expect("a configuration");
    let server =
        |identity: &str| control_server(&authority.certificate(&leaf(identity))).expect("a configuration");
    let (connection, _) = shake_as(&client, &server(&control), &control).expect("a handshake");
    assert_eq!(connection.alpn_protocol(), Some(b"h2".as_slice()));
    refused(
        shake_as(&client, &server(CART), &control),
        Side::Client,
        "but the peer is spiffe://cluster.local/ns/shop/sa/cart",
    );
    let foreign =
        control_server(&Authority::new("foreign").certificate(&leaf(&control))).expect("a configuration");
    refused(shake_as(&client, &foreign, &control), Side::Client, "of no root");
}
