//! nginx without a proxy, that takes TLS alone: clients in the mesh reach it in plaintext, as a BackendTLSPolicy says how.

use crate::load::PORT;
use std::{fs, path::Path, time::Duration};
use tests::{
    certificate::Issued,
    eventually,
    manifest::{NAMESPACE, Port},
    pod::Pod,
    program::Program,
    world::World,
};

const HOSTNAME: &str = "web.elsewhere.example";
/// How soon after a document was written its effect must be seen, with time for a first connection to control.
const SOON: Duration = Duration::from_secs(5);

/// Says how it was spoken to; `versions` are those of TLS that it takes.
fn nginx(folder: &Path, pod: &Pod, issued: &Issued, versions: &str) -> Program {
    let root = folder.join(versions);
    fs::create_dir(&root).unwrap();
    let (root, certificate, key) = (root.display(), issued.certificate.display(), issued.key.display());
    let config = format!(
        "daemon off; worker_processes 1; user root; pid {root}/pid; error_log stderr;\n\
         events {{ worker_connections 256; }}\n\
         http {{ access_log off; client_body_temp_path {root}/body; proxy_temp_path {root}/proxy;\n\
         fastcgi_temp_path {root}/fastcgi; uwsgi_temp_path {root}/uwsgi; scgi_temp_path {root}/scgi;\n\
         server {{ listen {PORT} ssl http2; listen [::]:{PORT} ssl http2; ssl_protocols {versions};\n\
         ssl_certificate {certificate}; ssl_certificate_key {key};\n\
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
    let (own, other) = (Issued::new(&folder, "web", HOSTNAME), Issued::new(&folder, "other", HOSTNAME));
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
    let trusts = |issued: &Issued| {
        let indented = fs::read_to_string(&issued.authority).unwrap().replace('\n', "\n    ");
        world.manifests.write(
            "authority.yaml",
            &format!(
                "apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: authority, namespace: {NAMESPACE}}}\ndata:\n  \
                 ca.crt: |\n    {indented}\n"
            ),
        );
    };
    let [v4, v6] = web.at(PORT).map(|address| address.to_string());
    let first = nginx(&folder, &server, &own, "TLSv1.3");
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
    let (cacert, url) = (own.authority.display().to_string(), format!("https://{HOSTNAME}:{PORT}/"));
    let heard = client.done("curl", ["-sS", "-m", "5", "--cacert", &cacert, "--resolve", &resolve, &url]);
    assert!(heard.starts_with(&format!("{HOSTNAME} TLSv1.3 HTTP/2.0")), "{heard}");
    drop(first);
    let _second = nginx(&folder, &server, &own, "TLSv1.2");
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
