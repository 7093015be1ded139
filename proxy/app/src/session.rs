//! Session persistence (GEP-1619): the requests of a session go to the endpoint that answered its first one, for as long as that is
//! there. Nothing is remembered here: the session is what its client carries, the names of backend and endpoint, when it began and
//! when it was last used. Somebody who makes one up chooses among the endpoints that he may reach anyhow; whatever means nothing is
//! the beginning of a new session.

use http::{HeaderName, HeaderValue, header::SET_COOKIE};
use policy::{
    Endpoint, ServicePort, WorkloadName,
    settings::{SessionKind, SessionPersistence},
};
use proxy_http::client::Client;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Clocks of proxies may differ by so much.
const CLOCKS: Duration = Duration::from_secs(300);

/// What a client carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Session {
    backend: u64,
    pub endpoint: u64,
    /// Seconds since the epoch.
    begun: u32,
    used: u32,
}

impl Session {
    /// The one that a request brings for this backend, if it still holds.
    pub fn of_request(
        settings: &SessionPersistence,
        client: &Client,
        backend: &ServicePort,
        now: u32,
    ) -> Option<Self> {
        let brought = match settings.kind {
            SessionKind::Cookie { .. } => client.values("cookie")?,
            SessionKind::Header => client.values(&settings.name.to_ascii_lowercase())?,
        };
        let brought = std::str::from_utf8(&brought).ok()?;
        // A client of HTTP/2 may send each cookie in a field of its own.
        let named =
            |pair: &str| Some(pair.trim().strip_prefix(&*settings.name)?.strip_prefix('=')?.to_owned());
        let session = match settings.kind {
            SessionKind::Cookie { .. } => {
                brought.split([';', ',']).filter_map(named).find_map(|value| Self::read(&value))
            }
            SessionKind::Header => Self::read(brought.trim()),
        };
        session.filter(|session| session.backend == key_of_backend(backend) && session.holds(settings, now))
    }

    /// One that begins with this answer.
    pub fn new(backend: &ServicePort, endpoint: u64, now: u32) -> Self {
        Self { backend: key_of_backend(backend), endpoint, begun: now, used: now }
    }

    /// The same, used now; `None`: its client need not be told, as only time that nobody asks for has passed.
    pub fn renewed(self, settings: &SessionPersistence, now: u32) -> Option<Self> {
        settings.idle_timeout.filter(|_| now > self.used).map(|_| Self { used: now, ..self })
    }

    /// How a response says it; `path`: for which paths, where that is a cookie's to say.
    pub fn field(
        self,
        settings: &SessionPersistence,
        path: &str,
        now: u32,
    ) -> Option<(HeaderName, HeaderValue)> {
        let SessionKind::Cookie { permanent } = settings.kind else {
            let name = HeaderName::from_bytes(settings.name.as_bytes()).ok()?;
            return Some((name, HeaderValue::try_from(self.write()).ok()?));
        };
        let mut cookie = format!("{}={}; Path={path}; HttpOnly; SameSite=Lax", settings.name, self.write());
        if let (true, Some(absolute)) = (permanent, settings.absolute_timeout) {
            let left = absolute.as_secs().saturating_sub(u64::from(now.saturating_sub(self.begun)));
            cookie.push_str(&format!("; Max-Age={left}"));
        }
        Some((SET_COOKIE, HeaderValue::try_from(cookie).ok()?))
    }

    fn holds(&self, settings: &SessionPersistence, now: u32) -> bool {
        let within = |limit: Option<Duration>, since: u32| {
            limit.is_none_or(|limit| u64::from(now.saturating_sub(since)) <= limit.as_secs())
        };
        u64::from(self.begun) <= u64::from(now) + CLOCKS.as_secs()
            && within(settings.absolute_timeout, self.begun)
            && within(settings.idle_timeout, self.used)
    }

    fn write(self) -> String {
        let Self { backend, endpoint, begun, used } = self;
        format!("{backend:016x}{endpoint:016x}{begun:08x}{used:08x}")
    }

    fn read(text: &str) -> Option<Self> {
        if text.len() != 48 || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return None;
        }
        let part = |from: usize, to: usize| u64::from_str_radix(&text[from..to], 16).ok();
        let seconds = |from, to| u32::try_from(part(from, to)?).ok();
        Some(Self {
            backend: part(0, 16)?,
            endpoint: part(16, 32)?,
            begun: seconds(32, 40)?,
            used: seconds(40, 48)?,
        })
    }
}

/// Seconds since the epoch.
pub fn now() -> u32 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u32::try_from(since.as_secs()).unwrap_or(u32::MAX)
}

/// An endpoint's name: the same for every proxy, in each of its runs. A pod that has the address of another one is another endpoint.
pub fn key_of(endpoint: &Endpoint) -> u64 {
    let workload = endpoint.workload.as_ref().map(WorkloadName::to_string).unwrap_or_default();
    hash(&[endpoint.address.to_string().as_bytes(), workload.as_bytes()])
}

fn key_of_backend(backend: &ServicePort) -> u64 {
    let service = &backend.service;
    hash(&[service.namespace.as_bytes(), service.name.as_bytes(), &backend.port.to_be_bytes()])
}

/// FNV-1a of 64 bits, each part ended by a byte that no name has.
fn hash(parts: &[&[u8]]) -> u64 {
    let bytes = parts.iter().flat_map(|part| part.iter().chain(&[0xff]));
    bytes.fold(0xcbf2_9ce4_8422_2325, |sum, byte| (sum ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3))
}

#[cfg(test)]
mod tests {
    use super::*;
    use policy::ServiceName;

    const NOW: u32 = 1_000_000;

    fn settings(permanent: bool, absolute: Option<u64>, idle: Option<u64>) -> SessionPersistence {
        SessionPersistence {
            kind: SessionKind::Cookie { permanent },
            name: "s".into(),
            absolute_timeout: absolute.map(Duration::from_secs),
            idle_timeout: idle.map(Duration::from_secs),
        }
    }

    fn session() -> Session {
        Session::new(&ServiceName::new("shop", "cart").port(80), 7, NOW)
    }

    #[test]
    fn what_is_written_is_read_and_nothing_else() {
        let text = session().write();
        assert_eq!(Session::read(&text), Some(session()));
        let shorter = &text[1..];
        let longer = format!("{text}0");
        let other = text.replacen(|symbol: char| symbol.is_ascii_digit(), "g", 1);
        let wide = text.replacen(|symbol: char| symbol.is_ascii_digit(), "é", 1);
        for wrong in
            ["", "x", shorter, &longer, &other, &wide, "+00000000000000000000000000000000000000000000000"]
        {
            assert_eq!(Session::read(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn a_session_ends_by_age_and_by_silence() {
        for (absolute, idle, begun, used, expected) in [
            (None, None, 0, 0, true),
            (Some(10), None, NOW - 10, NOW, true),
            (Some(10), None, NOW - 11, NOW, false),
            (None, Some(10), 0, NOW - 10, true),
            (None, Some(10), 0, NOW - 11, false),
            (Some(100), Some(10), NOW - 50, NOW - 5, true),
            (None, None, NOW + 301, NOW, false),
        ] {
            let session = Session { begun, used, ..session() };
            let holds = session.holds(&settings(false, absolute, idle), NOW);
            assert_eq!(holds, expected, "{absolute:?} {idle:?} {begun} {used}");
        }
    }

    #[test]
    fn a_client_is_told_what_it_has_to_know() {
        let told = |settings: &SessionPersistence, now| {
            let (name, value) = session().field(settings, "/a", now).expect("a field");
            format!("{name}: {}", value.to_str().expect("ASCII").replace(&session().write(), "…"))
        };
        let (run, lasting) = (settings(false, Some(60), None), settings(true, Some(60), None));
        assert_eq!(told(&run, NOW), "set-cookie: s=…; Path=/a; HttpOnly; SameSite=Lax");
        assert_eq!(told(&lasting, NOW + 20), "set-cookie: s=…; Path=/a; HttpOnly; SameSite=Lax; Max-Age=40");
        let header =
            SessionPersistence { kind: SessionKind::Header, name: "X-Session".into(), ..run.clone() };
        assert_eq!(told(&header, NOW), "x-session: …");
        // Only where silence ends a session, each use is told.
        assert_eq!(session().renewed(&run, NOW + 5), None);
        let renewed = session().renewed(&settings(false, None, Some(60)), NOW + 5);
        assert_eq!(renewed, Some(Session { used: NOW + 5, ..session() }));
    }
}
