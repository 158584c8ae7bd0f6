//! What is asked for, and the steps that a method takes to it.

use std::fmt;
use std::net::Ipv4Addr;

use serde::{Deserialize, Serialize};

use super::error::Error;
use super::method::Method;
use super::step::{Key, Step};
use crate::addr::Proto;

/// What the command line asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// The virtual IPs of the services.
    pub vips: Vec<Ipv4Addr>,
    /// The services' protocols.
    pub protocols: Vec<Proto>,
    /// The services' ports, which are the server's too.
    pub ports: Vec<u16>,
    /// The interface towards the router.
    pub interface: String,
    /// The server's own address; its first one on the interface if not given.
    pub address: Option<Ipv4Addr>,
}

/// One port of a virtual IP.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the names say it")]
pub struct Service {
    pub vip: Ipv4Addr,
    pub protocol: Proto,
    pub port: u16,
}

/// The steps of one method for one request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Plan {
    pub(super) method: Method,
    pub(super) vips: Vec<Ipv4Addr>,
    pub(super) services: Vec<Service>,
    pub(super) interface: String,
    /// The server's own.
    pub(super) address: Ipv4Addr,
    pub(super) steps: Vec<Step>,
}

impl Request {
    /// Every port of every virtual IP.
    fn services(&self, vips: &[Ipv4Addr]) -> Vec<Service> {
        let (protocols, ports) = (distinct(&self.protocols), distinct(&self.ports));
        let mut services = Vec::new();
        for &vip in vips {
            for &protocol in &protocols {
                services.extend(ports.iter().map(|&port| Service { vip, protocol, port }));
            }
        }
        services
    }

    /// Refuses what makes no sense on any machine.
    pub(super) fn validate(&self) -> Result<(), Error> {
        if self.vips.is_empty() {
            return Err(Error::Usage("no virtual IP is named; --vip ADDRESS".into()));
        }
        for vip in &self.vips {
            if vip.is_unspecified() || vip.is_loopback() || vip.is_multicast() || vip.is_broadcast()
            {
                let words = format!("--vip {vip}: not an address that a client can connect to");
                return Err(Error::Usage(words));
            }
            if self.address == Some(*vip) {
                let words = format!("--address {vip} is a virtual IP; the server's own is meant");
                return Err(Error::Usage(words));
            }
        }
        Ok(())
    }
}

impl Plan {
    /// The steps to what is asked for, on a server with this address of its own.
    pub(super) fn new(method: Method, request: &Request, address: Ipv4Addr) -> Result<Self, Error> {
        request.validate()?;
        let vips = distinct(&request.vips);
        let services = request.services(&vips);
        if method == Method::Redirect && services.is_empty() {
            return Err(Error::Usage("redirect goes by port; --port N".into()));
        }
        let interface = request.interface.clone();
        // Silence first: an address that is there before it can be asked for, and be learned.
        let mut steps = silence(method, &vips, &interface, address);
        if method == Method::Redirect {
            steps.extend(services.iter().map(|service| Step::NatService(*service)));
        } else {
            let on = if method == Method::Sysctl { "lo" } else { &interface };
            let address = |vip: &Ipv4Addr| Step::Address { vip: *vip, interface: on.to_owned() };
            steps.extend(vips.iter().map(address));
        }
        Ok(Self { method, vips, services, interface, address, steps })
    }
}

/// Each once, in the order given.
fn distinct<T: Copy + PartialEq>(given: &[T]) -> Vec<T> {
    let mut once = Vec::new();
    for item in given {
        if !once.contains(item) {
            once.push(*item);
        }
    }
    once
}

fn silence(method: Method, vips: &[Ipv4Addr], interface: &str, address: Ipv4Addr) -> Vec<Step> {
    match method {
        Method::Sysctl => {
            let of = |key| ["all", interface].map(|of| Step::Sysctl { key, of: of.to_owned() });
            Key::ALL.into_iter().flat_map(of).collect()
        }
        Method::Arptables => {
            let drops = vips.iter().map(|&vip| Step::DropArp { vip });
            drops.chain(vips.iter().map(|&vip| Step::MangleArp { vip, address })).collect()
        }
        Method::Nft => {
            let vips = vips.iter().map(|&vip| Step::ArpVip { vip });
            std::iter::once(Step::ArpTable { address }).chain(vips).collect()
        }
        Method::Redirect => vec![Step::NatTable],
    }
}

impl fmt::Display for Service {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}:{}", self.protocol, self.vip, self.port)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request() -> Request {
        let vip = Ipv4Addr::new(203, 0, 113, 10);
        Request {
            vips: vec![vip, Ipv4Addr::new(203, 0, 113, 11), vip],
            protocols: vec![Proto::Tcp, Proto::Udp],
            ports: vec![80],
            interface: "eth0".into(),
            address: None,
        }
    }

    fn plan(method: Method) -> Vec<String> {
        let plan = Plan::new(method, &request(), Ipv4Addr::new(10, 0, 0, 11)).unwrap();
        plan.steps.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_virtual_ip_comes_after_what_keeps_it_quiet_and_once() {
        assert_eq!(
            plan(Method::Sysctl),
            [
                "net.ipv4.conf.all.arp_ignore = 1",
                "net.ipv4.conf.eth0.arp_ignore = 1",
                "net.ipv4.conf.all.arp_announce = 2",
                "net.ipv4.conf.eth0.arp_announce = 2",
                "203.0.113.10/32 on lo",
                "203.0.113.11/32 on lo",
            ]
        );
        assert_eq!(
            plan(Method::Arptables),
            [
                "arptables: ARP for 203.0.113.10 dropped",
                "arptables: ARP for 203.0.113.11 dropped",
                "arptables: ARP from 203.0.113.10 sent as 10.0.0.11",
                "arptables: ARP from 203.0.113.11 sent as 10.0.0.11",
                "203.0.113.10/32 on eth0",
                "203.0.113.11/32 on eth0",
            ]
        );
        assert_eq!(
            plan(Method::Nft),
            [
                "nft table arp tapvs_realserver",
                "nft table arp tapvs_realserver: 203.0.113.10",
                "nft table arp tapvs_realserver: 203.0.113.11",
                "203.0.113.10/32 on eth0",
                "203.0.113.11/32 on eth0",
            ]
        );
        assert_eq!(
            plan(Method::Redirect),
            [
                "nft table ip tapvs_realserver",
                "nft table ip tapvs_realserver: tcp 203.0.113.10:80",
                "nft table ip tapvs_realserver: udp 203.0.113.10:80",
                "nft table ip tapvs_realserver: tcp 203.0.113.11:80",
                "nft table ip tapvs_realserver: udp 203.0.113.11:80",
            ]
        );
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        let address = Ipv4Addr::new(10, 0, 0, 11);
        let refused = |method, request: &Request| {
            let error = Plan::new(method, request, address).unwrap_err();
            assert!(error.is_usage(), "{error}");
            error.to_string()
        };
        let no_port = Request { ports: Vec::new(), ..request() };
        assert!(refused(Method::Redirect, &no_port).contains("--port"));
        assert!(Plan::new(Method::Sysctl, &no_port, address).is_ok());
        let none = Request { vips: Vec::new(), ..request() };
        assert!(refused(Method::Sysctl, &none).contains("--vip"));
        for wrong in ["0.0.0.0", "127.0.0.1", "224.0.0.1", "255.255.255.255"] {
            let request = Request { vips: vec![wrong.parse().unwrap()], ..request() };
            assert!(refused(Method::Nft, &request).contains(wrong));
        }
        let own = Request { address: Some(Ipv4Addr::new(203, 0, 113, 11)), ..request() };
        assert!(refused(Method::Nft, &own).contains("--address 203.0.113.11"));
    }
}
