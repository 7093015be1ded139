//! `weft-init --print`: a file `data/x.in` holds the arguments, `data/x.out` what they print. `UPDATE=1` rewrites.

use std::fs;
use std::path::Path;
use std::process::Command;

#[test]
fn printed_rules() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data");
    let entries = fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path());
    let mut inputs: Vec<_> = entries.filter(|path| path.extension().is_some_and(|end| end == "in")).collect();
    inputs.sort();
    assert!(!inputs.is_empty(), "no *.in in {}", folder.display());
    for input in inputs {
        let arguments = fs::read_to_string(&input).unwrap();
        let output = Command::new(env!("CARGO_BIN_EXE_weft-init"))
            .env_clear()
            .arg("--print")
            .args(arguments.split_whitespace())
            .output()
            .unwrap();
        assert!(output.status.success(), "{}: {}", input.display(), String::from_utf8_lossy(&output.stderr));
        let printed = String::from_utf8(output.stdout).unwrap();
        let expected = input.with_extension("out");
        if std::env::var_os("UPDATE").is_some() {
            fs::write(&expected, &printed).unwrap();
        }
        let expected_text = fs::read_to_string(&expected).unwrap_or_default();
        assert_eq!(printed, expected_text, "{}; UPDATE=1 accepts it", expected.display());
    }
}
