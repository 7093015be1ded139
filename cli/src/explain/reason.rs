//! `weft explain reason`: what a proxy means by a word, and what to do about it.

use std::process::ExitCode;

use anyhow::Result;
use explain::{Why, table};
use policy::Reason;

use crate::output::{self, Form};

#[derive(clap::Args)]
pub struct Options {
    /// The word, as in Proxy-Status: ...; error=destination_unavailable
    word: Option<String>,
    /// Form of the answer
    #[arg(short, long, value_enum, default_value_t)]
    output: Form,
}

pub fn run(options: &Options) -> Result<ExitCode> {
    let Some(word) = &options.word else {
        let all: Vec<Why> = Reason::ALL.iter().map(|reason| Why::of(*reason)).collect();
        let rows = all.iter().map(|why| vec![why.word.into(), why.status.to_string(), why.says.into()]);
        output::print(options.output, &all, || table(&rows.collect::<Vec<_>>()))?;
        return Ok(ExitCode::SUCCESS);
    };
    let Some(reason) = Reason::of(&word.replace('-', "_").to_lowercase()) else {
        let alike = Reason::ALL.iter().filter(|reason| reason.as_str().contains(word.as_str()));
        let alike: Vec<_> = alike.map(|reason| reason.as_str()).collect();
        let hint =
            if alike.is_empty() { String::new() } else { format!(" Did you mean {}?", alike.join(", ")) };
        eprintln!("weft explain: no proxy gives {word:?} as a reason.{hint} Without a word, all are listed.");
        return Ok(ExitCode::from(2));
    };
    let why = Why::of(reason);
    output::print(options.output, &why, || text(&why))?;
    Ok(ExitCode::SUCCESS)
}

fn text(why: &Why) -> String {
    format!(
        "{}: {}\n  Try       {}\n  Answer    {}; to gRPC: {}\n",
        why.word, why.says, why.remedy, why.status, why.grpc_status
    )
}
