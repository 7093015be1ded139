//! Runs `iptables-save` and `iptables-restore` of either kind, and turns their complaints into what is missing.
//!
//! Not here: what is written and read (`iptables.rs`).

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::{env, fs};

use crate::backend::Backend;
use crate::error::Error;
use crate::iptables::Saved;
use crate::plan::Family;

/// Searched after `PATH`, which lacks them for ordinary users on some distributions.
const SYSTEM_PATHS: [&str; 4] = ["/usr/sbin", "/sbin", "/usr/local/sbin", "/usr/bin"];
/// What iptables-legacy locks when not told otherwise.
const LEGACY_LOCK: &str = "/run/xtables.lock";
/// Longest wait for another iptables that holds the lock, in seconds.
const LOCK_WAIT_S: &str = "5";

/// The pair of programs of one kind of iptables and one family.
#[derive(Debug)]
pub struct Tool {
    save: PathBuf,
    restore: PathBuf,
    kind: Kind,
    family: Family,
}

/// Which kernel interface the programs speak to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Nft,
    Legacy,
}

impl Kind {
    /// The kind behind a back end; native has none.
    pub fn of(backend: Backend) -> Option<Kind> {
        match backend {
            Backend::Nft => Some(Kind::Nft),
            Backend::Legacy => Some(Kind::Legacy),
            Backend::Native => None,
        }
    }

    /// The name by which a distribution installs `iptables-restore` of this kind.
    pub fn restore_program(self, family: Family) -> &'static str {
        match (self, family) {
            (Kind::Nft, Family::V4) => "iptables-nft-restore",
            (Kind::Nft, Family::V6) => "ip6tables-nft-restore",
            (Kind::Legacy, Family::V4) => "iptables-legacy-restore",
            (Kind::Legacy, Family::V6) => "ip6tables-legacy-restore",
        }
    }

    fn save_program(self, family: Family) -> &'static str {
        match (self, family) {
            (Kind::Nft, Family::V4) => "iptables-nft-save",
            (Kind::Nft, Family::V6) => "ip6tables-nft-save",
            (Kind::Legacy, Family::V4) => "iptables-legacy-save",
            (Kind::Legacy, Family::V6) => "ip6tables-legacy-save",
        }
    }
}

impl Tool {
    /// Finds the programs, by their full names or, where only one kind is installed, by their plain names.
    pub fn find(kind: Kind, family: Family) -> Result<Tool, Error> {
        let (save, restore) = (kind.save_program(family), kind.restore_program(family));
        if let (Some(save), Some(restore)) = (find_program(save), find_program(restore)) {
            return Ok(Tool { save, restore, kind, family });
        }
        let (save, plain) = match family {
            Family::V4 => ("iptables-save", "iptables-restore"),
            Family::V6 => ("ip6tables-save", "ip6tables-restore"),
        };
        match (find_program(save), find_program(plain)) {
            (Some(save), Some(restore)) if kind_of(&restore) == Some(kind) => {
                Ok(Tool { save, restore, kind, family })
            }
            _ => Err(Error::MissingProgram { program: restore }),
        }
    }

    /// Reads all tables of this kind and family.
    pub fn save(&self) -> Result<Saved, Error> {
        let output = self.command(&self.save).stdin(Stdio::null()).output();
        let output = output.map_err(|source| self.spawn_error(&self.save, source))?;
        self.succeeded(&self.save, &output, "")?;
        Ok(Saved::parse(&String::from_utf8_lossy(&output.stdout)))
    }

    /// Commits `input`, all of it or nothing; chains that it does not name stay as they are.
    pub fn restore(&self, input: &str) -> Result<(), Error> {
        let mut command = self.command(&self.restore);
        command.args(["--noflush", "-w", LOCK_WAIT_S]);
        command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut child = command.spawn().map_err(|source| self.spawn_error(&self.restore, source))?;
        let mut stdin = child.stdin.take().expect("stdin was asked to be a pipe");
        // A program that ends early breaks the pipe; what it says on stderr is then the better reason.
        let written = stdin.write_all(input.as_bytes());
        drop(stdin);
        let output = child.wait_with_output().map_err(|source| self.spawn_error(&self.restore, source))?;
        self.succeeded(&self.restore, &output, input)?;
        written.map_err(|source| self.spawn_error(&self.restore, source))
    }

    fn command(&self, program: &Path) -> Command {
        let mut command = Command::new(program);
        if self.kind == Kind::Legacy && env::var_os("XTABLES_LOCKFILE").is_none() && !can_open_lock() {
            // Any file that can be opened can be locked, so one that is certainly there does on a read-only root.
            if let Ok(own) = env::current_exe() {
                command.env("XTABLES_LOCKFILE", own);
            }
        }
        command
    }

    fn spawn_error(&self, program: &Path, source: std::io::Error) -> Error {
        Error::Spawn { program: program.display().to_string(), source }
    }

    fn succeeded(&self, program: &Path, output: &Output, input: &str) -> Result<(), Error> {
        if output.status.success() {
            return Ok(());
        }
        let answer = String::from_utf8_lossy(&output.stderr);
        let answer = answer.lines().filter(|line| !line.starts_with("Try `")).collect::<Vec<_>>().join("; ");
        let answer = if answer.is_empty() { output.status.to_string() } else { answer };
        Err(explain(self.kind, self.family, &answer, input).unwrap_or_else(|| Error::Program {
            program: program.display().to_string(),
            family: self.family,
            answer,
        }))
    }
}

fn find_program(name: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    let folders = env::split_paths(&path).chain(SYSTEM_PATHS.iter().map(PathBuf::from));
    folders.map(|folder| folder.join(name)).find(|file| file.is_file())
}

/// Which kind a plainly named program is: `iptables-restore v1.8.9 (nf_tables)`; before 1.8 all were legacy.
fn kind_of(program: &Path) -> Option<Kind> {
    let output = Command::new(program).arg("--version").stdin(Stdio::null()).output().ok()?;
    let text = String::from_utf8_lossy(&output.stdout);
    Some(if text.contains("nf_tables") { Kind::Nft } else { Kind::Legacy })
}

/// Whether the default lock can be taken: an iptables run by root makes the file when it can.
fn can_open_lock() -> bool {
    let mut options = fs::OpenOptions::new();
    options.write(true).create(true).truncate(false).open(LEGACY_LOCK).is_ok()
}

/// Reads the reason out of what iptables printed; none when the words are unknown.
fn explain(kind: Kind, family: Family, answer: &str, input: &str) -> Option<Error> {
    let says = |words: &[&str]| words.iter().any(|word| answer.contains(word));
    let missing = |modules: String, needed_for| {
        Some(Error::MissingModule { modules, needed_for, answer: answer.to_owned() })
    };
    if says(&["lock file"]) {
        return Some(Error::Lock { answer: answer.to_owned() });
    }
    if says(&["you must be root", "Permission denied", "Operation not permitted"]) {
        return Some(Error::MissingCapability);
    }
    if says(&["Table does not exist", "can't initialize", "unable to initialize table"]) {
        let table = if family == Family::V4 { "iptable_nat" } else { "ip6table_nat" };
        return missing(format!("{table} (with nf_nat)"), "the table nat of iptables-legacy");
    }
    if says(&["Failed to initialize nft", "Could not fetch rule set generation id", "Protocol not supported"])
    {
        return missing("nf_tables".to_owned(), "all rules of iptables-nft");
    }
    if says(&["TABLE_ADD failed", "CHAIN_ADD failed", "Could not process rule"]) {
        return missing("nft_chain_nat (with nf_nat)".to_owned(), "the table nat of iptables-nft");
    }
    if let Some(extension) = missing_extension(answer) {
        return missing(format!("xt_{extension}"), "a match or target of our rules");
    }
    if says(&[
        "No chain/target/match by that name",
        "RULE_APPEND failed (No such file",
        "RULE_APPEND failed (Not supp",
    ]) || (kind == Kind::Legacy && answer.contains("No such file or directory"))
    {
        return missing(format!("one of {}", modules_of(kind, input)), "a match or target of our rules");
    }
    None
}

/// `Extension REDIRECT revision 0 not supported, missing kernel module?` names the extension.
fn missing_extension(answer: &str) -> Option<&str> {
    let (_, rest) = answer.split_once("Extension ")?;
    rest.contains("missing kernel module").then(|| rest.split(' ').next()).flatten()
}

/// The modules that the rules of `input` need.
fn modules_of(kind: Kind, input: &str) -> String {
    let needs = [
        ("REDIRECT", "xt_REDIRECT (with nf_nat)"),
        ("-m owner", "xt_owner"),
        ("-m mark", "xt_mark"),
        ("-m tcp", "xt_tcpudp"),
    ];
    let mut modules: Vec<&str> =
        needs.iter().filter(|(word, _)| input.contains(word)).map(|need| need.1).collect();
    if kind == Kind::Nft {
        modules.push("nft_compat");
    }
    modules.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::iptables::apply_input;
    use crate::plan::Plan;

    /// What iptables prints, and a part of what we say.
    #[test]
    fn complaints_name_what_is_missing() {
        let nft = "iptables-nft-restore v1.8.9 (nf_tables): ";
        let table = [
            (Kind::Nft, format!("{nft}Could not fetch rule set generation id: Permission denied (you must be root)"), "CAP_NET_ADMIN"),
            (Kind::Legacy, "iptables-restore v1.8.9 (legacy): iptables-restore: unable to initialize table 'nat': Permission denied (you must be root)".to_owned(), "CAP_NET_ADMIN"),
            (Kind::Legacy, "Fatal: can't open lock file /run/xtables.lock: Permission denied".to_owned(), "XTABLES_LOCKFILE"),
            (Kind::Legacy, "Fatal: can't open lock file /run/xtables.lock: Read-only file system".to_owned(), "XTABLES_LOCKFILE"),
            (Kind::Legacy, "iptables v1.8.9 (legacy): can't initialize iptables table `nat': Table does not exist (do you need to insmod?)".to_owned(), "ip6table_nat"),
            (Kind::Legacy, "iptables-restore v1.8.9 (legacy): iptables-restore: unable to initialize table 'nat'; Error occurred at line: 1".to_owned(), "ip6table_nat"),
            (Kind::Nft, format!("{nft}Could not fetch rule set generation id: Invalid argument"), "nf_tables is missing"),
            (Kind::Nft, "Failed to initialize nft: Protocol not supported".to_owned(), "nf_tables is missing"),
            (Kind::Nft, format!("{nft}line 4: CHAIN_ADD failed (No such file or directory): chain OUTPUT"), "nft_chain_nat"),
            (Kind::Nft, "Warning: Extension owner revision 0 not supported, missing kernel module?; RULE_APPEND failed (No such file or directory)".to_owned(), "xt_owner is missing"),
            (Kind::Nft, "Warning: Extension REDIRECT is not supported, missing kernel module?".to_owned(), "xt_REDIRECT is missing"),
            (Kind::Nft, format!("{nft}line 9: RULE_APPEND failed (No such file or directory): rule in chain WEFT_OUTPUT"), "one of xt_REDIRECT (with nf_nat), xt_owner, xt_tcpudp, nft_compat"),
            (Kind::Legacy, "iptables-restore: line 12 failed: No chain/target/match by that name.".to_owned(), "one of xt_REDIRECT (with nf_nat), xt_owner, xt_tcpudp is missing"),
        ];
        let input = apply_input(&Plan::default(), Family::V6, &Saved::default());
        for (kind, answer, part) in table {
            let said =
                explain(kind, Family::V6, &answer, &input).map(|error| error.to_string()).unwrap_or_default();
            assert!(said.contains(part), "{answer:?} became {said:?}");
        }
        assert!(explain(Kind::Nft, Family::V4, "something else", &input).is_none());
    }
}
