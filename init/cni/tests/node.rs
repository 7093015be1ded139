//! The program itself on a node of the test's own: network namespaces as pods, folders as the runtime's. Needs root.

#![allow(clippy::unwrap_used)]

use init_cni::agent::{Folders, Known, Outcome, install, mend, uninstall};
use init_cni::question::{Answer, Question};
use serde_json::{Value, json};
use std::cell::RefCell;
use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;

const ANNOTATIONS: &str = "io.kubernetes.cri.pod-annotations";
const LIST: &str =
    r#"{"cniVersion": "1.0.0", "name": "pods", "plugins": [{"type": "bridge"}, {"type": "portmap"}]}"#;

static COUNT: AtomicU32 = AtomicU32::new(0);

/// A network namespace with an interface that is up, removed when dropped.
struct Pod(String);

impl Pod {
    fn new() -> Pod {
        let pod = Pod(format!("weft-cni-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed)));
        for line in [
            format!("netns add {}", pod.0),
            format!("-n {} link set lo up", pod.0),
            format!("-n {} link add eth0 type veth peer name eth1", pod.0),
            format!("-n {} addr add 10.99.0.2/24 dev eth0", pod.0),
            format!("-n {} addr add fd00:99::2/64 dev eth0 nodad", pod.0),
            format!("-n {} link set eth0 up", pod.0),
            format!("-n {} link set eth1 up", pod.0),
        ] {
            let output = Command::new("ip").args(line.split_whitespace()).output().unwrap();
            assert!(output.status.success(), "ip {line}: {output:?}; these tests need root");
        }
        pod
    }

    fn path(&self) -> PathBuf {
        Path::new("/run/netns").join(&self.0)
    }

    fn nft(&self, arguments: &str) -> String {
        let inside = format!("netns exec {} nft --stateless {arguments}", self.0);
        let output = Command::new("ip").args(inside.split_whitespace()).output().unwrap();
        assert!(output.status.success(), "{arguments}: {output:?}");
        String::from_utf8(output.stdout).unwrap()
    }

    fn rules(&self) -> String {
        self.nft("list ruleset")
    }

    /// Calls the plugin as a runtime does.
    fn call(&self, command: &str, configuration: &Value) -> Output {
        let mut plugin = Command::new(env!("CARGO_BIN_EXE_weft-cni"))
            .env_clear()
            .envs([("CNI_COMMAND", command), ("CNI_CONTAINERID", "77"), ("CNI_IFNAME", "eth0")])
            .env("CNI_NETNS", self.path())
            .env("CNI_ARGS", "IgnoreUnknown=1;K8S_POD_NAMESPACE=shop;K8S_POD_NAME=cart-0;K8S_POD_UID=8d5c")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        // Who refuses its environment ends without reading.
        let _ = plugin.stdin.take().unwrap().write_all(configuration.to_string().as_bytes());
        plugin.wait_with_output().unwrap()
    }
}

impl Drop for Pod {
    fn drop(&mut self) {
        let _ = Command::new("ip").args(["netns", "del", &self.0]).output();
    }
}

fn configuration(redirect: Option<&str>) -> Value {
    let annotations = redirect.map(|value| json!({"weft.mesh/redirect": value})).unwrap_or(json!({}));
    json!({
        "cniVersion": "1.0.0", "name": "pods", "type": "weft-cni", "prevResult": {"cniVersion": "1.0.0", "ips": []},
        "runtimeConfig": {ANNOTATIONS: annotations},
    })
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

#[test]
fn a_pod_is_redirected_checked_and_let_go() {
    let pod = Pod::new();
    let wanted = configuration(Some(r#"{"skipInboundPorts":"22"}"#));
    let failed = |output: &Output, code: u32| {
        let said: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{output:?}"));
        assert!(!output.status.success() && said["code"] == code, "{said}");
        said.to_string()
    };
    assert!(failed(&pod.call("CHECK", &wanted), 101).contains("IPv4: chain output holds 0 rules"));

    for _ in 0..2 {
        let added = pod.call("ADD", &wanted);
        assert!(added.status.success(), "{added:?}");
        assert_eq!(text(&added.stdout), "{\"cniVersion\":\"1.0.0\",\"ips\":[]}\n");
        let rules = pod.rules();
        for part in [
            "table ip weft",
            "table ip6 weft",
            "tcp dport 22 return",
            "redirect to :4240",
            "redirect to :4243",
        ] {
            assert!(rules.contains(part), "{part}: {rules}");
        }
        assert_eq!(rules.matches("tcp dport 22 return").count(), 2, "one each family: {rules}");
    }
    let checked = pod.call("CHECK", &wanted);
    assert!(checked.status.success() && checked.stdout.is_empty(), "{checked:?}");
    assert!(
        failed(&pod.call("CHECK", &configuration(Some("{}"))), 101)
            .contains("chain prerouting holds 6 rules")
    );
    pod.nft("flush chain ip6 weft prerouting");
    assert!(failed(&pod.call("CHECK", &wanted), 101).contains("IPv6: chain prerouting holds 0 rules"));

    let deleted = pod.call("DEL", &wanted);
    assert!(deleted.status.success() && deleted.stdout.is_empty(), "{deleted:?}");
}

#[test]
fn a_pod_that_is_not_injected_passes() {
    let pod = Pod::new();
    assert!(pod.call("ADD", &configuration(None)).status.success());
    assert_eq!(pod.rules(), "");
}

#[test]
fn a_namespace_that_is_gone_is_an_error_that_says_so() {
    let pod = Pod::new();
    Command::new("ip").args(["netns", "del", &pod.0]).output().unwrap();
    let added = pod.call("ADD", &configuration(Some("{}")));
    let said: Value = serde_json::from_slice(&added.stdout).unwrap();
    assert_eq!(said["code"], 100, "{said}");
    assert!(
        said["details"].as_str().unwrap().contains("cannot be entered: No such file or directory"),
        "{said}"
    );
    assert!(pod.call("DEL", &configuration(Some("{}"))).status.success());
}

#[test]
fn the_agent_is_asked_where_the_runtime_tells_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("cni.sock");
    let mut silent = configuration(None);
    silent.as_object_mut().unwrap().remove("runtimeConfig");
    silent["socket"] = json!(socket);

    // Nobody is there: the pod passes, and the log says why.
    let pod = Pod::new();
    let added = pod.call("ADD", &silent);
    assert!(added.status.success(), "{added:?}");
    assert!(
        text(&added.stderr)
            .contains("shop/cart-0 passes, its annotations are not known: the agent does not answer at")
    );
    assert_eq!(pod.rules(), "");

    let listener = UnixListener::bind(&socket).unwrap();
    let agent = thread::spawn(move || {
        let answers = [
            Answer::Redirect(Some("{}".to_owned())),
            Answer::Redirect(None),
            Answer::Unknown("why".to_owned()),
        ];
        answers.map(|answer| {
            let (mut stream, _) = listener.accept().unwrap();
            let mut question = Vec::new();
            stream.read_to_end(&mut question).unwrap();
            stream.write_all(&serde_json::to_vec(&answer).unwrap()).unwrap();
            serde_json::from_slice::<Question>(&question).unwrap()
        })
    });
    assert!(pod.call("ADD", &silent).status.success());
    assert!(pod.rules().contains("redirect to :4243"));
    let other = Pod::new();
    assert!(other.call("ADD", &silent).status.success());
    let unknown = other.call("ADD", &silent);
    assert!(unknown.status.success() && text(&unknown.stderr).ends_with(": why\n"), "{unknown:?}");
    assert_eq!(other.rules(), "");
    let asked = Question { namespace: "shop".into(), name: "cart-0".into(), uid: Some("8d5c".into()) };
    assert_eq!(agent.join().unwrap(), [(); 3].map(|()| asked.clone()));
}

#[test]
fn a_pod_that_slipped_by_is_mended_in_place() {
    const UID: &str = "8d5c1c9a-0b5e-4c53-9f0e-3d1d1a6f7b11";
    let pod = Pod::new();
    // What the kernel tells of the pod's first process.
    let proc = tempfile::tempdir().unwrap();
    let process = proc.path().join("77");
    fs::create_dir_all(process.join("ns")).unwrap();
    fs::write(process.join("cgroup"), format!("0::/kubepods/burstable/pod{UID}/ab\n")).unwrap();
    symlink(pod.path(), process.join("ns/net")).unwrap();

    let mend = |uid: &str, value: &str| mend(proc.path(), uid, 77, value);
    let Outcome::Mended(missing) = mend(UID, "{}") else { panic!("it was redirected before") };
    assert!(missing.iter().any(|what| what.contains("IPv4: chain output holds 0 rules")), "{missing:?}");
    assert!(pod.rules().contains("redirect to :4240"));
    assert_eq!(mend(UID, "{}"), Outcome::InForce);
    // Taken out by somebody, and another plan than the one in force.
    pod.nft("delete table ip weft");
    assert!(matches!(mend(UID, "{}"), Outcome::Mended(_)));
    assert!(matches!(mend(UID, r#"{"skipInboundPorts":"22"}"#), Outcome::Mended(_)));
    assert!(pod.rules().contains("tcp dport 22 return"));
    let bad = mend(UID, "22");
    assert!(matches!(&bad, Outcome::Failed(why) if why.contains("weft.mesh/redirect")), "{bad:?}");
    // Its number is another pod's now; it has the node's network; it has ended.
    assert_eq!(mend("00000000-0b5e-4c53-9f0e-3d1d1a6f7b11", "{}"), Outcome::NotRunning);
    fs::remove_file(process.join("ns/net")).unwrap();
    symlink("/proc/self/ns/net", process.join("ns/net")).unwrap();
    assert_eq!(mend(UID, "{}"), Outcome::NotRunning);
    fs::remove_file(process.join("ns/net")).unwrap();
    assert_eq!(mend(UID, "{}"), Outcome::NotRunning);
}

struct Node {
    _folder: tempfile::TempDir,
    folders: Folders,
    list: PathBuf,
    known: RefCell<Known>,
}

impl Node {
    fn new() -> Node {
        let folder = tempfile::tempdir().unwrap();
        let (bin, conf) = (folder.path().join("bin"), folder.path().join("net.d"));
        fs::create_dir(&bin).unwrap();
        fs::create_dir(&conf).unwrap();
        let list = conf.join("10-pods.conflist");
        Node {
            _folder: folder,
            folders: Folders { bin, conf, conf_file: None },
            list,
            known: RefCell::default(),
        }
    }

    fn install(&self) -> Result<(bool, bool), String> {
        let written = install(&self.folders, Path::new("/run/weft/cni.sock"), &mut self.known.borrow_mut())
            .map_err(|error| error.to_string())?;
        Ok((written.program, written.configuration))
    }

    fn text(&self) -> String {
        fs::read_to_string(&self.list).unwrap()
    }
}

#[test]
fn the_plugin_is_put_in_place_and_taken_out_again() {
    let node = Node::new();
    fs::write(&node.list, LIST).unwrap();
    fs::set_permissions(&node.list, PermissionsExt::from_mode(0o600)).unwrap();
    fs::write(node.folders.conf.join("20-other.conflist"), "{}").unwrap();
    fs::write(node.folders.conf.join("00-notes.txt"), "").unwrap();
    assert_eq!(node.install(), Ok((true, true)));
    let entry = r#", {"capabilities":{"io.kubernetes.cri.pod-annotations":true},"socket":"/run/weft/cni.sock","type":"weft-cni"}]}"#;
    assert_eq!(node.text(), LIST.replace("]}", entry));
    assert_eq!(fs::metadata(&node.list).unwrap().permissions().mode() & 0o777, 0o600);
    let program = node.folders.bin.join("weft-cni");
    assert_eq!(fs::metadata(&program).unwrap().permissions().mode() & 0o777, 0o755);
    assert_eq!(node.install(), Ok((false, false)), "nothing is left to do");

    // The network's own installer writes its file again; somebody spoils the program.
    fs::write(&node.list, LIST).unwrap();
    assert_eq!(node.install(), Ok((false, true)));
    fs::write(&program, "").unwrap();
    assert_eq!(node.install(), Ok((true, false)));
    fs::set_permissions(&program, PermissionsExt::from_mode(0o600)).unwrap();
    assert_eq!(node.install(), Ok((true, false)));
    let names = |folder: &Path| fs::read_dir(folder).unwrap().count();
    assert_eq!((names(&node.folders.conf), names(&node.folders.bin)), (3, 1), "nothing is left behind");

    for _ in 0..2 {
        uninstall(&node.folders).unwrap();
        assert_eq!(node.text(), LIST);
        assert!(!program.exists());
    }
}

#[test]
fn a_node_without_a_network_of_its_own_is_told_apart() {
    let node = Node::new();
    let said = node.install().unwrap_err();
    assert!(
        said.contains("net.d holds no configuration: has the network plugin of this cluster been installed?"),
        "{said}"
    );
    fs::write(node.folders.conf.join("05-single.conf"), "{}").unwrap();
    fs::write(&node.list, LIST).unwrap();
    let said = node.install().unwrap_err();
    assert!(said.contains("05-single.conf is the configuration of a single plugin"), "{said}");
    let named = Folders { conf_file: Some("10-pods.conflist".to_owned()), ..node.folders.clone() };
    install(&named, Path::new("/s"), &mut Known::default()).unwrap();
    assert!(node.text().contains("weft-cni"));
    fs::write(&node.list, "{").unwrap();
    let said = install(&named, Path::new("/s"), &mut Known::default()).unwrap_err().to_string();
    assert!(said.contains("10-pods.conflist cannot be joined: it is no configuration list"), "{said}");
    assert_eq!(node.text(), "{");
}
