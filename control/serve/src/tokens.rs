//! One token for each service account: who holds it may have a certificate of that account.
//!
//! They stand in files beside the state, for whoever starts a proxy to hand on. Control keeps and compares hashes
//! only, so that neither its memory nor the time of an answer says anything of a token.

use crate::{file, issuer::random};
use control_index::Account;
use rustls::crypto::aws_lc_rs::cipher_suite::TLS13_AES_128_GCM_SHA256;
use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    fmt::Write,
    fs, io,
    path::PathBuf,
    time::{Duration, Instant},
};

/// How long the file of an account that went stays: manifests that were away for a moment (a folder mounted anew, a
/// checkout) must not leave proxies with tokens that nobody knows. Meanwhile the token is worth nothing.
const FAREWELL: Duration = policy::limits::EMPTIED_GRACE;
/// Random bytes of a token, written in hexadecimal.
const TOKEN_BYTES: usize = 32;

type Digest = [u8; 32];

/// The tokens of all service accounts that there are.
#[derive(Debug)]
pub struct Tokens {
    folder: PathBuf,
    known: BTreeSet<Account>,
    /// Known accounts whose token is in its file.
    held: BTreeMap<Account, Digest>,
    accounts: HashMap<Digest, Account>,
    /// Accounts that went, whose files are still there.
    gone: BTreeMap<Account, Instant>,
}

impl Tokens {
    /// Tokens in files below `folder`; none is valid before its account is known.
    pub fn new(folder: PathBuf) -> Self {
        Self {
            folder,
            known: BTreeSet::new(),
            held: BTreeMap::new(),
            accounts: HashMap::new(),
            gone: BTreeMap::new(),
        }
    }

    /// Makes tokens for accounts that came, and ends those of accounts that went. Answers what failed.
    pub fn sync(&mut self, accounts: BTreeSet<Account>, now: Instant) -> Vec<(PathBuf, io::Error)> {
        for account in self.known.difference(&accounts).cloned().collect::<Vec<_>>() {
            self.forget(&account);
            self.gone.insert(account, now);
        }
        self.gone.retain(|account, _| !accounts.contains(account));
        self.known = accounts;
        let missing = self.known.iter().filter(|account| !self.held.contains_key(*account));
        let missing: Vec<Account> = missing.cloned().collect();
        missing.iter().filter_map(|account| self.hold(account).err()).collect()
    }

    /// Reads all files again: a token that was replaced is the valid one now, one that is missing is made anew. Files
    /// of accounts that went a while ago are removed.
    pub fn reread(&mut self, now: Instant) -> Vec<(PathBuf, io::Error)> {
        let is_due = |since: &Instant| now.saturating_duration_since(*since) >= FAREWELL;
        let due: Vec<Account> =
            self.gone.iter().filter(|(_, since)| is_due(since)).map(|(account, _)| account.clone()).collect();
        for account in due {
            let _ = fs::remove_file(self.path(&account));
            self.gone.remove(&account);
        }
        let accounts: Vec<Account> = self.known.iter().cloned().collect();
        accounts.iter().filter_map(|account| self.hold(account).err()).collect()
    }

    /// The account for which a token speaks.
    pub fn account(&self, token: &str) -> Option<&Account> {
        self.accounts.get(&digest(token.trim()))
    }

    fn hold(&mut self, account: &Account) -> Result<(), (PathBuf, io::Error)> {
        let path = self.path(account);
        let token = match fs::read_to_string(&path) {
            Ok(text) if is_token(text.trim()) && !self.is_anothers(text.trim(), account) => {
                text.trim().into()
            }
            _ => {
                let token = new_token();
                let folder = path.parent().expect("a token's file is in its namespace's folder");
                file::secret_folder(folder)
                    .and_then(|()| file::write(&path, token.as_bytes(), file::SECRET))
                    .map_err(|error| (path, error))?;
                token
            }
        };
        self.forget(account);
        let digest = digest(&token);
        self.held.insert(account.clone(), digest);
        self.accounts.insert(digest, account.clone());
        Ok(())
    }

    /// A token that was copied to a second account would speak for one of the two only.
    fn is_anothers(&self, token: &str, account: &Account) -> bool {
        self.accounts.get(&digest(token)).is_some_and(|holder| holder != account)
    }

    fn forget(&mut self, account: &Account) {
        if let Some(digest) = self.held.remove(account) {
            self.accounts.remove(&digest);
        }
    }

    /// Both names are checked ones: neither leads out of the folder.
    fn path(&self, account: &Account) -> PathBuf {
        self.folder.join(&*account.namespace).join(format!("{}.token", account.name))
    }
}

fn new_token() -> String {
    let mut bytes = [0; TOKEN_BYTES];
    random(&mut bytes);
    bytes.iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").expect("writing to a String cannot fail");
        text
    })
}

fn is_token(text: &str) -> bool {
    text.len() == 2 * TOKEN_BYTES && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// SHA-256.
fn digest(text: &str) -> Digest {
    let suite = TLS13_AES_128_GCM_SHA256.tls13().expect("it is a suite of TLS 1.3");
    let hash = suite.common.hash_provider.hash(text.as_bytes());
    hash.as_ref().try_into().expect("SHA-256 has 32 bytes")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn tokens_come_and_go_with_their_accounts() {
        let folder = tempfile::tempdir().expect("a folder");
        let (cart, order) = (Account::new("shop", "cart"), Account::new("shop", "order"));
        let mut tokens = Tokens::new(folder.path().join("tokens"));
        assert!(tokens.sync([cart.clone(), order.clone()].into(), Instant::now()).is_empty());
        let path = folder.path().join("tokens/shop/cart.token");
        let token = fs::read_to_string(&path).expect("a token");
        assert_eq!(fs::metadata(&path).expect("a file").permissions().mode() & 0o777, 0o600);
        assert_eq!(
            fs::metadata(path.parent().expect("a folder")).expect("a folder").permissions().mode() & 0o777,
            0o700
        );
        assert_eq!(tokens.account(&token), Some(&cart));
        assert_eq!(tokens.account(&format!("{token}\n")), Some(&cart));
        assert_eq!(tokens.account(&token[1..]), None);
        assert_eq!(tokens.account(""), None);

        let mut again = Tokens::new(folder.path().join("tokens"));
        assert_eq!(again.account(&token), None, "its account is not known yet");
        again.sync([cart.clone()].into(), Instant::now());
        assert_eq!(again.account(&token), Some(&cart), "used again after a restart");

        let now = Instant::now();
        tokens.sync([order.clone()].into(), now);
        assert_eq!(tokens.account(&token), None, "at once");
        tokens.reread(now + FAREWELL / 2);
        tokens.sync([order.clone(), cart.clone()].into(), now + FAREWELL / 2);
        assert_eq!(tokens.account(&token), Some(&cart), "it was away for a moment only");
        tokens.reread(now + FAREWELL);
        tokens.sync([order].into(), now + FAREWELL);
        tokens.reread(now + 2 * FAREWELL);
        assert!(!path.exists());
        assert_eq!(tokens.account(&token), None);
    }

    #[test]
    fn a_token_replaced_or_damaged_is_found_at_the_next_reading() {
        let folder = tempfile::tempdir().expect("a folder");
        let cart = Account::new("shop", "cart");
        let mut tokens = Tokens::new(folder.path().into());
        tokens.sync([cart.clone()].into(), Instant::now());
        let path = folder.path().join("shop/cart.token");
        let first = fs::read_to_string(&path).expect("a token");
        let second = new_token();
        fs::write(&path, &second).expect("a token");
        tokens.reread(Instant::now());
        assert_eq!((tokens.account(&first), tokens.account(&second)), (None, Some(&cart)));
        fs::write(&path, "").expect("no token");
        tokens.reread(Instant::now());
        assert_eq!(tokens.account(&second), None);
        assert_eq!(tokens.account(""), None);
        assert_eq!(tokens.account(&fs::read_to_string(&path).expect("a token")), Some(&cart));
    }

    #[test]
    fn a_token_speaks_for_one_account() {
        let folder = tempfile::tempdir().expect("a folder");
        let (cart, order) = (Account::new("shop", "cart"), Account::new("shop", "order"));
        let mut tokens = Tokens::new(folder.path().into());
        tokens.sync([cart.clone()].into(), Instant::now());
        fs::copy(folder.path().join("shop/cart.token"), folder.path().join("shop/order.token"))
            .expect("a copy");
        tokens.sync([cart.clone(), order.clone()].into(), Instant::now());
        let read = |name: &str| fs::read_to_string(folder.path().join(name)).expect("a token");
        assert_eq!(tokens.account(&read("shop/cart.token")), Some(&cart));
        assert_eq!(tokens.account(&read("shop/order.token")), Some(&order));
    }

    #[test]
    fn what_failed_is_tried_again() {
        let folder = tempfile::tempdir().expect("a folder");
        let cart = Account::new("shop", "cart");
        let mut tokens = Tokens::new(folder.path().into());
        fs::write(folder.path().join("shop"), "in the way").expect("a file");
        assert_eq!(tokens.sync([cart.clone()].into(), Instant::now()).len(), 1);
        fs::remove_file(folder.path().join("shop")).expect("the file");
        assert!(tokens.reread(Instant::now()).is_empty());
        let token = fs::read_to_string(folder.path().join("shop/cart.token")).expect("a token");
        assert_eq!(tokens.account(&token), Some(&cart));
    }
}
