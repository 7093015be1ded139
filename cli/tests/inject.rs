//! `weft inject` as people run it. What it makes of pods is held by the injector's own pairs of files.

#![allow(clippy::unwrap_used)]

use std::fs;
use std::io::Write;
use std::process::{Command, Output, Stdio};

const POD: &str = "kind: Pod\nmetadata: {name: web}\nspec: {containers: [{name: web}]}\n";

fn inject(arguments: &[&str], input: &str) -> Output {
    let mut weft = Command::new(env!("CARGO_BIN_EXE_weft"))
        .arg("inject")
        .args(arguments)
        .env_clear()
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // Who refuses its arguments ends without reading.
    let _ = weft.stdin.take().unwrap().write_all(input.as_bytes());
    weft.wait_with_output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

#[test]
fn manifests_go_through_and_notes_beside() {
    let output = inject(&["-f", "-"], POD);
    assert_eq!(output.status.code(), Some(0));
    assert!(text(&output.stdout).contains("name: weft-proxy"));
    assert_eq!(text(&output.stderr), "weft inject: pod/web: injected\n");
    let again = inject(&["-f", "-"], &text(&output.stdout));
    assert_eq!(again.stdout, output.stdout);
    assert_eq!(text(&again.stderr), "weft inject: pod/web: it has its proxy already\n");
}

#[test]
fn settings_of_the_command_line_are_the_defaults() {
    let output = inject(&["-f", "-", "--redirection", "cni", "--sidecar", "classic"], POD);
    let yaml = text(&output.stdout);
    assert!(yaml.contains("name: weft-validate") && yaml.contains("--await-ready"), "{yaml}");
    let output = inject(&["-f", "-", "--redirection", "iptables"], POD);
    assert_eq!(output.status.code(), Some(2));
    assert!(text(&output.stderr).contains("expected init or cni"));
}

#[test]
fn a_folder_is_one_stream_and_half_of_it_is_none() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("b.yaml"), POD).unwrap();
    fs::write(folder.path().join("a.yml"), "kind: Service\nmetadata: {name: web}   # kept").unwrap();
    fs::write(folder.path().join("notes.txt"), "no manifest").unwrap();
    let path = folder.path().to_str().unwrap();
    let output = inject(&["-f", path], "");
    let yaml = text(&output.stdout);
    assert!(yaml.starts_with("kind: Service\nmetadata: {name: web}   # kept\n---\nkind: Pod\n"), "{yaml}");

    fs::write(folder.path().join("c.yaml"), POD.replace("web}", "web, labels: {weft.mesh/inject: maybe}}"))
        .unwrap();
    let output = inject(&["-f", path], "");
    assert_eq!((output.status.code(), output.stdout.len()), (Some(1), 0));
    let error = text(&output.stderr);
    assert!(
        error.contains("c.yaml: line 1: pod/web: label weft.mesh/inject of the pod is \"maybe\""),
        "{error}"
    );
    let output = inject(&["-f", &format!("{path}/none.yaml")], "");
    assert_eq!(output.status.code(), Some(1));
}
