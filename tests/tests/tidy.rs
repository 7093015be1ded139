//! The rules of the house that no compiler knows: who may depend on whom, what pure means, that ARCHITECTURE.md is
//! complete, and what a source file looks like. Each test prints every breach it finds, with what to do about it.

use serde_json::Value;
use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

/// Which of ours each crate may depend on. `policy` knows nobody, and nobody knows a binary.
const OURS: &[(&str, &[&str])] = &[
    ("policy", &[]),
    ("explain", &["policy"]),
    ("api", &["policy"]),
    ("init", &[]),
    ("init-cni", &["init", "admin"]),
    ("proxy-transport", &["policy"]),
    ("proxy-detect", &[]),
    ("proxy-h1", &[]),
    ("proxy-balance", &[]),
    ("proxy-tls", &["policy"]),
    ("proxy-http", &["policy", "proxy-h1", "proxy-tls", "proxy-transport"]),
    ("proxy-wire", &["policy"]),
    (
        "proxy-app",
        &[
            "policy",
            "explain",
            "proxy-balance",
            "proxy-detect",
            "proxy-h1",
            "proxy-http",
            "proxy-tls",
            "proxy-transport",
            "proxy-wire",
        ],
    ),
    ("control-index", &["policy", "api"]),
    ("control-manifest", &["control-index"]),
    ("control-translate", &["policy", "api", "control-index"]),
    (
        "control-serve",
        &["policy", "api", "admin", "control-index", "control-manifest", "control-translate", "proxy-wire"],
    ),
    ("admin", &[]),
    ("injector", &["policy", "init", "admin"]),
    ("import", &["policy"]),
    (
        "cli",
        &[
            "policy",
            "explain",
            "import",
            "control-index",
            "control-manifest",
            "control-translate",
            "injector",
        ],
    ),
    ("examples-shop", &[]),
    ("tests", &[]),
    ("bench-load", &[]),
    ("bench-scale", &["policy", "proxy-tls", "proxy-wire"]),
];

/// Which of ours may name these crates of others. deny.toml holds the rest of the tree.
const THEIRS: &[(&str, &[&str])] = &[
    (
        "anyhow",
        &[
            "init",
            "init-cni",
            "proxy-app",
            "control-serve",
            "cli",
            "examples-shop",
            "bench-load",
            "injector",
            "bench-scale",
        ],
    ),
    (
        "clap",
        &[
            "init",
            "init-cni",
            "proxy-app",
            "control-serve",
            "cli",
            "examples-shop",
            "bench-load",
            "injector",
            "bench-scale",
        ],
    ),
    ("h2", &["proxy-http", "proxy-app", "tests", "bench-load"]),
    (
        "hyper",
        &[
            "admin",
            "init-cni",
            "proxy-app",
            "control-serve",
            "examples-shop",
            "bench-load",
            "injector",
            "bench-scale",
        ],
    ),
    ("k8s-openapi", &["api", "init-cni", "control-index", "control-serve", "cli", "injector"]),
    ("kube", &["init-cni", "control-serve", "cli", "injector"]),
    ("kube-core", &["api"]),
    ("kube-derive", &["api"]),
    ("libc", &["init", "proxy-transport"]),
    ("prost", &["proxy-wire", "proxy-app", "control-serve", "bench-scale"]),
    ("rcgen", &["proxy-tls", "control-serve", "tests", "injector"]),
    ("rustls", &["init-cni", "proxy-tls", "proxy-app", "control-serve", "injector"]),
    ("rustls-webpki", &["proxy-tls", "control-serve"]),
    ("socket2", &["init", "proxy-transport", "tests"]),
    ("tokio-rustls", &["proxy-http", "proxy-app", "control-serve", "injector", "bench-scale"]),
    ("tonic", &["proxy-app", "control-serve", "bench-scale"]),
    ("x509-parser", &["proxy-tls", "control-serve", "cli", "injector"]),
];

/// Crates that decide and never act, by folder. Their clippy.toml bans what of the standard library touches the world.
const PURE: &[&str] = &[
    "policy",
    "api",
    "proxy/detect",
    "proxy/h1",
    "proxy/balance",
    "proxy/wire",
    "explain",
    "control/index",
    "control/manifest",
    "control/translate",
    "import",
];

/// What a pure crate may not even depend on through others: runtimes, sockets, the system, randomness, logs.
const IMPURE: &[&str] = &[
    "fastrand",
    "getrandom",
    "h2",
    "hyper",
    "libc",
    "mio",
    "nix",
    "notify",
    "rand",
    "rustix",
    "rustls",
    "socket2",
    "tempfile",
    "tokio",
    "tonic",
    "tracing",
];

/// Where `unsafe` may stand.
const UNSAFE: &[&str] = &["proxy/transport/src/", "init/src/"];
/// A longer file tells two stories.
const MAX_LINES: usize = 700;
/// Names that say nothing about what is inside.
const HOLLOW: &[&str] =
    &["common", "handler", "handlers", "helper", "helpers", "manager", "misc", "util", "utils"];
/// Code that is not finished, or that gives up without saying why it may.
const UNFINISHED: &[&str] =
    &[".unwrap()", "todo!(", "unimplemented!(", "dbg!(", "allow(dead_code)", "allow(unused"];

#[test]
fn crates_depend_on_ours_as_the_architecture_says() {
    let workspace = Workspace::read();
    let table: BTreeMap<_, _> = OURS.iter().copied().collect();
    let mut breaches = Vec::new();
    for member in workspace.members.values() {
        let Some(allowed) = table.get(member.name.as_str()) else {
            breaches.push(format!("{} is new: say in OURS what it may depend on", member.name));
            continue;
        };
        for dependency in member.normal.iter().filter(|name| table.contains_key(name.as_str())) {
            if !allowed.contains(&dependency.as_str()) {
                breaches.push(format!("{} may not depend on {dependency}", member.name));
            }
        }
        for binary in ["proxy-app", "control-serve", "cli"] {
            if member.all.contains(binary) {
                breaches.push(format!("{} may not depend on {binary}, not even in tests", member.name));
            }
        }
    }
    none(&breaches);
}

#[test]
fn crates_of_others_are_named_where_they_belong() {
    let mut breaches = Vec::new();
    for member in Workspace::read().members.values() {
        for (theirs, allowed) in THEIRS {
            if member.normal.contains(*theirs) && !allowed.contains(&member.name.as_str()) {
                breaches.push(format!("{} may not depend on {theirs}: {allowed:?} may", member.name));
            }
        }
    }
    none(&breaches);
}

#[test]
fn pure_crates_stay_pure() {
    let workspace = Workspace::read();
    let bans = fs::read_to_string(root().join("policy/clippy.toml")).expect("policy/clippy.toml");
    let mut breaches = Vec::new();
    for folder in PURE {
        let member = workspace.members.get(*folder).expect(folder);
        for impure in workspace.tree(member).iter().filter(|name| IMPURE.contains(&name.as_str())) {
            breaches.push(format!("{folder} depends on {impure}, perhaps through others"));
        }
        if fs::read_to_string(root().join(folder).join("clippy.toml")).ok().as_ref() != Some(&bans) {
            breaches.push(format!("{folder}/clippy.toml is not policy/clippy.toml: link it"));
        }
    }
    for file in Source::all().iter().filter(|file| PURE.iter().any(|folder| file.is_in(folder, "src"))) {
        for word in ["std::fs", "std::env", "std::process", "std::os::"] {
            if file.code().any(|(_, line)| line.contains(word)) {
                breaches.push(format!("{} names {word}", file.path));
            }
        }
    }
    none(&breaches);
}

#[test]
fn members_take_versions_and_lints_from_the_workspace() {
    let mut breaches = Vec::new();
    for folder in Workspace::read().members.keys() {
        let manifest = fs::read_to_string(root().join(folder).join("Cargo.toml")).expect("a manifest");
        if !manifest.contains("[lints]\nworkspace = true") {
            breaches.push(format!("{folder}/Cargo.toml: add [lints] workspace = true"));
        }
        let mut dependencies = false;
        for line in manifest.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
            match line.strip_prefix('[') {
                Some(section) => dependencies = section.contains("dependencies"),
                None if dependencies && !line.contains("workspace = true") => {
                    breaches.push(format!("{folder}/Cargo.toml: {line}: its version belongs into the root"));
                }
                None => {}
            }
        }
    }
    none(&breaches);
}

#[test]
fn packages_come_from_the_public_registry_only() {
    let lock = fs::read_to_string(root().join("Cargo.lock")).expect("Cargo.lock");
    let sources = lock.lines().filter_map(|line| line.strip_prefix("source = "));
    let others =
        sources.filter(|source| *source != r#""registry+https://github.com/rust-lang/crates.io-index""#);
    none(&others.map(str::to_owned).collect::<Vec<_>>());
}

#[test]
fn the_codemap_names_every_member() {
    let text = fs::read_to_string(root().join("ARCHITECTURE.md")).expect("ARCHITECTURE.md");
    let workspace = Workspace::read();
    let missing = workspace.members.keys().filter(|folder| !text.contains(&format!("`{folder}/`")));
    none(&missing.map(|folder| format!("ARCHITECTURE.md does not name `{folder}/`")).collect::<Vec<_>>());
}

#[test]
fn files_say_what_they_are_and_stay_short() {
    let mut breaches = Vec::new();
    for file in Source::all().iter().filter(|file| !file.is_generated()) {
        if !file.text.starts_with("//! ") {
            breaches.push(format!("{}: open with //! and what is here, and what is not", file.path));
        }
        let lines = file.text.lines().count();
        if lines > MAX_LINES && !file.is_test() {
            breaches.push(format!("{}: {lines} lines, more than {MAX_LINES}: split it", file.path));
        }
        let name = file.path.trim_end_matches(".rs").rsplit(['/', '_']);
        if let Some(hollow) = name.into_iter().find(|part| HOLLOW.contains(part)) {
            breaches.push(format!("{}: {hollow:?} says nothing about what is inside", file.path));
        }
    }
    none(&breaches);
}

#[test]
fn nothing_is_unfinished_and_nothing_unwraps() {
    let mut breaches = Vec::new();
    for file in Source::all().iter().filter(|file| !file.is_test() && !file.is_generated()) {
        for (number, line) in file.code() {
            if let Some(word) = UNFINISHED.iter().find(|word| line.contains(**word)) {
                breaches.push(format!("{}:{number}: {word}", file.path));
            }
        }
    }
    none(&breaches);
}

#[test]
fn unsafe_is_rare_and_has_reasons() {
    let mut breaches = Vec::new();
    for file in Source::all().iter().filter(|file| file.path != "tests/tests/tidy.rs") {
        let lines: Vec<_> = file.text.lines().collect();
        for (number, line) in file.code() {
            let block = line.contains("unsafe {");
            let other = ["unsafe fn", "unsafe impl", "unsafe extern", "allow(unsafe_code)"];
            if !block && !other.iter().any(|word| line.contains(word)) {
                continue;
            }
            if !UNSAFE.iter().any(|folder| file.path.starts_with(folder)) {
                breaches.push(format!("{}:{number}: unsafe belongs into {UNSAFE:?}", file.path));
            }
            let before = &lines[number.saturating_sub(10)..number];
            if block && !before.iter().any(|line| line.contains("// SAFETY:")) {
                breaches.push(format!("{}:{number}: no // SAFETY: above", file.path));
            }
        }
    }
    none(&breaches);
}

#[test]
fn no_path_of_a_machine() {
    let paths =
        [concat!("/wo", "rk/"), concat!("/ro", "ot/"), concat!("/ho", "me/"), concat!("/tmp/", "target")];
    let mut breaches = Vec::new();
    for file in files(|name| {
        ["rs", "toml", "md", "sh", "yaml", "yml", "proto", "py"]
            .iter()
            .any(|end| name.ends_with(&format!(".{end}")))
            || !name.contains('.')
    }) {
        let Ok(text) = fs::read_to_string(root().join(&file)) else { continue };
        for (number, line) in (1..).zip(text.lines()) {
            let inside =
                |at: usize| line[..at].ends_with(|symbol: char| symbol.is_alphanumeric() || symbol == '}');
            if paths.iter().any(|path| line.match_indices(path).any(|(at, _)| !inside(at))) {
                breaches.push(format!("{file}:{number}: {}", line.trim()));
            }
        }
    }
    none(&breaches);
}

fn none(breaches: &[String]) {
    assert!(breaches.is_empty(), "\n  {}\n", breaches.join("\n  "));
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace stands above").to_owned()
}

/// Files of the project whose name `wanted` takes, by path from the root. What a build leaves behind is not entered.
fn files(wanted: impl Fn(&str) -> bool) -> Vec<String> {
    const LEFT_BY_BUILDS: &[&str] = &[".git", "artifacts", "corpus", "target"];
    let (root, mut found, mut folders) = (root(), Vec::new(), vec![root()]);
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).expect("a folder") {
            let entry = entry.expect("an entry");
            let name = entry.file_name().to_string_lossy().into_owned();
            let kind = entry.file_type().expect("the kind of an entry");
            if kind.is_dir() && !LEFT_BY_BUILDS.contains(&name.as_str()) {
                folders.push(entry.path());
            } else if kind.is_file() && wanted(&name) {
                let path = entry.path();
                found.push(path.strip_prefix(&root).expect("below the root").to_string_lossy().into_owned());
            }
        }
    }
    found.sort();
    found
}

struct Source {
    path: String,
    text: String,
}

impl Source {
    fn all() -> Vec<Source> {
        let all: Vec<_> = files(|name| name.ends_with(".rs"))
            .into_iter()
            .map(|path| Source { text: fs::read_to_string(root().join(&path)).expect("a source"), path })
            .collect();
        assert!(all.len() > 50, "the sources were not found");
        all
    }

    fn is_in(&self, folder: &str, below: &str) -> bool {
        self.path.strip_prefix(folder).is_some_and(|rest| rest.starts_with(&format!("/{below}/")))
    }

    fn is_test(&self) -> bool {
        self.path.starts_with("tests/") || self.path.contains("/tests/") || self.path.ends_with("/tests.rs")
    }

    fn is_generated(&self) -> bool {
        self.text.lines().next().is_some_and(|line| line.contains("@generated"))
    }

    /// Lines with their numbers, without comments and without the module of tests at the end.
    fn code(&self) -> impl Iterator<Item = (usize, &str)> {
        let tests = self.text.find("\n#[cfg(test)]\nmod tests {").unwrap_or(self.text.len());
        let lines = (1..).zip(self.text[..tests].lines());
        lines.filter(|(_, line)| !line.trim_start().starts_with("//"))
    }
}

struct Member {
    id: String,
    name: String,
    /// Names of the crates it depends on, except in tests.
    normal: BTreeSet<String>,
    /// Names of all crates it depends on.
    all: BTreeSet<String>,
}

/// What cargo knows.
struct Workspace {
    /// By folder.
    members: BTreeMap<String, Member>,
    /// Name of each package of the whole tree, and the packages it depends on except in tests, by id.
    packages: HashMap<String, (String, Vec<String>)>,
}

impl Workspace {
    fn read() -> Workspace {
        let platform = format!("{}-unknown-linux-gnu", env::consts::ARCH);
        let output = Command::new(env!("CARGO"))
            .args(["metadata", "--locked", "--format-version=1", "--filter-platform", &platform])
            .current_dir(root())
            .output()
            .expect("cargo");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let metadata: Value = serde_json::from_slice(&output.stdout).expect("JSON");
        let ours: BTreeSet<_> = list(&metadata["workspace_members"]).iter().map(text).collect();
        let mut workspace = Workspace { members: BTreeMap::new(), packages: HashMap::new() };
        let mut names = HashMap::new();
        for package in list(&metadata["packages"]) {
            names.insert(text(&package["id"]), text(&package["name"]));
            if ours.contains(&text(&package["id"])) {
                let manifest = PathBuf::from(text(&package["manifest_path"]));
                let folder =
                    manifest.parent().expect("a folder").strip_prefix(root()).expect("below the root");
                workspace.members.insert(folder.to_string_lossy().into_owned(), Member::read(package));
            }
        }
        for node in list(&metadata["resolve"]["nodes"]) {
            let normal = list(&node["deps"]).iter().filter(|dependency| {
                list(&dependency["dep_kinds"]).iter().any(|kind| kind["kind"].is_null())
            });
            let normal = normal.map(|dependency| text(&dependency["pkg"])).collect();
            let id = text(&node["id"]);
            workspace.packages.insert(id.clone(), (names[&id].clone(), normal));
        }
        workspace
    }

    /// Names of all that `member` depends on, directly or not, except in tests.
    fn tree(&self, member: &Member) -> BTreeSet<String> {
        let (mut seen, mut left) = (BTreeSet::new(), vec![&member.id]);
        while let Some(id) = left.pop() {
            for dependency in &self.packages[id].1 {
                if seen.insert(dependency) {
                    left.push(dependency);
                }
            }
        }
        seen.into_iter().map(|id| self.packages[id].0.clone()).collect()
    }
}

impl Member {
    fn read(package: &Value) -> Member {
        let names = |wanted: fn(&Value) -> bool| {
            let dependencies = list(&package["dependencies"]).iter();
            dependencies.filter(|one| wanted(&one["kind"])).map(|one| text(&one["name"])).collect()
        };
        Member {
            id: text(&package["id"]),
            name: text(&package["name"]),
            normal: names(|kind| kind.as_str() != Some("dev")),
            all: names(|_| true),
        }
    }
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}
