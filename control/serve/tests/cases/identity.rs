//! Who gets a certificate, who does not, and how roots and issuers are replaced.

use super::discovery::{SERVICE, pod};
use crate::client::{Running, folder, next, start, start_with, trust_domain};
use proxy_tls::Request;
use proxy_wire::v1;
use rcgen::{CertificateParams, KeyPair, SanType};
use std::{
    fs,
    time::{Duration, SystemTime, UNIX_EPOCH},
};
use tonic::{Code, Status};

async fn shop() -> Running {
    start(&[("cart.yaml", SERVICE), ("cart-1.yaml", &pod("cart-1", "10.1.0.1"))]).await
}

async fn certify(control: &Running, csr: &[u8], token: &str) -> Result<v1::CertifyResponse, Status> {
    let request = v1::CertifyRequest { csr: csr.into(), token: token.into() };
    control.identity().await.certify(request).await.map(tonic::Response::into_inner)
}

#[tokio::test]
async fn a_token_gets_the_certificate_of_its_account() {
    let control = shop().await;
    let request = Request::new().expect("a key");
    let response =
        certify(&control, request.csr(), &control.token("shop/cart")).await.expect("a certificate");
    assert_eq!(response.identity, "spiffe://cluster.local/ns/shop/sa/cart");
    assert_eq!(response.chain.len(), 1, "the root is not sent");
    let certificate = request.issued(response.chain).expect("a certificate for the key");
    certificate.check(&control.trust()).expect("it is one that proxies trust");
    assert_eq!(certificate.identity().to_string(), response.identity);
    let now = SystemTime::now();
    let age = now.duration_since(certificate.not_before()).expect("it is valid now");
    assert!(
        age >= Duration::from_secs(299) && age < Duration::from_secs(400),
        "{age:?} for clocks that differ"
    );
    let left = certificate.not_after().duration_since(now).expect("it is valid now");
    assert!(left > Duration::from_secs(86_300) && left <= Duration::from_secs(86_400), "{left:?}");
    assert_eq!(certificate.not_after(), UNIX_EPOCH + Duration::from_secs(response.not_after));
    let (_, parsed) = x509_parser::parse_x509_certificate(&request_chain(&control).await)
        .map(|(rest, one)| (rest.len(), one.serial.clone()))
        .expect("a certificate");
    assert!(parsed.bits() > 64, "a serial number that is not to be guessed");
}

async fn request_chain(control: &Running) -> Vec<u8> {
    let request = Request::new().expect("a key");
    certify(control, request.csr(), &control.token("shop/cart")).await.expect("a certificate").chain.remove(0)
}

#[tokio::test]
async fn no_token_no_certificate() {
    let control = shop().await;
    let foreign = start(&[("cart-1.yaml", &pod("cart-1", "10.1.0.1"))]).await.token("shop/cart");
    let csr = Request::new().expect("a key");
    let own = control.token("shop/cart");
    for token in ["", "x", &own[..63], &own.replace(&own[..1], "g"), &foreign] {
        let status = certify(&control, csr.csr(), token).await.expect_err(token);
        assert_eq!(status.code(), Code::Unauthenticated, "{status:?}");
        assert!(!status.message().contains(&own) && !status.message().contains(&foreign));
    }
    // The account goes, and its token with it.
    fs::remove_file(control.path("manifests/cart-1.yaml")).expect("a manifest");
    control.admin_until("/metrics", |text| text.contains("objects{kind=\"Pod\"} 0")).await;
    let status = certify(&control, csr.csr(), &own).await.expect_err("a token of nobody");
    assert_eq!(status.code(), Code::Unauthenticated);
    let metrics = control.admin("/metrics").await;
    assert!(metrics.contains("weft_control_refused_total{reason=\"token\"} 6\n"), "{metrics}");
}

#[tokio::test]
async fn only_the_key_of_a_csr_counts() {
    let control = shop().await;
    let key = KeyPair::generate().expect("a key");
    let mut params = CertificateParams::default();
    let other = "spiffe://cluster.local/ns/shop/sa/admin";
    params.subject_alt_names = vec![SanType::URI(other.try_into().expect("a name"))];
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let csr = params.serialize_request(&key).expect("a CSR");
    let response = certify(&control, csr.der(), &control.token("shop/cart")).await.expect("a certificate");
    assert_eq!(response.identity, "spiffe://cluster.local/ns/shop/sa/cart");
    let leaf = &response.chain[0];
    let (_, parsed) = x509_parser::parse_x509_certificate(leaf).expect("a certificate");
    assert!(!parsed.is_ca());
    let san = parsed.subject_alternative_name().expect("one SAN").expect("a SAN");
    assert!(!san.critical);
    assert_eq!(format!("{:?}", san.value.general_names), "[URI(\"spiffe://cluster.local/ns/shop/sa/cart\")]");
    let usage = parsed.extended_key_usage().expect("one EKU").expect("an EKU").value;
    assert!(usage.server_auth && usage.client_auth && !usage.any);
}

#[tokio::test]
async fn csrs_that_prove_nothing_are_refused_with_a_reason() {
    let control = shop().await;
    let token = control.token("shop/cart");
    let good = Request::new().expect("a key").csr().to_vec();
    let mut tampered = good.clone();
    *tampered.last_mut().expect("a byte") ^= 1;
    let p384 = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P384_SHA384).expect("a key");
    let p384 = CertificateParams::default().serialize_request(&p384).expect("a CSR");
    let ed25519 = KeyPair::generate_for(&rcgen::PKCS_ED25519).expect("a key");
    let ed25519 = CertificateParams::default().serialize_request(&ed25519).expect("a CSR");
    for (case, csr, expected) in [
        ("empty", &[][..], "not PKCS #10"),
        ("garbage", &[0x30, 0x82, 0xff, 0xff, 0x00][..], "not PKCS #10"),
        ("cut", &good[..good.len() - 9], "not PKCS #10"),
        ("tampered", &tampered, "signature"),
        ("P-384", p384.der(), "P-256"),
        ("Ed25519", ed25519.der(), "P-256"),
    ] {
        let status = certify(&control, csr, &token).await.expect_err(case);
        assert_eq!(status.code(), Code::InvalidArgument, "{case}: {status:?}");
        assert!(status.message().contains(expected), "{case}: {}", status.message());
    }
    certify(&control, &good, &token).await.expect("nothing is broken by it");
}

#[tokio::test]
async fn a_control_of_another_root_is_not_spoken_to() {
    let (control, other) = (shop().await, shop().await);
    assert!(control.try_connect(&other.trust()).await.is_err());
}

#[tokio::test]
async fn roots_are_streamed_and_again_when_they_change() {
    let control = shop().await;
    let mut updates =
        control.identity().await.watch_trust(v1::TrustRequest {}).await.expect("a watch").into_inner();
    let first = next(&mut updates).await.roots;
    assert_eq!(first.len(), 1);
    let trust = control.trust();
    let other = shop().await;
    let both = [control.path("state/ca.pem"), other.path("state/ca.pem")]
        .map(|path| fs::read_to_string(path).expect("roots"));
    fs::write(control.path("state/ca.pem"), both.concat()).expect("roots");
    let second = next(&mut updates).await.roots;
    assert_eq!(second.len(), 2);
    assert_eq!(second[0], first[0]);

    // Roots that the issuer does not lead to would lock everybody out: they are refused, and the good ones stay.
    fs::write(control.path("state/ca.pem"), &both[1]).expect("roots");
    let problems =
        control.admin_until("/problems", |text| text.contains("what was there before stays in use")).await;
    assert!(problems.contains("do not work with ca.pem"), "{problems}");
    control.try_connect(&trust).await.expect("control is still the one that it was");
}

#[tokio::test]
async fn the_issuer_is_replaced_without_a_restart() {
    let (control, other) = (shop().await, shop().await);
    let mut updates =
        control.identity().await.watch_trust(v1::TrustRequest {}).await.expect("a watch").into_inner();
    next(&mut updates).await;
    let old = control.trust();
    let read = |control: &Running, name: &str| fs::read(control.path("state").join(name)).expect("a file");
    let roots = [read(&control, "ca.pem"), read(&other, "ca.pem")].concat();
    fs::write(control.path("state/ca.pem"), roots).expect("roots");
    assert_eq!(next(&mut updates).await.roots.len(), 2);
    fs::write(control.path("state/issuer.key"), read(&other, "issuer.key")).expect("a key");
    fs::write(control.path("state/issuer.pem"), read(&other, "issuer.pem")).expect("an issuer");
    fs::write(control.path("state/ca.pem"), read(&other, "ca.pem")).expect("roots");
    assert_eq!(next(&mut updates).await.roots.len(), 1);
    // Control itself is certified by the new issuer, and so is who asks now.
    assert!(control.try_connect(&old).await.is_err());
    let request = Request::new().expect("a key");
    let response =
        certify(&control, request.csr(), &control.token("shop/cart")).await.expect("a certificate");
    let certificate = request.issued(response.chain).expect("a certificate");
    certificate.check(&other.trust()).expect("of the new root");
    assert!(certificate.check(&old).is_err());
}

#[tokio::test]
async fn an_intermediate_issuer_is_sent_with_the_leaf() {
    let control = shop().await;
    let root = fs::read_to_string(control.path("state/issuer.pem")).expect("the root");
    let root_key = KeyPair::from_pem(&fs::read_to_string(control.path("state/issuer.key")).expect("its key"))
        .expect("a key");
    let issuer = rcgen::Issuer::from_ca_cert_pem(&root, root_key).expect("an issuer");
    let key = KeyPair::generate().expect("a key");
    let mut params = CertificateParams::default();
    params.distinguished_name.push(rcgen::DnType::CommonName, "intermediate");
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Constrained(0));
    params.key_usages = vec![rcgen::KeyUsagePurpose::KeyCertSign];
    let soon = SystemTime::now() + Duration::from_secs(3600);
    params.not_after = soon.into();
    let intermediate = params.signed_by(&key, &issuer).expect("a certificate").pem();
    // Written in the wrong order: what is between is a problem, not a failure.
    fs::write(control.path("state/issuer.pem"), intermediate).expect("an issuer");
    control.admin_until("/problems", |text| text.contains("issuer.pem")).await;
    fs::write(control.path("state/issuer.key"), key.serialize_pem()).expect("a key");
    control.admin_until("/problems", |text| text.ends_with("\r\n\r\n[]\n")).await;
    let request = Request::new().expect("a key");
    let response =
        certify(&control, request.csr(), &control.token("shop/cart")).await.expect("a certificate");
    assert_eq!(response.chain.len(), 2);
    let certificate = request.issued(response.chain).expect("a certificate");
    certificate.check(&control.trust()).expect("it leads to the root");
    assert!(certificate.not_after() <= soon, "it does not outlive its issuer");
}

#[tokio::test]
async fn trust_is_said_again_at_each_heartbeat() {
    let control = start_with(folder(&[]), |config| config.heartbeat = Duration::from_millis(20)).await;
    let mut updates =
        control.identity().await.watch_trust(v1::TrustRequest {}).await.expect("a watch").into_inner();
    let first = next(&mut updates).await;
    assert_eq!(next(&mut updates).await, first);
    assert_eq!(next(&mut updates).await, first);
    assert_eq!(proxy_tls::Trust::from_der(trust_domain(), first.roots).expect("roots").roots().count(), 1);
}
