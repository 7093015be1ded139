//! Session persistence, as routes and policies ask for it (GEP-1619).

use policy::{
    form::is_token,
    settings::{SessionKind, SessionPersistence},
};
use std::fmt;

/// The session that is asked for; `of` is whom it is for: sessions of different rules are different ones, and so have names
/// of their own unless somebody gave them one.
pub(crate) fn read(session: &api::SessionPersistence, of: &impl fmt::Display) -> SessionPersistence {
    let lifetime = session.cookie_config.as_ref().and_then(|cookie| cookie.lifetime_type);
    SessionPersistence {
        kind: match session.type_ {
            Some(api::SessionType::Header) => SessionKind::Header,
            Some(api::SessionType::Cookie) | None => {
                SessionKind::Cookie { permanent: lifetime == Some(api::LifetimeType::Permanent) }
            }
        },
        name: match &session.session_name {
            Some(name) => name.as_str().into(),
            None => format!("weft-session-{:08x}", digest(&of.to_string())).into(),
        },
        absolute_timeout: session.absolute_timeout.map(|time| time.0),
        idle_timeout: session.idle_timeout.map(|time| time.0),
    }
}

/// The name that a session has been given, if it can be neither a cookie's nor a field's.
pub(crate) fn misnamed(session: &api::SessionPersistence) -> Option<&str> {
    session.session_name.as_deref().filter(|name| !is_token(name))
}

/// The same for the same text, in each run of control: FNV-1a, 32 bits.
fn digest(text: &str) -> u32 {
    text.bytes().fold(0x811c_9dc5, |digest, byte| (digest ^ u32::from(byte)).wrapping_mul(0x0100_0193))
}
