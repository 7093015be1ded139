//! `data/explain/x.in.yaml`: manifests, and at the top the commands that are given over them, each after `#$`. `x.out.txt`: what
//! each one prints, and its exit code. `UPDATE=1` writes them anew; read the difference before committing it.

#![allow(clippy::unwrap_used)]

use std::path::Path;
use std::process::Command;
use std::{env, fs};

#[test]
fn every_command_answers_as_written() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/explain");
    let mut cases: Vec<_> = fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    cases.retain(|path| path.to_string_lossy().ends_with(".in.yaml"));
    cases.sort();
    assert!(cases.len() >= 6, "cases are missing from {}", folder.display());
    for case in cases {
        let name = case.file_name().unwrap().to_str().unwrap();
        let text = fs::read_to_string(&case).unwrap();
        let commands = text.lines().filter_map(|line| line.strip_prefix("#$ weft "));
        let answers: String = commands.map(|command| answer(&folder, name, command)).collect();
        assert!(!answers.is_empty(), "{name} asks nothing");
        let expected = folder.join(name.replace(".in.yaml", ".out.txt"));
        if env::var_os("UPDATE").is_some() {
            fs::write(&expected, &answers).unwrap();
        }
        let known = fs::read_to_string(&expected).unwrap_or_default();
        assert_eq!(answers, known, "{name}: UPDATE=1 rewrites it");
    }
}

/// What a command prints on both of its outputs, beneath it.
fn answer(folder: &Path, case: &str, command: &str) -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_weft"))
        .args(words(command))
        .args(["-f", case])
        .current_dir(folder)
        .output()
        .unwrap();
    let (said, failed) =
        (String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap());
    format!("$ weft {command}\n{said}{failed}({})\n\n", output.status.code().unwrap())
}

/// Split at spaces, except within single quotes.
fn words(command: &str) -> Vec<String> {
    let parts = command.split('\'').enumerate();
    parts
        .flat_map(|(at, part)| match at % 2 {
            0 => part.split_whitespace().map(Into::into).collect(),
            _ => vec![part.to_owned()],
        })
        .collect()
}
