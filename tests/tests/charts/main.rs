//! The Helm chart, by real Helm and without a cluster: what it renders to, what its values are, and what never stands in
//! what it renders. `charts/rendered/` is what `weft install` applies; `UPDATE=1` writes it anew. Whether a cluster takes
//! it is for the tests on one.

mod objects;
mod values;

use serde_json::Value;
use std::{
    fmt::Write,
    fs,
    path::{Path, PathBuf},
    process::{Command, Output},
};

/// What is rendered, and with which values: for `weft install` and, the last one, with all that is optional.
pub const PROFILES: &[(&str, &[&str])] = &[
    ("default", &[]),
    ("ha", &["--values=charts/weft/values-ha.yaml"]),
    ("cni", &["--set=cni.enabled=true"]),
    ("all", &["--values=tests/tests/charts/all.yaml"]),
];

#[test]
fn rendered_manifests_are_current() {
    for (profile, flags) in &PROFILES[..3] {
        let path = root().join(format!("charts/rendered/{profile}.yaml"));
        let rendered = manifests(flags);
        if std::env::var_os("UPDATE").is_some() {
            fs::write(&path, &rendered).expect("charts/rendered");
        }
        assert!(
            fs::read_to_string(&path).unwrap_or_default() == rendered,
            "{} is not what the chart gives: UPDATE=1 cargo test -p tests --test charts",
            path.display()
        );
    }
}

#[test]
fn the_same_values_give_the_same_bytes() {
    for (profile, flags) in PROFILES {
        assert!(template("weft-system", flags) == template("weft-system", flags), "{profile}");
    }
}

#[test]
fn lint_finds_nothing() {
    for (profile, flags) in PROFILES {
        let output = helm(&[&["lint", "--strict", "--quiet", "charts/weft"], *flags].concat());
        assert!(output.status.success(), "{profile}: {}", said(&output));
    }
}

/// What `weft install` applies, in this order: the namespace, and what Helm would install. The label says who did.
fn manifests(flags: &[&str]) -> String {
    let mut text = String::from(
        "# The chart charts/weft as Helm renders it, for `weft install`; nobody edits this file. In the order in which it is\n\
         # applied: the webhook comes last, when there is who answers it.\n",
    );
    let labels =
        ["managed-by", "name", "part-of"].map(|label| format!("    app.kubernetes.io/{label}: weft\n"));
    write!(
        text,
        "---\napiVersion: v1\nkind: Namespace\nmetadata:\n  name: weft-system\n  labels:\n{}",
        labels.concat()
    )
    .expect("a String takes all");
    let rendered = template("weft-system", flags);
    text + &rendered.replace("\n\n---", "\n---").replace("managed-by: Helm", "managed-by: weft")
}

/// The manifests of a release in `namespace`, as text.
pub fn template(namespace: &str, flags: &[&str]) -> String {
    let output = helm(&[&["template", "weft", "charts/weft", "--namespace", namespace], flags].concat());
    assert!(output.status.success(), "{flags:?}: {}", said(&output));
    String::from_utf8(output.stdout).expect("YAML is UTF-8")
}

/// The manifests of a release in `namespace`, read.
pub fn objects(namespace: &str, flags: &[&str]) -> Vec<Value> {
    let text = template(namespace, flags);
    let objects: Vec<Value> = serde_saphyr::from_multiple(&text).expect("YAML");
    assert!(objects.len() > 10, "{flags:?} renders to {} objects", objects.len());
    objects
}

/// Helm in the project's folder, with no cluster and none of the settings of whoever runs the tests.
pub fn helm(arguments: &[&str]) -> Output {
    let test = std::env::current_exe().expect("this test's path");
    let target = test.ancestors().nth(3).expect("target/PROFILE/deps/TEST");
    let helm = target.join("cluster/bin/helm");
    assert!(helm.exists(), "tests/cluster/build helm makes {}", helm.display());
    let empty = Path::new(env!("CARGO_TARGET_TMPDIR")).join("helm");
    let mut command = Command::new(helm);
    command.args(arguments).current_dir(root()).env_clear().env("KUBECONFIG", "/dev/null");
    for variable in ["HOME", "HELM_CACHE_HOME", "HELM_CONFIG_HOME", "HELM_DATA_HOME"] {
        command.env(variable, &empty);
    }
    command.output().expect("helm runs")
}

pub fn said(output: &Output) -> String {
    [&output.stdout, &output.stderr].map(|text| String::from_utf8_lossy(text).into_owned()).concat()
}

pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace stands above").to_owned()
}
