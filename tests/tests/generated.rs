//! The checked-in code of `weft.control.v1` is what its .proto gives. `UPDATE=1` writes it anew.
//! It is checked in so that building the project needs no protobuf compiler and stays quick.

use std::{fs, path::Path};

const PROTO: &str = "weft/control/v1/control.proto";
const MESSAGES: &str = "proxy/wire/src/generated.rs";
const CLIENTS: &str = "proxy/app/src/generated.rs";
const SERVERS: &str = "control/serve/src/generated.rs";

#[test]
fn checked_in_protobuf_code_is_current() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace stands above");
    for (file, client, server) in [(MESSAGES, false, false), (CLIENTS, true, false), (SERVERS, false, true)] {
        let code = generate(root, client, server);
        let path = root.join(file);
        if std::env::var_os("UPDATE").is_some() {
            fs::write(&path, &code).expect(file);
        }
        let held = fs::read_to_string(&path).unwrap_or_default();
        assert!(
            held == code,
            "{file} differs from {PROTO}: run `UPDATE=1 cargo test -p tests --test generated`"
        );
    }
}

fn generate(root: &Path, client: bool, server: bool) -> String {
    let descriptors = protox::compile([PROTO], [root.join("proxy/wire/proto")]).expect(PROTO);
    let out = std::env::temp_dir().join(format!("weft-generated-{}-{client}-{server}", std::process::id()));
    fs::create_dir_all(&out).expect("a temporary folder");
    let mut builder = tonic_prost_build::configure()
        .build_client(client)
        .build_server(server)
        .build_transport(false)
        .out_dir(&out);
    if client || server {
        builder = builder.extern_path(".weft.control.v1", "::proxy_wire::v1");
    }
    builder.compile_fds(descriptors).expect("code for the services");
    let code = fs::read_to_string(out.join("weft.control.v1.rs")).expect("one file a package");
    fs::remove_dir_all(&out).expect("the temporary folder");
    code
}
