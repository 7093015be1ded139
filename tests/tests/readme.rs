//! The commands of "Two proxies by hand" do what the README says: run as they stand there, but for the build.

use std::{fs, path::Path, process::Command};

#[test]
fn two_proxies_by_hand() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace stands above");
    let readme = fs::read_to_string(root.join("README.md")).expect("README.md");
    let (_, from) = readme.split_once("readme.rs runs this block -->\n```sh\n").expect("the marked block");
    let (block, _) = from.split_once("```").expect("its end");
    let commands: Vec<&str> = block.lines().filter(|line| !line.starts_with("cargo build")).collect();
    assert!(commands.len() + 1 == block.lines().count(), "the block builds by one line");
    // Binaries beside this test's folder; network namespaces in a mount namespace of its own, so that none remains.
    let test = std::env::current_exe().expect("this test's path");
    let target = test.ancestors().nth(3).expect("target/PROFILE/deps/TEST");
    let script = format!(
        "set -eu; mkdir -p /run/netns; mount -t tmpfs tmpfs /run/netns\n{}",
        commands.join("\n").replace("$PWD/${CARGO_TARGET_DIR:-target}", &target.display().to_string()),
    );
    let output = Command::new("timeout")
        .args(["60", "unshare", "--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"])
        .args(["bash", "-c", &script])
        .current_dir(root)
        .output()
        .expect("timeout and unshare of Debian's coreutils and util-linux");
    let (out, log) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(out.contains("kind: Service"), "the file came through the mesh: {out}\n{log}");
    for (direction, peer) in [("outbound", "sa/web"), ("inbound", "sa/caller")] {
        let counted = out.lines().any(|line| {
            line.contains(&format!("direction=\"{direction}\""))
                && line.contains(peer)
                && line.ends_with("class=\"2xx\"} 1")
        });
        assert!(counted, "one request, {direction}, by mTLS with {peer}: {out}\n{log}");
    }
}
