//! The order of rules. Istio takes the first rule that matches; Gateway API takes the match that says most. Where a later
//! rule would win what an earlier one took, the earlier one is given the match of what both take: it says at least
//! as much as the later one, and of equals the earlier wins.

use crate::tree::Node;
use crate::virtual_service::matches::{Match, Overlap};

/// A match of a rule.
#[derive(Clone, Debug)]
pub(crate) struct Placed<'a> {
    pub matched: Match,
    /// The match of the input that it is of: itself, or one that takes more.
    pub own: Match,
    pub node: &'a Node,
}

/// The matches of a rule.
pub(crate) type Matches<'a> = Vec<Placed<'a>>;

/// How many matches a rule is written out to: twice as many as a rule of an HTTPRoute takes.
const MAX_MATCHES: usize = 128;

/// Makes rules that were meant in their order mean the same by precedence. Rules of which nothing is left become empty.
pub(crate) fn mend(rules: &mut [Matches<'_>]) {
    for later in 1..rules.len() {
        let (before, rest) = rules.split_at_mut(later);
        leave_out_unreachable(before, &mut rest[0]);
    }
    // From the last to the first: what a rule is given depends on what the rules after it are given.
    for earlier in (0..rules.len().saturating_sub(1)).rev() {
        let (head, after) = rules.split_at_mut(earlier + 1);
        let rule = &mut head[earlier];
        for Placed { matched, node, .. } in rule.clone() {
            let closer = after
                .iter()
                .flatten()
                .map(|placed| &placed.matched)
                .filter(|other| other.precedence() > matched.precedence());
            for other in closer {
                match matched.intersect(other) {
                    Overlap::Nothing => {}
                    Overlap::Some(both) if rule.iter().any(|known| known.matched == both) => {}
                    Overlap::Some(both) if rule.len() < MAX_MATCHES && both.is_writable() => {
                        rule.push(Placed { matched: both, own: matched.clone(), node });
                    }
                    Overlap::Some(_) => {
                        node.drop(
                            "this and later rules have more requests in common than can be written out: some of those \
                             go to the later rules",
                            "write the matches so that fewer requests have several",
                        );
                        break;
                    }
                    Overlap::Unknown => node.drop(
                        "a request that matches this and a later rule goes to the later one: Gateway API prefers what \
                         is more specific, and no match says what both take",
                        "write the two matches so that no request has both",
                    ),
                }
            }
        }
    }
}

/// What earlier rules took altogether was never reached.
fn leave_out_unreachable(before: &[Matches<'_>], rule: &mut Matches<'_>) {
    rule.retain(|Placed { matched, node, .. }| {
        let is_taken = before
            .iter()
            .flatten()
            .any(|earlier| earlier.matched.intersect(matched) == Overlap::Some(matched.clone()));
        if is_taken {
            node.note("an earlier rule takes all of these requests: left out", "delete it");
        }
        !is_taken
    });
}

#[cfg(test)]
mod tests;
