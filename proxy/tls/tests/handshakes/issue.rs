//! Asking for a certificate, and what an issuer may get wrong.

use crate::authority::{Authority, CART, leaf};
use proxy_tls::{Credentials, Error, Fault, Request};
use rcgen::{CertificateSigningRequestParams, ExtendedKeyUsagePurpose};
use rustls_pki_types::CertificateSigningRequestDer;

/// What an honest issuer makes of a request.
fn sign(authority: &Authority, request: &Request, identity: &str) -> Vec<u8> {
    let csr = CertificateSigningRequestDer::from(request.csr().to_vec());
    let parameters = CertificateSigningRequestParams::from_der(&csr).expect("a signed request");
    authority.sign(&leaf(identity), &parameters.public_key).to_vec()
}

#[test]
fn a_request_becomes_a_certificate_that_works() {
    let authority = Authority::new("root");
    let request = Request::new().expect("a request");
    let certificate = request.issued(vec![sign(&authority, &request, CART)]).expect("a certificate");
    assert_eq!(certificate.identity().to_string(), CART);
    certificate.check(&authority.trust()).expect("its own root accepts it");
    let credentials = Credentials::new(&authority.trust(), &certificate).expect("credentials");
    crate::shake(&credentials, &credentials, CART).expect("a handshake with oneself");
}

#[test]
fn each_request_has_its_own_key() {
    let (one, other) = (Request::new().expect("a request"), Request::new().expect("a request"));
    let authority = Authority::new("root");
    let error = one.issued(vec![sign(&authority, &other, CART)]).expect_err("another's certificate");
    assert!(matches!(error, Error::Issued(_)), "{error}");
    assert_eq!(error.fault(), Fault::Issuer);
}

#[test]
fn what_cannot_be_a_certificate_is_refused() {
    let authority = Authority::new("root");
    let request = Request::new().expect("a request");
    let good = sign(&authority, &request, CART);
    let cut = good[..good.len() - 1].to_vec();
    for (chain, says) in [
        (vec![], "the chain is empty"),
        (vec![vec![]], "malformed"),
        (vec![cut], "malformed"),
        (vec![b"-----BEGIN CERTIFICATE-----".to_vec()], "malformed"),
        (vec![sign(&authority, &request, "https://cluster.local")], "does not begin with spiffe://"),
        (vec![sign(&authority, &request, "spiffe://cluster.local/cart")], "is not an identity"),
    ] {
        let error = request.issued(chain).expect_err(says);
        assert!(error.to_string().contains(says), "{error} does not say {says:?}");
    }
    let names = |names: &[&str]| {
        let csr = CertificateSigningRequestDer::from(request.csr().to_vec());
        let parameters = CertificateSigningRequestParams::from_der(&csr).expect("a signed request");
        let mut leaf = leaf(CART);
        leaf.names = names.iter().map(ToString::to_string).collect();
        request.issued(vec![authority.sign(&leaf, &parameters.public_key).to_vec()])
    };
    assert!(names(&[]).expect_err("nameless").to_string().contains("has no URI"));
    assert!(names(&[CART, CART]).expect_err("two names").to_string().contains("several URIs"));
}

#[test]
fn a_certificate_that_peers_would_refuse_is_found_before_it_is_used() {
    let authority = Authority::new("root");
    let trust = authority.trust();
    for (bad, says) in [
        (Authority::new("foreign").certificate(&leaf(CART)), "of no root"),
        (authority.certificate(&leaf(CART).valid(-7200, -3600)), "expired"),
        (authority.certificate(&leaf(CART).only_for(ExtendedKeyUsagePurpose::ServerAuth)), "not meant for"),
        (authority.certificate(&leaf("spiffe://elsewhere/ns/shop/sa/cart")), "another trust domain"),
    ] {
        let error = bad.check(&trust).expect_err(says);
        assert!(error.to_string().contains(says), "{error} does not say {says:?}");
    }
    authority.certificate(&leaf(CART)).check(&trust).expect("a good one");
}
