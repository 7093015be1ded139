//! The plugin's protocol as data: `data/plugin/x.in.json` holds a call and what the world answers, `x.out.json` what is printed and
//! done. `UPDATE=1` rewrites.

#![allow(clippy::unwrap_used)]

use init::Plan;
use init_cni::call::Pod;
use init_cni::plugin::{World, run};
use serde_json::{Value, json};
use std::cell::RefCell;
use std::fs;
use std::path::{Path, PathBuf};

/// Answers as the file says, and writes down what it is told to do.
struct Script<'a> {
    script: &'a Value,
    did: RefCell<Vec<String>>,
}

impl Script<'_> {
    fn did(&self, what: String) {
        self.did.borrow_mut().push(what);
    }

    fn fails(&self, who: &str) -> Result<(), String> {
        self.script[who].as_str().map_or(Ok(()), |why| Err(why.to_owned()))
    }
}

impl World for Script<'_> {
    fn install(&self, namespace: &Path, plan: &Plan) -> Result<(), String> {
        self.did(format!("install in {}: {}", namespace.display(), skips(plan)));
        self.fails("kernelFails")
    }

    fn differences(&self, namespace: &Path, plan: &Plan) -> Result<Vec<String>, String> {
        self.did(format!("read in {}: {}", namespace.display(), skips(plan)));
        self.fails("kernelFails")?;
        let differences = self.script["differences"].as_array().into_iter().flatten();
        Ok(differences.map(|difference| difference.as_str().unwrap().to_owned()).collect())
    }

    fn ask(&self, socket: &Path, pod: &Pod) -> Result<Option<String>, String> {
        self.did(format!("ask {} for {pod:?}", socket.display()));
        self.fails("agentFails")?;
        Ok(self.script["agent"].as_str().map(str::to_owned))
    }
}

fn skips(plan: &Plan) -> String {
    assert_eq!(plan.proxy_uid, Some(2140));
    format!(
        "skips in {:?} out {:?} to {:?}",
        strings(&plan.skip_inbound_ports),
        strings(&plan.skip_outbound_ports),
        strings(&plan.skip_outbound_subnets)
    )
}

fn strings<T: ToString>(values: &[T]) -> Vec<String> {
    values.iter().map(ToString::to_string).collect()
}

#[test]
fn calls_and_answers() {
    let inputs = inputs("plugin", ".in.json");
    for path in inputs {
        let script: Value = serde_json::from_str(&fs::read_to_string(&path).unwrap()).unwrap();
        let input = match &script["input"] {
            Value::String(text) => text.clone(),
            configuration => configuration.to_string(),
        };
        let world = Script { script: &script, did: RefCell::default() };
        let variable = |name: &str| script["environment"][name].as_str().map(str::to_owned);
        let mut notes = Vec::new();
        let (output, done) = run(&variable, &input, &world, &mut |line| notes.push(line));
        // A result is the one that was given, byte for byte.
        if done && script["environment"]["CNI_COMMAND"] == "ADD" {
            assert_eq!(output, format!("{}\n", script["input"]["prevResult"]), "{}", path.display());
        }
        let printed = serde_json::from_str(&output).unwrap_or(Value::String(output));
        let seen = json!({"done": done, "printed": printed, "notes": notes, "did": world.did.into_inner()});
        let expected = PathBuf::from(path.to_str().unwrap().replace(".in.json", ".out.json"));
        check(&expected, &format!("{seen:#}\n"));
    }
}

/// A list with ours in it is as recorded; put in again nothing changes, and taken out the file is what it was.
#[test]
fn lists_and_our_place_in_them() {
    use init_cni::conflist::{holds, insert, is_touched, remove};
    let (old, new) =
        (r#"{"type":"weft-cni","socket":"/old"}"#, r#"{"type":"weft-cni","socket":"/run/weft/cni.sock"}"#);
    for path in inputs("conflist", ".in") {
        let (name, text) = (path.display(), fs::read_to_string(&path).unwrap());
        let edited = insert(&text, new).unwrap();
        check(&path.with_extension("out"), &edited);
        assert!(!holds(&text, new) && !is_touched(&text), "{name}");
        assert!(holds(&edited, new) && is_touched(&edited) && !holds(&edited, old), "{name}");
        assert_eq!(remove(&edited).unwrap(), text, "{name}");
        assert_eq!(remove(&text).unwrap(), text, "{name}");
        assert_eq!(insert(&insert(&text, old).unwrap(), new).unwrap(), edited, "{name}: brought up to date");
    }
}

#[test]
fn ours_is_found_wherever_others_have_moved_it() {
    use init_cni::conflist::{insert, remove};
    let list = |plugins: &str| format!(r#"{{"plugins": [{plugins}], "name": "n"}}"#);
    let (ours, a, b) = (r#"{"type": "weft-cni"}"#, r#"{"type": "a"}"#, r#"{"type": "b"}"#);
    let without = list(&format!("{a}, {b}"));
    for plugins in [format!("{ours}, {a}, {b}"), format!("{a}, {ours}, {b}"), format!("{a}, {b}, {ours}")] {
        assert_eq!(remove(&list(&plugins)).unwrap(), without, "{plugins}");
        assert_eq!(insert(&list(&plugins), ours).unwrap(), list(&plugins), "it stays where it is");
    }
    let twice = list(&format!("{a}, {ours}, {b}, {ours}"));
    assert_eq!(insert(&twice, ours).unwrap(), list(&format!("{a}, {ours}, {b}")));
    assert_eq!(remove(&twice).unwrap(), without);
    // Alone it would make no network; whoever left it so has more to mend than we.
    assert_eq!(remove(&list(ours)).unwrap(), list(""));
}

#[test]
fn what_is_no_list_is_not_touched() {
    use init_cni::conflist::insert;
    for (text, part) in [
        ("", "it is no configuration list: EOF"),
        ("{", "it is no configuration list"),
        (r#"{"type": "bridge"}"#, "missing field `plugins`"),
        (r#"{"plugins": {}}"#, "expected a sequence"),
        (r#"{"plugins": ["bridge"]}"#, "it is no configuration list"),
        (r#"{"plugins": []}"#, "its list of plugins is empty"),
    ] {
        let said = insert(text, "{}").unwrap_err().to_string();
        assert!(said.contains(part), "{text}: {said}");
    }
}

proptest::proptest! {
    /// Whatever spaces stand in a list, and whatever strings.
    #[test]
    fn nothing_else_is_changed(
        gaps in proptest::collection::vec("[ \t\n\r]{0,3}", 9),
        word in "[a-z\\[\\]{},: ]{0,8}",
        more in proptest::bool::ANY,
    ) {
        use init_cni::conflist::{insert, remove};
        let [a, b, c, d, e, f, g, h, i] = &gaps[..] else { unreachable!() };
        let other = if more { format!("{f},{g}{{\"type\":\"y\",\"plugins\":[]}}") } else { String::new() };
        let text = format!("{a}{{{b}\"n\":\"{word}\",\"plugins\"{c}:{d}[{e}{{\"type\":\"x\",\"w\":\"{word}\"}}{other}{h}]{i}}}\n");
        let edited = insert(&text, "{\"type\":\"weft-cni\"}").unwrap();
        proptest::prop_assert_eq!(serde_json::from_str::<Value>(&edited).unwrap()["plugins"].as_array().unwrap().len(), 2 + usize::from(more));
        proptest::prop_assert_eq!(remove(&edited).unwrap(), text);
    }
}

fn inputs(folder: &str, end: &str) -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data").join(folder);
    let mut paths: Vec<_> = fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.retain(|path| path.to_str().unwrap().ends_with(end));
    paths.sort();
    assert!(!paths.is_empty(), "no *{end} in {}", folder.display());
    paths
}

fn check(expected: &Path, seen: &str) {
    if std::env::var_os("UPDATE").is_some() {
        fs::write(expected, seen).unwrap();
    }
    let text = fs::read_to_string(expected).unwrap_or_default();
    assert_eq!(seen, text, "{}; UPDATE=1 accepts it", expected.display());
}
