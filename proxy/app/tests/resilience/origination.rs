//! Endpoints without a proxy that speak TLS, as a BackendTLSPolicy says: whom the proxy believes, what it speaks within, and that
//! every byte goes through.

use crate::world::{Heard, World, address, ms, service, smooth, without_endpoints};
use bytes::Bytes;
use policy::{
    BackendSettings, BackendTls, Endpoint, Origin, Protocol, Settings,
    backend_tls::{Authorities, SubjectAltName},
};
use proxy_transport::{Stream, memory::Step};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, SanType};
use rustls::ServerConfig;
use rustls_pki_types::{CertificateDer, PrivatePkcs8KeyDer};
use std::{
    cell::{Cell, RefCell},
    rc::Rc,
    sync::Arc,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    time::sleep,
};
use tokio_rustls::TlsAcceptor;

const HOSTNAME: &str = "pay.shop.example";
const URI: &str = "spiffe://elsewhere/pay";

/// Who signs a server's certificate.
struct Authority(CertifiedIssuer<'static, KeyPair>);

/// What came to a server, a line a connection: `SNI ALPN`, or `plain BYTE` of one that is no TLS.
type Came = Rc<RefCell<Vec<String>>>;

impl Authority {
    fn new(name: &str) -> Self {
        let mut parameters = CertificateParams::default();
        parameters.distinguished_name.push(DnType::CommonName, name);
        parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().expect("a key");
        Self(CertifiedIssuer::self_signed(parameters, key).expect("a root"))
    }

    fn der(&self) -> Arc<[u8]> {
        self.0.der().to_vec().into()
    }

    /// A server's end of TLS, with a certificate for these hostnames and `URI`.
    fn server(&self, hostnames: &[&str]) -> ServerConfig {
        let names: Vec<_> = hostnames.iter().map(|name| (*name).to_owned()).collect();
        let mut parameters = CertificateParams::new(names).expect("hostnames");
        parameters.subject_alt_names.push(SanType::URI(URI.try_into().expect("ASCII")));
        let key = KeyPair::generate().expect("a key");
        server(parameters.signed_by(&key, &self.0).expect("a leaf").der(), &key)
    }

    fn policy(&self) -> BackendTls {
        BackendTls {
            hostname: HOSTNAME.into(),
            alt_names: Vec::new(),
            authorities: Authorities::Given(vec![self.der()]),
            by: Origin::new("BackendTLSPolicy", "shop", "web"),
        }
    }
}

fn server(certificate: &CertificateDer<'static>, key: &KeyPair) -> ServerConfig {
    let provider = rustls::crypto::aws_lc_rs::default_provider();
    let key = PrivatePkcs8KeyDer::from(key.serialize_der());
    let mut config = ServerConfig::builder_with_provider(provider.into())
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_no_client_auth()
        .with_single_cert(vec![certificate.clone()], key.into())
        .expect("a certificate");
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    config
}

/// Runs a server at the only endpoint, which `policy` is for.
fn serve(world: &World, policy: BackendTls, config: ServerConfig) -> Came {
    let tls = Some(Arc::new(policy));
    world.script.endpoints(&service(), vec![Endpoint { tls, ..Endpoint::plain(address(0)) }]);
    let mut connections = world.network.listen(address(0));
    let (came, acceptor) = (Came::default(), TlsAcceptor::from(Arc::new(config)));
    let seen = came.clone();
    tokio::task::spawn_local(async move {
        while let Some(connection) = connections.recv().await {
            let (acceptor, seen) = (acceptor.clone(), seen.clone());
            tokio::task::spawn_local(speak(acceptor, connection.into(), seen));
        }
    });
    came
}

/// An echo of bodies over HTTP/1.1 and HTTP/2, and of bytes where no protocol was agreed on.
async fn speak(acceptor: TlsAcceptor, stream: Stream, came: Came) {
    let Ok(mut tls) = acceptor.accept(stream).await else { return came.borrow_mut().push("refused".into()) };
    let (sni, alpn) = {
        let connection = tls.get_ref().1;
        let alpn = connection.alpn_protocol().map(|alpn| String::from_utf8_lossy(alpn).into_owned());
        (connection.server_name().unwrap_or("none").to_owned(), alpn.unwrap_or_else(|| "none".into()))
    };
    came.borrow_mut().push(format!("{sni} {alpn}"));
    match &*alpn {
        "h2" => {
            let mut connection = h2::server::handshake(tls).await.expect("a preface");
            while let Some(Ok((request, mut respond))) = connection.accept().await {
                tokio::task::spawn_local(async move {
                    let mut body = request.into_body();
                    let mut send = respond.send_response(http::Response::new(()), false).expect("a client");
                    while let Some(Ok(data)) = body.data().await {
                        let _ = body.flow_control().release_capacity(data.len());
                        send.send_data(data, false).expect("a client");
                    }
                    let _ = send.send_data(Bytes::new(), true);
                });
            }
        }
        "http/1.1" => {
            let mut read = Vec::new();
            while tls.read_buf(&mut read).await.is_ok_and(|count| count > 0) {
                if read.ends_with(b"\r\n\r\n") || read.ends_with(b"whole") {
                    let text = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", read.len());
                    let said = [text.as_bytes(), &read].concat();
                    read.clear();
                    if tls.write_all(&said).await.is_err() || tls.flush().await.is_err() {
                        return;
                    }
                }
            }
        }
        _ => {
            let mut read = Vec::new();
            if tls.read_to_end(&mut read).await.is_ok() {
                let _ = tls.write_all(&read).await;
                let _ = tls.shutdown().await;
            }
        }
    }
}

/// What a GET hears of a server, and what came to it.
fn hears(config: ServerConfig, policy: BackendTls) -> (Heard, Vec<String>) {
    let heard = Rc::new(RefCell::new(None));
    let slot = heard.clone();
    without_endpoints(smooth(), |world| async move {
        let came = serve(&world, policy, config);
        let heard = world.get().await;
        *slot.borrow_mut() = Some((heard, came.take()));
    });
    heard.take().expect("it was asked")
}

#[test]
fn a_server_is_believed_by_its_name_and_its_authority() {
    let (authority, other) = (Authority::new("one"), Authority::new("other"));
    let policy = || authority.policy();
    let names = |names: &[SubjectAltName]| BackendTls { alt_names: names.to_vec(), ..authority.policy() };
    let host = |name: &str| SubjectAltName::Hostname(name.into());
    let uri = |uri: &str| SubjectAltName::Uri(uri.into());
    // A certificate's names, and a policy under which it is good.
    let good: &[(&[&str], BackendTls)] = &[
        (&[HOSTNAME], policy()),
        (&["*.shop.example"], policy()),
        (&["other.shop.example"], names(&[host("nobody.shop.example"), host("other.shop.example")])),
        (&["other.shop.example"], names(&[host("*.shop.example")])),
        (&["*.shop.example"], names(&[host("*.shop.example")])),
        (&["other.shop.example"], names(&[uri(URI)])),
        (
            &[HOSTNAME],
            BackendTls { authorities: Authorities::Given(vec![other.der(), authority.der()]), ..policy() },
        ),
    ];
    for (hostnames, policy) in good {
        let (heard, came) = hears(authority.server(hostnames), policy.clone());
        assert_eq!(
            (heard.status, &*came),
            (200, &[format!("{HOSTNAME} http/1.1")][..]),
            "{policy:?}: {heard:?}"
        );
    }
    let given = |given: Vec<Arc<[u8]>>| BackendTls { authorities: Authorities::Given(given), ..policy() };
    let none = "it names no certificate of an authority that can be used";
    let root = "the peer's certificate is of no root that is trusted here";
    // The same, under which it is not, and why.
    let bad: &[(&[&str], BackendTls, &str)] = &[
        (&["other.shop.example"], policy(), "other.shop.example"),
        (
            &["a.b.shop.example"],
            names(&[host("*.shop.example")]),
            "is for other names: a.b.shop.example, spiffe://elsewhere/pay",
        ),
        (&[HOSTNAME], names(&[uri("spiffe://elsewhere/cart")]), "is for other names: pay.shop.example"),
        (&[HOSTNAME], given(vec![other.der()]), root),
        (&[HOSTNAME], BackendTls { authorities: Authorities::WellKnown, ..policy() }, root),
        (&[HOSTNAME], given(vec![]), none),
        (&[HOSTNAME], given(vec![b"nonsense".as_slice().into()]), none),
    ];
    for (hostnames, policy, says) in bad {
        let (heard, _) = hears(authority.server(hostnames), policy.clone());
        let whose = "TLS to pay.shop.example (BackendTLSPolicy shop/web): ";
        let told = heard.text.contains("error=tls_certificate_error") && heard.text.contains(whose);
        assert!(told && heard.text.contains(says), "{heard:?} does not say {says}");
    }
    // openssl's `req -x509` makes such ones.
    let (heard, _) = hears(server(authority.0.der(), authority.0.key()), policy());
    assert!(heard.text.contains("the peer shows the certificate of an authority (CA:TRUE)"), "{heard:?}");
}

#[test]
fn a_connection_serves_many_requests_and_its_end_is_noticed() {
    let authority = Authority::new("one");
    without_endpoints(smooth(), |world| async move {
        let came = serve(&world, authority.policy(), authority.server(&[HOSTNAME]));
        for _ in 0..3 {
            assert_eq!(world.post("whole").await.status, 200);
        }
        assert_eq!(came.borrow().len(), 1, "one handshake is enough");
        let (metric, line) =
            (world.metric("weft_requests_total", "tls=\"backend\""), world.lines().remove(0));
        assert_eq!((metric, &line["tls.protocol.version"]), (3, &"backend".into()));
        // The policy has changed: what stands by the old one is used no more.
        let other = BackendTls { hostname: "other.shop.example".into(), ..authority.policy() };
        let tls = Some(Arc::new(other));
        world.script.endpoints(&service(), vec![Endpoint { tls, ..Endpoint::plain(address(0)) }]);
        assert!(world.get().await.text.contains("TLS to other.shop.example"));
    });
}

#[test]
fn http_2_is_spoken_within_tls() {
    let authority = Authority::new("one");
    without_endpoints(smooth(), |world| async move {
        let mut config = authority.server(&[HOSTNAME]);
        config.alpn_protocols = vec![b"h2".to_vec()];
        world.declare_as(Protocol::Http2, Settings::default(), BackendSettings::default());
        let came = serve(&world, authority.policy(), config);
        let (mut sender, connection) = h2::client::handshake(world.connect()).await.expect("a preface");
        tokio::task::spawn_local(connection);
        let body = vec![7; 300_000];
        for _ in 0..2 {
            let request = http::Request::post("http://web/a").body(()).expect("a request");
            let (response, mut send) = sender.send_request(request, false).expect("a stream");
            send.send_data(Bytes::from(body.clone()), true).expect("a stream");
            let mut answer = response.await.expect("an answer").into_body();
            let mut read = Vec::new();
            while let Some(data) = answer.data().await {
                let data = data.expect("a whole body");
                let _ = answer.flow_control().release_capacity(data.len());
                read.extend_from_slice(&data);
            }
            assert!(read == body);
        }
        assert_eq!(*came.borrow(), [format!("{HOSTNAME} h2")]);
        // A server of HTTP/1.1 alone says so in the handshake.
        let of_another = BackendTls { by: Origin::of("another"), ..authority.policy() };
        serve(&world, of_another, authority.server(&[HOSTNAME]));
        let heard = world.get().await;
        assert!(heard.text.contains("TLS to pay.shop.example (another): the peer "), "{heard:?}");
    });
}

#[test]
fn bytes_pass_exactly_however_they_are_cut() {
    let turn = Cell::new(0_usize);
    let cut = move || {
        turn.set(turn.get() + 1);
        match turn.get() % 7 {
            3 => Step::Stall(ms(1)),
            nth => Step::Pass(nth * 997 + 1),
        }
    };
    without_endpoints(Rc::new(cut), |world| async move {
        world.declare_as(Protocol::Opaque, Settings::default(), BackendSettings::default());
        let authority = Authority::new("one");
        let came = serve(&world, authority.policy(), authority.server(&[HOSTNAME]));
        let sent: Vec<u8> = (0..300_000_u32).map(|at| (at * 31 % 251) as u8).collect();
        let (mut read, mut write) = tokio::io::split(world.connect());
        let all = sent.clone();
        tokio::task::spawn_local(async move {
            write.write_all(&all).await.expect("the proxy takes it");
            write.shutdown().await.expect("the proxy takes it");
        });
        let mut heard = Vec::new();
        read.read_to_end(&mut heard).await.expect("an end");
        assert!(heard == sent, "{} of {} bytes", heard.len(), sent.len());
        assert_eq!(*came.borrow(), [format!("{HOSTNAME} none")]);
    });
}

/// Whoever speaks TLS itself is not wrapped in TLS once more, whenever it begins.
#[test]
fn tls_of_the_client_is_passed_on_as_it_is() {
    for silence in [0, 300] {
        let authority = Authority::new("one");
        without_endpoints(smooth(), |world| async move {
            let came = serve(&world, authority.policy(), authority.server(&[HOSTNAME]));
            let mut roots = rustls::RootCertStore::empty();
            roots.add(authority.0.der().clone()).expect("a root");
            let provider = rustls::crypto::aws_lc_rs::default_provider();
            let config = rustls::ClientConfig::builder_with_provider(provider.into())
                .with_safe_default_protocol_versions()
                .expect("versions")
                .with_root_certificates(roots)
                .with_no_client_auth();
            let stream = world.connect();
            sleep(ms(silence)).await;
            let name = HOSTNAME.try_into().expect("a name");
            let connect = tokio_rustls::TlsConnector::from(Arc::new(config)).connect(name, stream);
            let mut tls = connect.await.expect("a handshake with the server itself");
            tls.write_all(b"mine").await.expect("a server");
            tls.shutdown().await.expect("a server");
            let mut heard = Vec::new();
            tls.read_to_end(&mut heard).await.expect("an end");
            assert_eq!(heard, b"mine");
            // A connection that was made before the client spoke is let go of.
            assert_eq!(came.borrow().last(), Some(&format!("{HOSTNAME} none")), "after {silence} ms");
        });
    }
}
