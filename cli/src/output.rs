//! How answers are printed: tables for people, JSON and YAML for scripts.

use anyhow::Context;
use comfy_table::{LineStyle, Table, TableStyle};
use serde::Serialize;

/// A rule under the header.
const STYLE: TableStyle = TableStyle::new().header_separator(LineStyle::none().fill('─').junction('─'));

/// The form of the answer on stdout.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Form {
    /// For people
    #[default]
    Table,
    /// One JSON document
    Json,
    /// One YAML document
    Yaml,
}

/// Prints the answer: `table` makes the text for people.
pub fn print<T: Serialize>(form: Form, answer: &T, table: impl FnOnce() -> String) -> anyhow::Result<()> {
    let text = match form {
        Form::Table => table(),
        Form::Json => serde_json::to_string_pretty(answer).context("writing JSON")? + "\n",
        Form::Yaml => serde_saphyr::to_string(answer).context("writing YAML")?,
    };
    print!("{text}");
    Ok(())
}

/// A table without borders, as wide as it needs to be: cut and searched by the tools of a shell.
pub fn table<const N: usize>(header: [&str; N], rows: impl IntoIterator<Item = [String; N]>) -> String {
    let mut table = Table::new();
    table.load_style(STYLE).set_header(header);
    table.add_rows(rows);
    let mut text = String::new();
    for line in table.to_string().lines() {
        text += line.trim_end();
        text.push('\n');
    }
    text
}
