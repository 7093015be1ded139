//! Every way between a client and a server: each meshed or not, over each family.

use crate::{manifest::Port, pod::Pod, world::World};
use std::net::SocketAddr;

/// A client and a server with a proxy each, and one each without.
pub struct Grid {
    pub meshed_client: Pod,
    pub unmeshed_client: Pod,
    pub meshed_server: Pod,
    pub unmeshed_server: Pod,
    routes: Vec<(&'static str, bool, SocketAddr)>,
    direct: [SocketAddr; 2],
    /// After its pods.
    pub world: World,
}

/// One way to a server.
#[derive(Clone, Copy)]
pub struct Route<'a> {
    /// What is meshed, and the family: for messages.
    pub name: &'static str,
    pub client: &'a Pod,
    /// A Service's address, or the pod's own for a client without a proxy: nobody translates Service addresses for it.
    pub address: SocketAddr,
}

impl Grid {
    /// Servers that will listen on `port`.
    pub fn new(port: Port) -> Self {
        let world = World::new();
        let meshed = world.service("meshed", "meshed-server", std::slice::from_ref(&port));
        let unmeshed = world.service("unmeshed", "unmeshed-server", std::slice::from_ref(&port));
        let meshed_server = world.meshed("meshed-server");
        let unmeshed_server = world.unmeshed("unmeshed-server");
        let [both4, both6] = meshed.at(port.number);
        let [client4, client6] = unmeshed.at(port.number);
        let [server4, server6] = meshed_server.at(port.target);
        let routes = vec![
            ("both meshed, IPv4", true, both4),
            ("both meshed, IPv6", true, both6),
            ("only the client meshed, IPv4", true, client4),
            ("only the client meshed, IPv6", true, client6),
            ("only the server meshed, IPv4", false, server4),
            ("only the server meshed, IPv6", false, server6),
        ];
        Self {
            meshed_client: world.meshed("client"),
            unmeshed_client: world.unmeshed("stranger"),
            direct: unmeshed_server.at(port.target),
            meshed_server,
            unmeshed_server,
            routes,
            world,
        }
    }

    pub fn servers(&self) -> [&Pod; 2] {
        [&self.meshed_server, &self.unmeshed_server]
    }

    /// All ways that have a proxy somewhere.
    pub fn routes(&self) -> impl Iterator<Item = Route<'_>> {
        self.routes.iter().map(|(name, meshed, address)| {
            let client = if *meshed { &self.meshed_client } else { &self.unmeshed_client };
            eprintln!("--- {name}: {address}");
            Route { name, client, address: *address }
        })
    }

    /// The ways on which both sides are meshed.
    pub fn meshed_routes(&self) -> impl Iterator<Item = Route<'_>> {
        self.routes().take(2)
    }

    /// The ways without any proxy: what the others are compared with.
    pub fn direct(&self) -> [Route<'_>; 2] {
        let [v4, v6] = self.direct;
        let client = &self.unmeshed_client;
        [
            Route { name: "direct, IPv4", client, address: v4 },
            Route { name: "direct, IPv6", client, address: v6 },
        ]
    }
}
