//! The plan in the words of iptables: the input of `iptables-restore`, the lines that `iptables-save` then prints, and
//! what of ours a save holds.
//!
//! Pure. Running the programs is `tool.rs`. Rules are written exactly as `iptables-save` prints them, so that reading
//! back is a comparison of lines.

use crate::plan::{Chain, Family, Hook, Match, Plan, Rule, Verdict};

/// Our chain of what leaves, called from `OUTPUT`.
pub const OUTPUT_CHAIN: &str = "WEFT_OUTPUT";
/// Our chain of what arrives, called from `PREROUTING`.
pub const INBOUND_CHAIN: &str = "WEFT_INBOUND";

/// What a table `nat` holds, as far as it concerns us; parsed from `iptables-save`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Saved {
    /// Our chains that exist.
    pub chains: Vec<String>,
    /// Rules of the built-in chains that call ours: `-A OUTPUT … -j WEFT_OUTPUT`.
    pub jumps: Vec<String>,
    /// The rules in our chains.
    pub rules: Vec<String>,
    /// Rules and chains of Kubernetes, in any table.
    pub kube: usize,
    /// All rules, in any table.
    pub total: usize,
}

impl Saved {
    /// Reads what `iptables-save` printed.
    pub fn parse(text: &str) -> Saved {
        let mut saved = Saved::default();
        let mut nat = false;
        for line in text.lines() {
            if let Some(table) = line.strip_prefix('*') {
                nat = table == "nat";
            } else if let Some(chain) = line.strip_prefix(':') {
                let name = chain.split(' ').next().unwrap_or_default();
                saved.kube += usize::from(name.starts_with("KUBE-"));
                if nat && is_ours(name) {
                    saved.chains.push(name.to_owned());
                }
            } else if let Some(rule) = line.strip_prefix("-A ") {
                saved.total += 1;
                saved.kube += usize::from(rule.contains("KUBE-"));
                if nat {
                    saved.sort_rule(line, rule);
                }
            }
        }
        saved
    }

    fn sort_rule(&mut self, line: &str, rule: &str) {
        let mut words = rule.split(' ');
        if words.next().is_some_and(is_ours) {
            self.rules.push(line.to_owned());
        } else if words.any(is_ours) {
            self.jumps.push(line.to_owned());
        }
    }

    /// Whether anything of ours is there.
    pub fn holds_ours(&self) -> bool {
        !self.chains.is_empty()
    }

    /// What differs from one chain of the plan, a sentence each; nothing when it is in force.
    pub fn differences(&self, chain: &Chain) -> Vec<String> {
        let name = chain_name(chain);
        let held = |lines: &[String], of_chain: &dyn Fn(&str) -> bool| -> Vec<String> {
            lines.iter().filter(|line| of_chain(line)).cloned().collect()
        };
        let called = format!("-A {} ", built_in_name(chain));
        let listed = format!("-A {name} ");
        let jumps = held(&self.jumps, &|line| line.starts_with(&called));
        let rules = held(&self.rules, &|line| line.starts_with(&listed));
        let expected: Vec<String> = chain.rules.iter().map(|rule| rule_line(chain, rule)).collect();
        let mut differences = difference(&[jump(chain)], &jumps, built_in_name(chain));
        differences.extend(difference(&expected, &rules, name));
        differences
    }
}

/// What is in one list and not in the other, a sentence each.
fn difference(expected: &[String], held: &[String], chain: &str) -> Vec<String> {
    let missing = expected.iter().filter(|line| !held.contains(line)).map(|line| format!("missing: {line}"));
    let surplus =
        held.iter().filter(|line| !expected.contains(line)).map(|line| format!("not of this plan: {line}"));
    let mut found: Vec<String> = missing.chain(surplus).collect();
    if found.is_empty() && expected != held {
        found.push(format!("our rules of {chain} stand in another order, or twice"));
    }
    found
}

/// Input of `iptables-restore --noflush` that puts the plan in force in one commit, whatever `saved` holds of ours.
pub fn apply_input(plan: &Plan, family: Family, saved: &Saved) -> String {
    let chains = plan.chains(family);
    let mut input = String::from("*nat\n");
    // With --noflush a chain's declaration makes the chain, or empties it; all others stay.
    let declared = chains.iter().map(|chain| -> &str { chain_name(chain) });
    for name in declared.chain(strange_chains(saved)) {
        input.push_str(&format!(":{name} - [0:0]\n"));
    }
    push_deletions(&mut input, saved);
    for chain in &chains {
        for rule in &chain.rules {
            input.push_str(&format!("{}\n", rule_line(chain, rule)));
        }
        input.push_str(&format!("{}\n", jump(chain)));
    }
    for name in strange_chains(saved) {
        input.push_str(&format!("-X {name}\n"));
    }
    input.push_str("COMMIT\n");
    input
}

/// Input of `iptables-restore --noflush` that takes out whatever `saved` holds of ours; nothing when it holds nothing.
pub fn remove_input(saved: &Saved) -> Option<String> {
    if !saved.holds_ours() {
        return None;
    }
    let mut input = String::from("*nat\n");
    for name in &saved.chains {
        input.push_str(&format!(":{name} - [0:0]\n"));
    }
    push_deletions(&mut input, saved);
    for name in &saved.chains {
        input.push_str(&format!("-X {name}\n"));
    }
    input.push_str("COMMIT\n");
    Some(input)
}

fn push_deletions(input: &mut String, saved: &Saved) {
    for jump in &saved.jumps {
        input.push_str(&format!("{}\n", jump.replacen("-A ", "-D ", 1)));
    }
}

/// Chains with our prefix that this version does not make.
fn strange_chains(saved: &Saved) -> impl Iterator<Item = &str> {
    saved.chains.iter().map(String::as_str).filter(|name| ![OUTPUT_CHAIN, INBOUND_CHAIN].contains(name))
}

fn is_ours(name: &str) -> bool {
    name.starts_with("WEFT_")
}

fn chain_name(chain: &Chain) -> &'static str {
    match chain.hook {
        Hook::Output => OUTPUT_CHAIN,
        Hook::Prerouting => INBOUND_CHAIN,
    }
}

fn built_in_name(chain: &Chain) -> &'static str {
    match chain.hook {
        Hook::Output => "OUTPUT",
        Hook::Prerouting => "PREROUTING",
    }
}

fn jump(chain: &Chain) -> String {
    format!("-A {} -p tcp -j {}", built_in_name(chain), chain_name(chain))
}

/// The rule in the order of words that `iptables-save` uses: addresses, interfaces, protocol, matches, target.
fn rule_line(chain: &Chain, rule: &Rule) -> String {
    let (mut before, mut after) = (String::new(), String::new());
    for condition in &rule.matches {
        match condition {
            Match::Destination(net) => before.insert_str(0, &format!("-d {net} ")),
            Match::OutInterface(name) => before.push_str(&format!("-o {name} ")),
            Match::InInterface(name) => before.push_str(&format!("-i {name} ")),
            Match::Uid(uid) => after.push_str(&format!("-m owner --uid-owner {uid} ")),
            Match::Mark(mark) => after.push_str(&format!("-m mark --mark {mark:#x} ")),
            Match::Port(ports) if ports.first() == ports.last() => {
                after.push_str(&format!("-m tcp --dport {} ", ports.first()));
            }
            Match::Port(ports) => {
                after.push_str(&format!("-m tcp --dport {}:{} ", ports.first(), ports.last()))
            }
        }
    }
    let target = match rule.verdict {
        Verdict::Return => "RETURN".to_owned(),
        Verdict::Redirect(port) => format!("REDIRECT --to-ports {port}"),
    };
    format!("-A {} {before}-p tcp {after}-j {target}", chain_name(chain))
}

#[cfg(test)]
mod tests;
