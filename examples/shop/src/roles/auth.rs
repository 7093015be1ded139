//! Role auth: gives tokens and says whose they are. It remembers nothing, so that any replica knows any token.
//! The token is a checksum, fit for a demo and for nothing else.

use hyper::header::AUTHORIZATION;
use serde::Serialize;

use super::{Answer, Asked, Session, Word};
use crate::fault::Fault;

#[derive(Serialize)]
struct Granted {
    visitor: Word,
    token: String,
}

pub fn answer(asked: &Asked) -> Result<Answer, Fault> {
    match asked.route() {
        ("POST", path) if path == ["sessions"] => {
            let Session { visitor } = asked.json()?;
            Ok(Answer::json(&Granted { token: token(&visitor), visitor }))
        }
        ("GET", path) if path == ["sessions", "current"] => {
            let credentials = asked.carried.get(AUTHORIZATION).and_then(|value| value.to_str().ok());
            let token =
                credentials.and_then(|value| value.strip_prefix("Bearer ")).ok_or(Fault::Unauthorized)?;
            Ok(Answer::json(&Session { visitor: holder(token).ok_or(Fault::Unauthorized)? }))
        }
        _ => Err(asked.unknown()),
    }
}

fn token(visitor: &Word) -> String {
    // FNV-1a, 64 bit.
    let sum = visitor
        .0
        .bytes()
        .fold(0xcbf2_9ce4_8422_2325_u64, |sum, byte| (sum ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3));
    format!("{visitor}.{sum:016x}")
}

fn holder(given: &str) -> Option<Word> {
    let (name, _) = given.split_once('.')?;
    let visitor = Word::try_from(name.to_owned()).ok()?;
    (token(&visitor) == given).then_some(visitor)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_token_given_is_a_token_taken() {
        let visitor = Word::try_from("ann".to_owned()).unwrap();
        let given = token(&visitor);
        assert_eq!(holder(&given), Some(visitor));
        for forged in
            ["", "ann", "ann.", "ann.0000000000000000", &given.replace("ann", "bob"), &format!("{given}0")]
        {
            assert_eq!(holder(forged), None, "{forged:?}");
        }
    }
}
