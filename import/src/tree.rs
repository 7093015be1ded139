//! The objects that are imported, as trees that know for each value where it stands in which file and what became of
//! it. Reading a value marks it; what is unmarked in the end is reported by `report`. Here are the trees and how
//! YAML becomes them; what the values mean is told elsewhere.

use std::cell::{Cell, RefCell};
use std::fmt;

use serde::de::{Deserialize, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::Number;
use serde_saphyr::Spanned;

/// A value of an object, with its line and its marks.
#[derive(Debug)]
pub struct Node {
    /// Counted from 1, in the file; of a field of a mapping, the line of its name.
    line: Cell<u64>,
    carried: Cell<bool>,
    remarks: RefCell<Vec<Remark>>,
    value: Value,
}

/// What is said about a value (and all below it).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Remark {
    pub dropped: bool,
    pub why: String,
    pub remedy: String,
}

#[derive(Debug)]
enum Value {
    Null,
    Bool(bool),
    Number(Number),
    Text(String),
    List(Vec<Node>),
    Map(Vec<(String, Node)>),
}

impl Node {
    /// The line in its file, counted from 1.
    pub fn line(&self) -> u64 {
        self.line.get()
    }

    /// The field of a mapping; `None` also where it is null, which says nothing.
    pub fn field(&self, name: &str) -> Option<&Node> {
        let Value::Map(fields) = &self.value else { return None };
        let (_, node) = fields.iter().find(|(found, _)| found == name)?;
        match node.value {
            Value::Null => {
                node.carried.set(true);
                None
            }
            _ => Some(node),
        }
    }

    /// The field at the end of a path.
    pub fn at(&self, path: &[&str]) -> Option<&Node> {
        path.iter().try_fold(self, |node, name| node.field(name))
    }

    /// A text; it is carried.
    pub fn text(&self) -> Option<&str> {
        let Value::Text(text) = &self.value else { return None };
        self.carried.set(true);
        Some(text)
    }

    /// The text of a field; it is carried.
    pub fn text_at(&self, name: &str) -> Option<&str> {
        self.field(name)?.text()
    }

    /// A whole number that is not negative; it is carried.
    pub fn number(&self) -> Option<u64> {
        let Value::Number(number) = &self.value else { return None };
        let number = number.as_u64()?;
        self.carried.set(true);
        Some(number)
    }

    /// A number; it is carried.
    pub fn decimal(&self) -> Option<f64> {
        let Value::Number(number) = &self.value else { return None };
        self.carried.set(true);
        number.as_f64()
    }

    /// True or false; it is carried.
    pub fn truth(&self) -> Option<bool> {
        let Value::Bool(truth) = self.value else { return None };
        self.carried.set(true);
        Some(truth)
    }

    /// The items of a list; an empty one is carried.
    pub fn items(&self) -> &[Node] {
        let Value::List(items) = &self.value else { return &[] };
        if items.is_empty() {
            self.carried.set(true);
        }
        items
    }

    /// The items of a field that is a list.
    pub fn items_at(&self, name: &str) -> &[Node] {
        self.field(name).map_or(&[], Node::items)
    }

    /// The fields of a mapping; an empty one is carried.
    pub fn fields(&self) -> &[(String, Node)] {
        let Value::Map(fields) = &self.value else { return &[] };
        if fields.is_empty() {
            self.carried.set(true);
        }
        fields
    }

    /// The fields of a field that is a mapping.
    pub fn fields_at(&self, name: &str) -> &[(String, Node)] {
        self.field(name).map_or(&[], Node::fields)
    }

    /// This value and all below it are carried.
    pub fn carry(&self) {
        self.carried.set(true);
        for (_, node) in self.children() {
            node.carry();
        }
    }

    /// This value and all below it are lost: why, and what to do.
    pub fn drop(&self, why: impl Into<String>, remedy: impl Into<String>) {
        self.remark(Remark { dropped: true, why: why.into(), remedy: remedy.into() });
    }

    /// It is carried, but there is something to know about it.
    pub fn note(&self, why: impl Into<String>, remedy: impl Into<String>) {
        self.remark(Remark { dropped: false, why: why.into(), remedy: remedy.into() });
    }

    fn remark(&self, remark: Remark) {
        let mut remarks = self.remarks.borrow_mut();
        if !remarks.contains(&remark) {
            remarks.push(remark);
        }
    }

    pub(crate) fn remarks(&self) -> Vec<Remark> {
        self.remarks.borrow().clone()
    }

    /// Whether this leaf is carried.
    pub(crate) fn is_carried(&self) -> bool {
        self.carried.get()
    }

    /// What stands directly below, with the step of a path that leads there.
    pub(crate) fn children(&self) -> Vec<(String, &Node)> {
        match &self.value {
            Value::List(items) => {
                items.iter().enumerate().map(|(at, node)| (format!("[{at}]"), node)).collect()
            }
            Value::Map(fields) => fields.iter().map(|(name, node)| (step(name), node)).collect(),
            _ => Vec::new(),
        }
    }

    /// Moves the tree down by so many lines: to where its document begins in the file.
    pub(crate) fn shift(&self, lines: u64) {
        self.line.set(self.line.get() + lines);
        for (_, node) in self.children() {
            node.shift(lines);
        }
    }

    /// The items of a field that is a list, taken out.
    pub(crate) fn into_items(self, name: &str) -> Vec<Node> {
        let Value::Map(fields) = self.value else { return Vec::new() };
        let found = fields.into_iter().find(|(found, _)| found == name);
        match found.map(|(_, node)| node.value) {
            Some(Value::List(items)) => items,
            _ => Vec::new(),
        }
    }

    /// The value as it is written in a JSON document.
    pub fn json(&self) -> serde_json::Value {
        match &self.value {
            Value::Null => serde_json::Value::Null,
            Value::Bool(truth) => (*truth).into(),
            Value::Number(number) => number.clone().into(),
            Value::Text(text) => text.as_str().into(),
            Value::List(items) => items.iter().map(Node::json).collect(),
            Value::Map(fields) => {
                let fields = fields.iter().map(|(name, node)| (name.clone(), node.json()));
                serde_json::Value::Object(fields.collect())
            }
        }
    }
}

/// A field in a path: names that hold a dot stand in brackets.
fn step(name: &str) -> String {
    match name.contains(['.', '/', '[']) {
        true => format!("[{name}]"),
        false => format!(".{name}"),
    }
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let Spanned { value, referenced, .. } = Spanned::<Value>::deserialize(deserializer)?;
        let line = Cell::new(referenced.line());
        Ok(Node { line, carried: Cell::default(), remarks: RefCell::default(), value })
    }
}

impl<'de> Deserialize<'de> for Value {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(AnyValue)
    }
}

struct AnyValue;

impl<'de> Visitor<'de> for AnyValue {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value of YAML")
    }

    fn visit_unit<E: Error>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_none<E: Error>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        Value::deserialize(deserializer)
    }

    fn visit_bool<E: Error>(self, truth: bool) -> Result<Value, E> {
        Ok(Value::Bool(truth))
    }

    fn visit_u64<E: Error>(self, number: u64) -> Result<Value, E> {
        Ok(Value::Number(number.into()))
    }

    fn visit_i64<E: Error>(self, number: i64) -> Result<Value, E> {
        Ok(Value::Number(number.into()))
    }

    fn visit_f64<E: Error>(self, number: f64) -> Result<Value, E> {
        Number::from_f64(number).map(Value::Number).ok_or_else(|| E::custom("not a number"))
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Value, E> {
        Ok(Value::Text(text.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Value, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = seq.next_element::<Node>()? {
            items.push(item);
        }
        Ok(Value::List(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
        let mut fields = Vec::new();
        while let Some(name) = map.next_key::<Spanned<String>>()? {
            let node: Node = map.next_value()?;
            node.line.set(name.referenced.line());
            fields.push((name.value, node));
        }
        Ok(Value::Map(fields))
    }
}
