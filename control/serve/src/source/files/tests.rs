//! Manifest files in all states, in a folder of their own, looked at by hand: no thread, no events, no clock.

use super::*;

struct Folder {
    folder: tempfile::TempDir,
    files: Files,
    now: Instant,
}

impl Folder {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let files = Files::new(vec![folder.path().into()]);
        Self { folder, files, now: Instant::now() }
    }

    fn write(&self, name: &str, text: &str) {
        let path = self.folder.path().join(name);
        fs::create_dir_all(path.parent().expect("a folder")).expect("a folder");
        fs::write(path, text).expect("a file");
    }

    fn remove(&self, name: &str) {
        fs::remove_file(self.folder.path().join(name)).expect("a file");
    }

    /// `+a.yaml:1 Namespace shop`, `-Namespace shop`, `!a.yaml:1: …`
    fn look(&mut self) -> Vec<String> {
        let (batch, _) = self.files.look(self.now);
        let root = format!("{}/", self.folder.path().display());
        let changes = batch.changes.iter().map(|change| match change {
            Change::Apply { object, origin } => format!("+{origin} {}", object.key()),
            Change::Delete(key) => format!("-{key}"),
        });
        let problems = batch.problems.iter().map(|problem| format!("!{problem}"));
        changes.chain(problems).map(|line| line.replace(&root, "")).collect()
    }

    fn look_later(&mut self) -> Vec<String> {
        self.now += REPLACING;
        self.look()
    }
}

fn namespace(name: &str) -> String {
    format!("apiVersion: v1\nkind: Namespace\nmetadata: {{name: {name}}}\n")
}

const NOTHING: [&str; 0] = [];

#[test]
fn files_come_change_and_go() {
    let mut folder = Folder::new();
    folder.write("a.yaml", &format!("{}---\n{}", namespace("a"), namespace("b")));
    folder.write("deep/er/c.yml", &namespace("c"));
    folder.write(".hidden.yaml", &namespace("no"));
    folder.write("notes.txt", &namespace("no"));
    folder.write(".git/x.yaml", &namespace("no"));
    assert_eq!(
        folder.look(),
        ["+a.yaml:1 Namespace a", "+a.yaml:5 Namespace b", "+deep/er/c.yml:1 Namespace c"]
    );
    assert_eq!(folder.look(), NOTHING);
    folder.write("a.yaml", &namespace("b"));
    assert_eq!(folder.look(), ["-Namespace a", "+a.yaml:1 Namespace b"]);
    folder.remove("deep/er/c.yml");
    assert_eq!(folder.look(), NOTHING, "it may be on its way back");
    assert_eq!(folder.look_later(), ["-Namespace c"]);
    assert_eq!(folder.look_later(), NOTHING);
}

#[test]
fn a_file_moved_is_no_change_but_of_its_place() {
    let mut folder = Folder::new();
    folder.write("a.yaml", &namespace("a"));
    folder.look();
    fs::rename(folder.folder.path().join("a.yaml"), folder.folder.path().join("b.yaml")).expect("a move");
    assert_eq!(folder.look(), ["+b.yaml:1 Namespace a"]);
    assert_eq!(folder.look_later(), NOTHING);
}

#[test]
fn an_empty_file_is_one_being_written_for_a_moment() {
    let mut folder = Folder::new();
    folder.write("a.yaml", &namespace("a"));
    folder.look();
    folder.write("a.yaml", "");
    assert_eq!(folder.look(), NOTHING);
    assert!(folder.files.look(folder.now).1.is_some(), "it is to be looked at again");
    folder.write("a.yaml", &namespace("a"));
    assert_eq!(folder.look_later(), NOTHING);
    folder.write("a.yaml", "");
    assert_eq!(folder.look(), NOTHING);
    assert_eq!(folder.look_later(), ["-Namespace a"]);
    assert!(folder.files.look(folder.now).1.is_none(), "nothing is waited for");
    folder.write("a.yaml", &namespace("a"));
    assert_eq!(folder.look(), ["+a.yaml:1 Namespace a"]);
}

#[test]
fn what_is_malformed_now_keeps_what_it_last_said() {
    let mut folder = Folder::new();
    let bad = "apiVersion: v1\nkind: Namespace\nmetadata: {name: [\n";
    folder.write("a.yaml", &format!("{}---\n{}", namespace("a"), namespace("b")));
    folder.look();
    folder.write("a.yaml", &format!("{}---\n{bad}---\n{}", namespace("a"), namespace("c")));
    let looked = folder.look();
    assert_eq!(looked[0], "+a.yaml:9 Namespace c");
    assert!(looked[1].starts_with("!a.yaml:"), "{looked:?}");
    assert_eq!(looked.len(), 2, "{looked:?}");
    assert_eq!(folder.look_later().len(), 1, "the problem stays, and so does b");
    folder.write("a.yaml", &namespace("a"));
    assert_eq!(folder.look(), ["-Namespace b", "-Namespace c"]);
}

#[test]
fn of_two_definitions_the_first_by_path_counts() {
    let mut folder = Folder::new();
    folder.write("a.yaml", &namespace("x"));
    folder.write("b.yaml", &namespace("x"));
    let problem = "!b.yaml:1: Namespace x: it is defined at a.yaml:1 already; that one is taken";
    assert_eq!(folder.look(), ["+a.yaml:1 Namespace x", problem]);
    assert_eq!(folder.look(), [problem]);
    folder.remove("a.yaml");
    assert_eq!(folder.look(), ["+b.yaml:1 Namespace x"]);
    assert_eq!(folder.look_later(), NOTHING);
}

#[test]
fn what_cannot_be_read_stays_as_it_was() {
    let mut folder = Folder::new();
    folder.write("a.yaml", &namespace("a"));
    folder.look();
    fs::write(folder.folder.path().join("a.yaml"), b"\xff\xfe").expect("a file");
    let looked = folder.look();
    assert!(looked.len() == 1 && looked[0].starts_with("!a.yaml:1: it cannot be read"), "{looked:?}");
    let away = folder.folder.path().with_extension("away");
    fs::rename(folder.folder.path(), &away).expect("a move");
    let looked = folder.look_later();
    assert!(looked.iter().all(|line| line.starts_with('!')), "{looked:?}");
    assert!(looked.iter().any(|line| line.contains("it cannot be listed")), "{looked:?}");
    fs::rename(&away, folder.folder.path()).expect("a move");
    folder.write("a.yaml", &namespace("a"));
    assert_eq!(folder.look(), NOTHING);
}

#[test]
fn folders_that_lead_back_are_walked_once() {
    let mut folder = Folder::new();
    folder.write("a/a.yaml", &namespace("a"));
    std::os::unix::fs::symlink(folder.folder.path(), folder.folder.path().join("a/loop")).expect("a link");
    assert_eq!(folder.look(), ["+a/a.yaml:1 Namespace a"]);
}
