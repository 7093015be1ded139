//! Bridge, veth pairs, addresses and routes, over rtnetlink (rtnetlink(7)), so that no `ip` program is needed.
//! A handful of requests in the network namespace of the calling thread; no dumps, no events.

use std::ffi::CString;
use std::io;
use std::net::IpAddr;
use std::os::fd::{AsRawFd, OwnedFd};

use anyhow::Context;
use nix::net::if_::if_nametoindex;
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recv, send, socket,
};

// Message types and attributes of linux/rtnetlink.h, linux/if_link.h, linux/if_addr.h and linux/veth.h.
const NEW_LINK: u16 = 16;
const NEW_ADDRESS: u16 = 20;
const NEW_ROUTE: u16 = 24;
const LINK_NAME: u16 = 3;
const LINK_MASTER: u16 = 10;
const LINK_INFO: u16 = 18;
const LINK_NAMESPACE_PID: u16 = 19;
const INFO_KIND: u16 = 1;
const INFO_DATA: u16 = 2;
const VETH_PEER: u16 = 1;
const ADDRESS: u16 = 1;
const ADDRESS_LOCAL: u16 = 2;
const ROUTE_OIF: u16 = 4;
const ROUTE_GATEWAY: u16 = 5;

const LINK_IS_UP: u32 = 1;
/// No duplicate address detection: the address is usable at once (IFA_F_NODAD).
const ADDRESS_NO_DAD: u8 = 2;
const MAIN_TABLE: u8 = 254;
const STATIC_ROUTE: u8 = 4;
const UNICAST: u8 = 1;

const IS_REQUEST_WITH_ACK: u16 = 1 | 4;
const CREATES: u16 = 0x200 | 0x400;
const HEADER_BYTES: usize = 16;
const ERROR_MESSAGE: u16 = 2;

/// A socket to the network namespace in which it was opened.
pub struct Links {
    socket: OwnedFd,
}

/// The end of a veth pair that stays in another namespace.
pub struct Peer<'a> {
    pub name: &'a str,
    /// A process that lives in that namespace.
    pub namespace_of: u32,
}

impl Links {
    /// Opens it in the namespace of the calling thread.
    pub fn open() -> anyhow::Result<Self> {
        let kind = SockFlag::SOCK_CLOEXEC;
        let socket = socket(AddressFamily::Netlink, SockType::Raw, kind, SockProtocol::NetlinkRoute)
            .context("opening a netlink socket")?;
        bind(socket.as_raw_fd(), &NetlinkAddr::new(0, 0)).context("binding a netlink socket")?;
        Ok(Self { socket })
    }

    pub fn add_bridge(&self, name: &str) -> anyhow::Result<()> {
        let mut message = Message::new(NEW_LINK, CREATES);
        message.link(0, 0);
        message.text(LINK_NAME, name);
        message.nest(LINK_INFO, |info| info.text(INFO_KIND, "bridge"));
        self.ask(message).with_context(|| format!("making bridge {name}"))
    }

    /// Makes a veth pair of which this namespace keeps `name`.
    pub fn add_veth(&self, name: &str, peer: &Peer<'_>) -> anyhow::Result<()> {
        let mut message = Message::new(NEW_LINK, CREATES);
        message.link(0, 0);
        message.text(LINK_NAME, name);
        message.nest(LINK_INFO, |info| {
            info.text(INFO_KIND, "veth");
            info.nest(INFO_DATA, |data| {
                data.nest(VETH_PEER, |end| {
                    end.link(0, 0);
                    end.text(LINK_NAME, peer.name);
                    end.attribute(LINK_NAMESPACE_PID, &peer.namespace_of.to_ne_bytes());
                });
            });
        });
        self.ask(message).with_context(|| format!("making veth pair {name} - {}", peer.name))
    }

    pub fn set_up(&self, name: &str) -> anyhow::Result<()> {
        let mut message = Message::new(NEW_LINK, 0);
        message.link(index(name)?, LINK_IS_UP);
        self.ask(message).with_context(|| format!("bringing {name} up"))
    }

    /// Makes `name` a port of the bridge and brings it up.
    pub fn plug(&self, name: &str, bridge: &str) -> anyhow::Result<()> {
        let mut message = Message::new(NEW_LINK, 0);
        message.link(index(name)?, LINK_IS_UP);
        message.attribute(LINK_MASTER, &index(bridge)?.to_ne_bytes());
        self.ask(message).with_context(|| format!("plugging {name} into {bridge}"))
    }

    pub fn add_address(&self, name: &str, address: IpAddr, prefix_length: u8) -> anyhow::Result<()> {
        let mut message = Message::new(NEW_ADDRESS, CREATES);
        let flags = if address.is_ipv6() { ADDRESS_NO_DAD } else { 0 };
        message.put(&[family(address), prefix_length, flags, 0]);
        message.put(&index(name)?.to_ne_bytes());
        message.attribute(ADDRESS_LOCAL, &octets(address));
        message.attribute(ADDRESS, &octets(address));
        self.ask(message).with_context(|| format!("giving {name} the address {address}"))
    }

    pub fn add_default_route(&self, name: &str, gateway: IpAddr) -> anyhow::Result<()> {
        let mut message = Message::new(NEW_ROUTE, CREATES);
        message.put(&[family(gateway), 0, 0, 0, MAIN_TABLE, STATIC_ROUTE, 0, UNICAST]);
        message.put(&[0; 4]);
        message.attribute(ROUTE_GATEWAY, &octets(gateway));
        message.attribute(ROUTE_OIF, &index(name)?.to_ne_bytes());
        self.ask(message).with_context(|| format!("adding a default route by {gateway}"))
    }

    /// Sends one request and takes the kernel's answer, an errno that is zero when all went well.
    fn ask(&self, message: Message) -> io::Result<()> {
        send(self.socket.as_raw_fd(), &message.finish(), MsgFlags::empty())?;
        let mut answer = [0; 4096];
        let length = recv(self.socket.as_raw_fd(), &mut answer, MsgFlags::empty())?;
        let answer = &answer[..length];
        let malformed =
            || io::Error::new(io::ErrorKind::InvalidData, "the kernel's answer is no netlink error");
        let kind: [u8; 2] = answer.get(4..6).and_then(|kind| kind.try_into().ok()).ok_or_else(malformed)?;
        let code: [u8; 4] = answer
            .get(HEADER_BYTES..HEADER_BYTES + 4)
            .and_then(|code| code.try_into().ok())
            .ok_or_else(malformed)?;
        match (u16::from_ne_bytes(kind), i32::from_ne_bytes(code)) {
            (ERROR_MESSAGE, 0) => Ok(()),
            (ERROR_MESSAGE, errno) => Err(io::Error::from_raw_os_error(-errno)),
            _ => Err(malformed()),
        }
    }
}

/// One request under construction: header, fixed part, attributes (netlink(7)), all in the host's byte order.
struct Message {
    bytes: Vec<u8>,
}

impl Message {
    fn new(kind: u16, flags: u16) -> Self {
        let mut message = Self { bytes: vec![0; HEADER_BYTES] };
        message.bytes[4..6].copy_from_slice(&kind.to_ne_bytes());
        message.bytes[6..8].copy_from_slice(&(IS_REQUEST_WITH_ACK | flags).to_ne_bytes());
        message
    }

    fn put(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    /// The fixed part of a link, `struct ifinfomsg`; the flags given are set, the others left as they are.
    fn link(&mut self, index: u32, flags: u32) {
        self.put(&[0; 4]);
        self.put(&index.to_ne_bytes());
        self.put(&flags.to_ne_bytes());
        self.put(&flags.to_ne_bytes());
    }

    fn attribute(&mut self, kind: u16, value: &[u8]) {
        self.nest(kind, |inner| inner.put(value));
    }

    fn text(&mut self, kind: u16, value: &str) {
        self.nest(kind, |inner| {
            inner.put(value.as_bytes());
            inner.put(&[0]);
        });
    }

    /// An attribute whose value is what `fill` appends, padded to four bytes.
    fn nest(&mut self, kind: u16, fill: impl FnOnce(&mut Self)) {
        let start = self.bytes.len();
        self.put(&[0; 2]);
        self.put(&kind.to_ne_bytes());
        fill(self);
        let length = u16::try_from(self.bytes.len() - start).expect("the values are names and addresses");
        self.bytes[start..start + 2].copy_from_slice(&length.to_ne_bytes());
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }

    fn finish(mut self) -> Vec<u8> {
        let length = u32::try_from(self.bytes.len()).expect("the message is short");
        self.bytes[..4].copy_from_slice(&length.to_ne_bytes());
        self.bytes
    }
}

fn index(name: &str) -> io::Result<u32> {
    let name = CString::new(name)?;
    Ok(if_nametoindex(name.as_c_str())?)
}

fn family(address: IpAddr) -> u8 {
    let family = if address.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
    u8::try_from(family as i32).expect("AF_INET and AF_INET6 are small numbers")
}

fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_laid_out_as_the_kernel_reads_them() {
        let mut message = Message::new(NEW_LINK, CREATES);
        message.link(7, LINK_IS_UP);
        message.nest(LINK_INFO, |info| info.text(INFO_KIND, "veth"));
        let bytes = message.finish();
        // header 16, link 16, nest 4 + attribute 4 + "veth\0" 5 + padding 3
        assert_eq!(bytes.len(), 48);
        assert_eq!(bytes[..4], 48u32.to_ne_bytes());
        assert_eq!(bytes[20..24], 7u32.to_ne_bytes());
        // The inner value is padded within the outer one.
        assert_eq!(bytes[32..36], [16u16.to_ne_bytes(), LINK_INFO.to_ne_bytes()].concat());
        assert_eq!(bytes[36..40], [9u16.to_ne_bytes(), INFO_KIND.to_ne_bytes()].concat());
        assert_eq!(bytes[40..], *b"veth\0\0\0\0");
    }
}
