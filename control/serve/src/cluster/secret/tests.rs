//! What is read from the Secret, and that no half of it is ever used.

use super::*;
use crate::issuer::Authority;
use k8s_openapi::{
    apimachinery::pkg::apis::meta::v1::{ManagedFieldsEntry, Time},
    jiff::Timestamp,
};

/// The files of an authority: its key, its roots, its issuer.
type Files = [(&'static str, String); 3];

fn domain() -> TrustDomain {
    "cluster.local".parse().expect("a trust domain")
}

fn made() -> Files {
    issuer::root(&domain()).expect("a root")
}

fn secret(files: &[(&str, &str)]) -> Secret {
    let data = files.iter().map(|(key, text)| ((*key).into(), ByteString(text.as_bytes().to_vec())));
    Secret { data: Some(data.collect()), ..Secret::default() }
}

#[test]
fn a_secret_of_ours_or_of_tls_is_an_authority() {
    let [key, roots, issuer] = made();
    for names in [[ISSUER_KEY, ROOTS, ISSUER], ["tls.key", "ca.crt", "tls.crt"]] {
        let folder = tempfile::tempdir().expect("a folder");
        let secret = secret(&[(names[0], &key.1), (names[1], &roots.1), (names[2], &issuer.1)]);
        mirror(&secret, folder.path()).expect("files");
        assert!(Authority::open(folder.path(), &domain()).is_ok(), "{names:?}");
    }
    let folder = tempfile::tempdir().expect("a folder");
    let half = secret(&[(ISSUER_KEY, &key.1), (ROOTS, &roots.1)]);
    let error = mirror(&half, folder.path()).expect_err("half a Secret");
    assert!(error.to_string().contains("no key issuer.pem (nor tls.crt)"), "{error}");
    assert_eq!(fs::read_dir(folder.path()).expect("a folder").count(), 0, "nothing of a half is written");
}

/// Whatever moment the state folder is read at, it is the old authority, or the new one, or refused.
#[test]
fn no_state_between_two_files_is_read_as_a_third_authority() {
    let read = |folder: &Path| Authority::open(folder, &domain());
    // In the order in which the mirror writes.
    let files = |issuer: &Files, roots: &[&Files]| {
        let roots: String = roots.iter().map(|one| one[1].1.as_str()).collect();
        FILES.map(|(name, _, _)| match name {
            ROOTS => (name, roots.clone()),
            ISSUER_KEY => (name, issuer[0].1.clone()),
            _ => (name, issuer[2].1.clone()),
        })
    };
    let (old, new) = (made(), made());
    for (before, after) in [
        (files(&old, &[&old]), files(&new, &[&new])),
        (files(&old, &[&old]), files(&new, &[&old, &new])),
        (files(&old, &[&old, &new]), files(&new, &[&new])),
    ] {
        let folder = tempfile::tempdir().expect("a folder");
        let write =
            |(name, text): &(&str, String)| fs::write(folder.path().join(name), text).expect("a file");
        before.iter().for_each(write);
        let first = read(folder.path()).expect("the old one");
        let signs_as_before = after.each_ref().map(|file| {
            write(file);
            read(folder.path()).ok().map(|authority| authority.signs_as(&first))
        });
        assert_eq!(signs_as_before[2], Some(false), "the whole is the new one");
        assert!(!signs_as_before[..2].contains(&Some(false)), "{signs_as_before:?}");
    }
}

#[test]
fn a_replica_that_starts_in_a_succession_waits_until_roots_are_known() {
    let (old, new) = (made(), made());
    let both = format!("{}{}", old[1].1, new[1].1);
    let now = SystemTime::now();
    let table = [(&both, 10, Some(55)), (&both, 65, None), (&both, 3600, None), (&old[1].1, 0, None)];
    for (roots, age, expected) in table {
        let mut secret = secret(&[(ROOTS, roots)]);
        let time = Timestamp::try_from(now - Duration::from_secs(age)).expect("a time");
        let entry = ManagedFieldsEntry { time: Some(Time(time)), ..ManagedFieldsEntry::default() };
        secret.metadata.managed_fields = Some(vec![entry]);
        let rest = untold(&secret, now, Duration::from_secs(65));
        assert_eq!(rest.map(|rest| rest.as_secs_f64().round() as u64), expected, "after {age} s");
    }
}
