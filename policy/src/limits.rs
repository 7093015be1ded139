//! Every bound of the data path that is not a peer's own: named here once, each with a metric or a reason when hit.

use std::time::Duration;

/// Bytes of one message's header list, on each side and in each protocol; over it: 431 (RFC 6585 §5).
pub const HEADER_LIST_BYTES: usize = 128 * 1024;
/// The most that `HEADER_LIST_BYTES` can be set to.
pub const HEADER_LIST_MOST_BYTES: usize = 1024 * 1024;
/// The same between proxies, which have held the limit already, each its own: HTTP/2 counts 32 bytes more a field
/// (RFC 9113 §6.5.2), and the wire has fields of its own.
pub const WIRE_HEADER_LIST_BYTES: u32 = 1024 * 1024 + 64 * 1024;
/// Bytes gathered for one write to a peer proxy.
pub const GATHER_BYTES: usize = 64 * 1024;
/// Bytes read at once from a connection that has plenty.
pub const READ_AHEAD_BYTES: usize = 64 * 1024;
/// Bytes that a worker reads from one HTTP/2 connection before it looks after its others.
pub const READ_AT_ONCE_BYTES: usize = 128 * 1024;
/// HTTP/2 flow-control windows of one connection's streams, bytes (RFC 9113 §5.2): this much is shared out among those that are
/// open, between the two bounds. Few streams get plenty; many cannot make a proxy hold more than this for slow readers.
pub const SHARED_WINDOW_BYTES: u32 = 16 * 1024 * 1024;
/// The most that one stream's window is, bytes.
pub const STREAM_WINDOW_MOST_BYTES: u32 = 4 * 1024 * 1024;
/// The least that one stream's window is, bytes.
pub const STREAM_WINDOW_LEAST_BYTES: u32 = 16 * 1024;
/// HTTP/2 flow-control window of one connection, bytes: as much as `STREAMS_PER_CONNECTION` streams can hold that were opened one
/// after the other and each filled its window, so that slow readers never stall anyone else.
pub const CONNECTION_WINDOW_BYTES: u32 = 128 * 1024 * 1024;
/// What small DATA frames of a program may fall short of 256 bytes each, all of a connection together, while they are not read:
/// each costs some 250 bytes until then. 64 Ki frames of a byte.
pub const SMALL_FRAMES_BYTES: usize = 16 * 1024 * 1024;
/// Bytes of one HTTP/2 frame between proxies (RFC 9113 §4.2), its header included.
pub const FRAME_BYTES: u32 = 64 * 1024;
/// Changes of settings (RFC 9113 §6.5) that a program's connection may make before the next request; as many again as it makes
/// requests.
pub const SETTINGS_CHANGES: u32 = 100;
/// Streams that a proxy lets a peer open on one connection (RFC 9113 §5.1.2).
pub const STREAMS_PER_CONNECTION: u32 = 4096;
/// Bytes of the heads of all requests that are open on one HTTP/2 connection, as RFC 9113 §6.5.2 counts them; further ones are
/// refused. Each may be `HEADER_LIST_BYTES` long, and a compressed one costs its sender next to nothing.
pub const HEADS_BYTES: usize = 16 * 1024 * 1024;
/// Connections that a worker keeps to one peer proxy.
pub const CONNECTIONS_PER_PEER: usize = 8;
/// HTTP/2 connections that a worker keeps to one application: as many as its limit of streams (RFC 9113 §5.1.2) calls for.
pub const CONNECTIONS_PER_APPLICATION: usize = 64;
/// Requests that wait for a stream when every connection to their next hop is full.
pub const PENDING_STREAMS: usize = 1_024;
/// Bytes of a request's body that are kept until its answer begins, for the case that it may be sent again.
pub const REPLAY_BYTES: usize = 64 * 1024;
/// The most that a policy can have kept.
pub const REPLAY_MOST_BYTES: usize = 16 * 1024 * 1024;
/// Endpoints that one request is sent to at once, besides the first, whatever a policy says.
pub const HEDGES: u32 = 5;
/// Bytes by which the copy of a request (RequestMirror) may fall behind what its original has sent; one that does is given up.
pub const MIRROR_BYTES: usize = 512 * 1024;
/// Copies that a worker has under way at once; of further requests none are made.
pub const MIRRORS: usize = 512;
/// How long a copy may take after its original has been sent.
pub const MIRROR_WAIT: Duration = Duration::from_secs(30);
/// Silence of a peer proxy that owes answers, after which it is asked for a sign of life (PING, RFC 9113 §6.7); as long again
/// without one, and the connection is given up.
pub const PING_AFTER: Duration = Duration::from_secs(10);
/// A TCP stream that has carried more than this is bulk: new streams avoid its connection.
pub const BULK_BYTES: u64 = 1024 * 1024;
/// Idle plaintext connections kept to one address by a worker.
pub const IDLE_CONNECTIONS_PER_ADDRESS: usize = 128;
/// Age at which an idle plaintext connection is given up. Go's and nginx' servers close at 60 s or later by default.
pub const IDLE_CONNECTION_AGE: Duration = Duration::from_secs(45);
/// Learned or announced idle ages of a server count as at least this for what can be sent again.
pub const MIN_IDLE_AGE: Duration = Duration::from_millis(500);
/// While a server's idle age is not known: age up to which an idle connection is good for what cannot be sent again.
pub const UNKNOWN_IDLE_AGE: Duration = Duration::from_secs(1);
/// Time after which a server's learned idle age is forgotten, when nothing has confirmed it.
pub const IDLE_EVIDENCE: Duration = Duration::from_secs(600);
/// Age at which an idle connection between proxies is closed by the side that opened it.
pub const IDLE_PEER_AGE: Duration = Duration::from_secs(300);
/// Streams that a connection may have carried at once to be kept so long. HTTP/2's state of each stays allocated for the next
/// one, on both sides, until the connection ends.
pub const LEAN_STREAMS: u32 = 128;
/// Age at which an idle connection that has carried more is closed.
pub const IDLE_SWOLLEN_AGE: Duration = Duration::from_secs(20);
/// Client connections that a proxy holds, all workers together.
pub const CONNECTIONS: usize = 65_536;
/// File descriptors for all else than connections of clients and those that they call for: listening, control, admin. Where
/// the process may have too few, it holds fewer connections than [`CONNECTIONS`].
pub const OTHER_DESCRIPTORS: usize = 256;
/// Destinations that a proxy keeps watched; the longest unused goes first.
pub const WATCHES: usize = 1_024;
/// Time without use after which a destination's watch is dropped.
pub const WATCH_IDLE: Duration = Duration::from_secs(300);
/// Age at which endpoints that control has not confirmed are doubted: it does so each minute.
pub const ENDPOINTS_CONFIRMED: Duration = Duration::from_secs(75);
/// Wait for control's first word about a destination before its traffic passes unmeshed.
pub const DISCOVERY_WAIT: Duration = Duration::from_secs(1);
/// How long a run of control that takes everything away (no endpoint, nobody's address) is doubted by a proxy that had
/// something from another run: it may have been restarted over an empty source.
pub const EMPTIED_GRACE: Duration = Duration::from_secs(60);
/// Changes of one answer that a proxy takes as they come; further ones at a pace of one each `CHANGE_INTERVAL`, the newest.
pub const CHANGES_AT_ONCE: u32 = 64;
pub const CHANGE_INTERVAL: Duration = Duration::from_millis(100);
/// Wait for the application to accept a connection from its own proxy. When its queue is full, the kernel drops the attempt
/// and makes it again after 1 s and 3 s (RFC 6298 §2.1, §5.5); without a proxy its clients would wait for that, too.
pub const LOCAL_CONNECT_WAIT: Duration = Duration::from_secs(5);
/// Wait of a TCP probe for its connection: a kubelet's own default, in which it must have its answer.
pub const TCP_PROBE_WAIT: Duration = Duration::from_secs(1);
/// Wait for a program's HTTP/2 settings before a WebSocket goes to it over HTTP/1.1 (RFC 9113 §3.4: they are what it says first).
pub const SETTINGS_WAIT: Duration = Duration::from_millis(500);
/// Wait for a TLS handshake.
pub const HANDSHAKE_WAIT: Duration = Duration::from_secs(5);
/// Wait for the rest of a request head once its first byte has come.
pub const REQUEST_HEAD_WAIT: Duration = Duration::from_secs(30);
/// After one side of a TCP connection has ended, silence on the other that ends it too (conntrack forgets CLOSE_WAIT after 60 s).
pub const HALF_CLOSED_IDLE: Duration = Duration::from_secs(50);
/// Silence of a remote connection after which the kernel asks for a sign of life, and between two such questions.
pub const KEEPALIVE_IDLE: Duration = Duration::from_secs(15);
/// Unanswered questions that end a connection.
pub const KEEPALIVE_PROBES: u32 = 3;
/// Unacknowledged bytes or unanswered keep-alives for so long end a remote connection (RFC 5482, `TCP_USER_TIMEOUT`).
pub const USER_TIMEOUT: Duration = Duration::from_secs(45);
/// How long the reader of a plaintext connection may take nothing while it is alive. As long as the kernel tries to reach a
/// vanished peer by default (`tcp_retries2`).
pub const STALLED_READER: Duration = Duration::from_secs(15 * 60);
/// Wait for a connection when nothing else is left to try: a lost SYN is sent again after 1 s and 3 s (RFC 6298 §2.1, §5.5).
pub const LAST_CONNECT_WAIT: Duration = Duration::from_millis(3_500);
/// Metric series of one proxy; further ones are folded into `other`.
pub const SERIES: usize = 2_000;
/// Bytes of access log lines that a worker holds in one of its two buffers until they are written; further lines are dropped.
pub const ACCESS_LOG_BYTES: usize = 1024 * 1024;
/// Bytes of an access log buffer that are kept for the next lines.
pub const ACCESS_LOG_KEPT_BYTES: usize = 64 * 1024;
/// Bytes of one value in the access log; the rest is cut off.
pub const ACCESS_LOG_VALUE_BYTES: usize = 2 * 1024;
