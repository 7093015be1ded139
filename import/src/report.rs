//! What could not be carried, and what is to be known about what was: one finding a line, for people and for `grep`.
//! Found by a walk over each tree: nothing that is in it can be passed over.

use std::fmt;

use crate::object::Object;
use crate::tree::Node;

/// Something that stands in the input and is not the same in the output.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// The file as it was named to `import`.
    pub file: String,
    /// Counted from 1.
    pub line: u64,
    /// `VirtualService shop/reviews`.
    pub object: String,
    /// `spec.http[0].mirror`; empty for the object as a whole.
    pub path: String,
    /// It was lost; otherwise it was carried, and there is something to know about it.
    pub dropped: bool,
    /// What the matter is.
    pub why: String,
    /// What to do; may be empty where nothing needs to be done.
    pub remedy: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let grade = if self.dropped { "dropped" } else { "note" };
        write!(f, "{}:{}: {grade}: {}: ", self.file, self.line, self.object)?;
        if !self.path.is_empty() {
            write!(f, "{}: ", self.path)?;
        }
        write!(f, "{}", self.why)?;
        match self.remedy.as_str() {
            "" => Ok(()),
            remedy => write!(f, "; {remedy}"),
        }
    }
}

/// All findings of an object, in the order of the file. Consumes what was said about it in the course of the import.
pub(crate) fn findings(object: &Object) -> Vec<Finding> {
    let mut found = Vec::new();
    visit(object, &object.root, String::new(), false, &mut found);
    found
}

/// Whether everything below is lost without a word said about any of it.
fn is_untouched(node: &Node) -> bool {
    let children = node.children();
    let silent = node.remarks().is_empty() && !node.is_carried();
    silent && children.iter().all(|(_, child)| is_untouched(child))
}

/// `is_lost`: something above is dropped as a whole, so that only reasons are worth a word.
fn visit(object: &Object, node: &Node, path: String, is_lost: bool, found: &mut Vec<Finding>) {
    let finding = |dropped, why: &str, remedy: &str| Finding {
        file: object.file.clone(),
        line: node.line(),
        object: object.title(),
        path: path.trim_start_matches('.').to_owned(),
        dropped,
        why: why.to_owned(),
        remedy: remedy.to_owned(),
    };
    let remarks = node.remarks();
    let said = remarks.iter().filter(|remark| remark.dropped || !is_lost);
    found.extend(said.map(|remark| finding(remark.dropped, &remark.why, &remark.remedy)));
    let is_lost = is_lost || remarks.iter().any(|remark| remark.dropped);
    if !is_lost && is_untouched(node) {
        let why = "this field, or a value of this form in it, is not known to the importer";
        found.push(finding(true, why, "carry it by hand if it matters"));
        return;
    }
    for (step, child) in node.children() {
        visit(object, child, format!("{path}{step}"), is_lost, found);
    }
}
