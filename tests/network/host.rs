//! Hosts: smoltcp on Ethernet or on bare IP, with a program on top.

use std::collections::VecDeque;
use std::net::Ipv4Addr;

use smoltcp::iface::{Config, Interface, SocketSet};
use smoltcp::phy::{Device, DeviceCapabilities, Medium, RxToken, TxToken};
use smoltcp::time::{Duration, Instant};
use smoltcp::wire::{EthernetAddress, HardwareAddress, IpCidr};
use tapvs::addr::MacAddr;

use crate::caller::{Call, Caller};
use crate::ftp::{FtpClient, FtpServer};
use crate::program::{Client, Program, STREAMS, Server};
use crate::support::random::Random;
use crate::support::{server_ip, server_mac};

/// A NIC: frames in, frames out; or packets, where the medium is IP.
pub(crate) struct Nic {
    medium: Medium,
    pub(crate) received: VecDeque<Vec<u8>>,
    pub(crate) sent: Vec<Vec<u8>>,
}

pub(crate) struct Received(Vec<u8>);

impl RxToken for Received {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, read: F) -> R {
        read(&self.0)
    }
}

pub(crate) struct Sending<'a>(&'a mut Vec<Vec<u8>>);

impl TxToken for Sending<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, len: usize, write: F) -> R {
        let mut frame = vec![0; len];
        let result = write(&mut frame);
        self.0.push(frame);
        result
    }
}

impl Device for Nic {
    type RxToken<'a> = Received;
    type TxToken<'a> = Sending<'a>;

    fn receive(&mut self, _: Instant) -> Option<(Received, Sending<'_>)> {
        let frame = self.received.pop_front()?;
        Some((Received(frame), Sending(&mut self.sent)))
    }

    fn transmit(&mut self, _: Instant) -> Option<Sending<'_>> {
        Some(Sending(&mut self.sent))
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = self.medium;
        capabilities.max_transmission_unit = match self.medium {
            Medium::Ethernet => 1514,
            _ => 1500,
        };
        capabilities
    }
}

pub(crate) struct Host {
    pub(crate) nic: Nic,
    interface: Interface,
    sockets: SocketSet<'static>,
    program: Program,
}

impl Host {
    /// A client at 203.0.113.`n` on Ethernet, with its MAC.
    pub(crate) fn client(
        n: u8,
        transfers: usize,
        queries: usize,
        random: &mut Random,
    ) -> (MacAddr, Self) {
        Self::near(n, random, |sockets, random| {
            let pace = Duration::ZERO;
            Program::Client(Client::new(sockets, transfers, queries, pace, random))
        })
    }

    /// As [`Host::client`], with connections that stay.
    pub(crate) fn caller(n: u8, random: &mut Random) -> (MacAddr, Self) {
        Self::near(n, random, |_, _| Program::Caller(Caller::default()))
    }

    /// Real server 10.0.0.`n` on Ethernet, serving HTTP at port 8080, with its MAC.
    pub(crate) fn server(n: u8, random: &mut Random) -> (MacAddr, Self) {
        Self::busy_server(n, STREAMS, random)
    }

    /// As [`Host::server`], for so many streams at once.
    pub(crate) fn busy_server(n: u8, streams: usize, random: &mut Random) -> (MacAddr, Self) {
        let gateway = Some(Ipv4Addr::new(10, 0, 0, 1));
        let hardware = HardwareAddress::Ethernet(EthernetAddress(server_mac(n).0));
        let program = |sockets: &mut SocketSet<'static>, _: &mut Random| {
            Program::Server(Server::new(sockets, 8080, n, streams))
        };
        (server_mac(n), Self::new(hardware, &[server_ip(n)], gateway, random, program))
    }

    /// Real server 10.0.0.`n` that serves FTP, with its MAC.
    pub(crate) fn ftp_server(n: u8, random: &mut Random) -> (MacAddr, Self) {
        let gateway = Some(Ipv4Addr::new(10, 0, 0, 1));
        let hardware = HardwareAddress::Ethernet(EthernetAddress(server_mac(n).0));
        let program = |sockets: &mut SocketSet<'static>, _: &mut Random| {
            Program::FtpServer(FtpServer::new(sockets, n, STREAMS))
        };
        (server_mac(n), Self::new(hardware, &[server_ip(n)], gateway, random, program))
    }

    /// A client at 203.0.113.`n` that fetches so many files by FTP, with its MAC.
    pub(crate) fn ftp_client(n: u8, files: usize, random: &mut Random) -> (MacAddr, Self) {
        Self::near(n, random, |_, _| Program::FtpClient(FtpClient::new([203, 0, 113, n], files)))
    }

    fn near(
        n: u8,
        random: &mut Random,
        program: impl FnOnce(&mut SocketSet<'static>, &mut Random) -> Program,
    ) -> (MacAddr, Self) {
        let mac = MacAddr([2, 0, 0, 0, 3, n]);
        let address = Ipv4Addr::new(203, 0, 113, n);
        let hardware = HardwareAddress::Ethernet(EthernetAddress(mac.0));
        (mac, Self::new(hardware, &[address], None, random, program))
    }

    /// A host whose packets somebody else puts into frames.
    pub(crate) fn bare(
        addresses: &[Ipv4Addr],
        random: &mut Random,
        program: impl FnOnce(&mut SocketSet<'static>, &mut Random) -> Program,
    ) -> Self {
        // Whom to hand packets to is not decided here, but there has to be a route.
        let gateway = Some(Ipv4Addr::new(192, 0, 2, 1));
        Self::new(HardwareAddress::Ip, addresses, gateway, random, program)
    }

    fn new(
        hardware: HardwareAddress,
        addresses: &[Ipv4Addr],
        gateway: Option<Ipv4Addr>,
        random: &mut Random,
        program: impl FnOnce(&mut SocketSet<'static>, &mut Random) -> Program,
    ) -> Self {
        let (received, sent) = Default::default();
        let medium = match hardware {
            HardwareAddress::Ethernet(_) => Medium::Ethernet,
            _ => Medium::Ip,
        };
        let mut nic = Nic { medium, received, sent };
        let mut config = Config::new(hardware);
        config.random_seed = random.next();
        let mut interface = Interface::new(config, &mut nic, Instant::ZERO);
        interface.update_ip_addrs(|list| {
            for address in addresses {
                list.push(IpCidr::new((*address).into(), 24)).unwrap();
            }
        });
        if let Some(gateway) = gateway {
            interface.routes_mut().add_default_ipv4_route(gateway).unwrap();
        }
        let mut sockets = SocketSet::new(Vec::new());
        let program = program(&mut sockets, random);
        Self { nic, interface, sockets, program }
    }

    /// Reads what came, lets the program work, writes what there is to write.
    pub(crate) fn poll(&mut self, now: Instant) {
        for _ in 0..3 {
            self.interface.poll(now, &mut self.nic, &mut self.sockets);
            self.program.work(&mut self.interface, &mut self.sockets, now);
        }
        self.interface.poll(now, &mut self.nic, &mut self.sockets);
    }

    /// When to poll again without a frame.
    pub(crate) fn next_poll(&mut self, now: Instant) -> Option<Instant> {
        let stack = self.interface.poll_at(now, &self.sockets);
        stack.into_iter().chain(self.program.next_work()).min()
    }

    /// One more connection that stays.
    pub(crate) fn call(&mut self, port: u16) {
        if let Program::Caller(caller) = &mut self.program {
            caller.open(port);
        }
    }

    /// Its connections that stay.
    pub(crate) fn calls(&self) -> Option<&[Call]> {
        let Program::Caller(caller) = &self.program else { return None };
        Some(&caller.calls)
    }

    pub(crate) fn calls_mut(&mut self) -> Option<&mut [Call]> {
        let Program::Caller(caller) = &mut self.program else { return None };
        Some(&mut caller.calls)
    }

    /// Its FTP, if it is a client of that.
    pub(crate) fn ftp(&self) -> Option<&FtpClient> {
        let Program::FtpClient(client) = &self.program else { return None };
        Some(client)
    }

    pub(crate) fn ftp_mut(&mut self) -> Option<&mut FtpClient> {
        let Program::FtpClient(client) = &mut self.program else { return None };
        Some(client)
    }

    /// Transfers and queries that are not complete.
    pub(crate) fn left(&self) -> usize {
        self.program.left()
    }

    /// Connections that were given up and made again.
    pub(crate) fn retries(&self) -> usize {
        self.program.retries()
    }

    /// What the program has done, for messages.
    pub(crate) fn describe(&self) -> String {
        self.program.describe(&self.sockets)
    }
}
