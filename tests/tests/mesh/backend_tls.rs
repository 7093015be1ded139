//! nginx without a proxy, that takes TLS alone: clients in the mesh reach it in plaintext, as a BackendTLSPolicy says how.

use crate::load::PORT;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use std::{fs, path::Path, time::Duration};
use tests::{
    eventually,
    manifest::{NAMESPACE, Port},
    pod::Pod,
    program::Program,
    world::World,
};

const HOSTNAME: &str = "web.elsewhere.example";
/// How soon after a document was written its effect must be seen, with time for a first connection to control.
const SOON: Duration = Duration::from_secs(5);

/// Makes an authority, and a server's certificate and key in `folder` under this name; gives the authority's certificate.
fn authority(folder: &Path, name: &str) -> String {
    let mut parameters = CertificateParams::default();
    parameters.distinguished_name.push(DnType::CommonName, name);
    parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority = CertifiedIssuer::self_signed(parameters, KeyPair::generate().unwrap()).unwrap();
    let key = KeyPair::generate().unwrap();
    let server = CertificateParams::new(vec![HOSTNAME.to_owned()]).unwrap();
    let certificate = server.signed_by(&key, &authority).unwrap();
    fs::write(folder.join(format!("{name}.pem")), certificate.pem()).unwrap();
    fs::write(folder.join(format!("{name}.key")), key.serialize_pem()).unwrap();
    fs::write(folder.join(format!("{name}.ca.pem")), authority.pem()).unwrap();
    authority.pem()
}

/// Says how it was spoken to; `versions` are those of TLS that it takes.
fn nginx(folder: &Path, pod: &Pod, versions: &str) -> Program {
    let root = folder.join(versions);
    fs::create_dir(&root).unwrap();
    let (root, keys) = (root.display(), folder.display());
    let config = format!(
        "daemon off; worker_processes 1; user root; pid {root}/pid; error_log stderr;\n\
         events {{ worker_connections 256; }}\n\
         http {{ access_log off; client_body_temp_path {root}/body; proxy_temp_path {root}/proxy;\n\
         fastcgi_temp_path {root}/fastcgi; uwsgi_temp_path {root}/uwsgi; scgi_temp_path {root}/scgi;\n\
         server {{ listen {PORT} ssl http2; listen [::]:{PORT} ssl http2; ssl_protocols {versions};\n\
         ssl_certificate {keys}/web.pem; ssl_certificate_key {keys}/web.key;\n\
         location / {{ return 200 '$ssl_server_name $ssl_protocol $server_protocol $request_method'; }} }} }}\n"
    );
    fs::write(folder.join(versions).join("conf"), config).unwrap();
    let program = pod.start("nginx", ["-p", &root.to_string(), "-c", "conf"]);
    pod.wait_for_port(PORT);
    program
}

#[test]
fn plaintext_becomes_the_tls_that_a_policy_asks_for() {
    let world = World::new();
    let web = world.service("web", "web", &[Port::auto(PORT)]);
    let (client, server) = (world.meshed("client"), world.unmeshed("web"));
    let folder = world.folder().join("tls");
    fs::create_dir(&folder).unwrap();
    let (own, other) = (authority(&folder, "web"), authority(&folder, "other"));
    let asked = |address: &str, options: &[&str]| {
        let url = format!("http://{address}/");
        client.done("curl", [&["-sS", "-m", "5", "-w", " %{http_code}", &url], options].concat())
    };
    let is = |address: &str, options: &[&str], says: &str| {
        eventually(SOON, || {
            let heard = asked(address, options);
            if heard.contains(says) { Ok(()) } else { Err(format!("{address} {options:?}: {heard}")) }
        });
    };
    let trusts = |certificate: &str| {
        let indented = certificate.replace('\n', "\n    ");
        world.manifests.write(
            "authority.yaml",
            &format!(
                "apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: authority, namespace: {NAMESPACE}}}\ndata:\n  \
                 ca.crt: |\n    {indented}\n"
            ),
        );
    };
    let [v4, v6] = web.at(PORT).map(|address| address.to_string());
    let first = nginx(&folder, &server, "TLSv1.3");
    is(&v4, &[], "plain HTTP request was sent to HTTPS port");

    trusts(&own);
    world.manifests.write(
        "tls.yaml",
        &format!(
            "apiVersion: gateway.networking.k8s.io/v1\nkind: BackendTLSPolicy\n\
             metadata: {{name: web, namespace: {NAMESPACE}}}\nspec:\n  \
             targetRefs: [{{group: \"\", kind: Service, name: web}}]\n  \
             validation: {{hostname: {HOSTNAME}, caCertificateRefs: [{{group: \"\", kind: ConfigMap, name: authority}}]}}\n"
        ),
    );
    for address in [&v4, &v6] {
        is(address, &[], &format!("{HOSTNAME} TLSv1.3 HTTP/1.1 GET 200"));
        is(address, &["--http2-prior-knowledge"], &format!("{HOSTNAME} TLSv1.3 HTTP/2.0 GET 200"));
        is(address, &["-d", "body"], &format!("{HOSTNAME} TLSv1.3 HTTP/1.1 POST 200"));
    }
    // A client's own TLS reaches the server as it is.
    let resolve = format!("{HOSTNAME}:{PORT}:{}", web.at(PORT)[0].ip());
    let (cacert, url) =
        (folder.join("web.ca.pem").display().to_string(), format!("https://{HOSTNAME}:{PORT}/"));
    let heard = client.done("curl", ["-sS", "-m", "5", "--cacert", &cacert, "--resolve", &resolve, &url]);
    assert!(heard.starts_with(&format!("{HOSTNAME} TLSv1.3 HTTP/2.0")), "{heard}");
    drop(first);
    let _second = nginx(&folder, &server, "TLSv1.2");
    is(&v4, &[], &format!("{HOSTNAME} TLSv1.2 HTTP/1.1 GET 200"));

    // Whoever is not trusted any more is not spoken to, on old connections neither, and never in plaintext.
    trusts(&other);
    is(&v4, &[], &format!("TLS to {HOSTNAME} (BackendTLSPolicy {NAMESPACE}/web): "));
    assert!(asked(&v4, &[]).contains("tls_certificate_error"), "{}", asked(&v4, &[]));
    world.manifests.remove("authority.yaml");
    is(&v4, &[], "it names no certificate of an authority that can be used");
    world.manifests.remove("tls.yaml");
    is(&v4, &[], "plain HTTP request was sent to HTTPS port");
}
