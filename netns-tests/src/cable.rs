//! Cables between namespaces: veth pairs, bridges, TAPs plugged in; and the way beyond them.

use std::net::Ipv4Addr;

use tapvs::addr::Cidr;
use tapvs::links::{LinkError, Namespace, Netlink};

use crate::{Context as _, Outcome};

/// An address in a network of that prefix length.
pub fn within(address: Ipv4Addr, prefix: u8) -> Cidr {
    Cidr::new(address.into(), prefix).expect("no prefix here is longer than an address")
}

/// An address with its prefix length.
pub fn cidr(text: &str) -> Cidr {
    text.parse().expect("an address with its prefix length")
}

/// Makes a bridge in `middle`.
pub fn make_bridge(middle: &Namespace, bridge: &str) -> Outcome {
    let made: Result<(), LinkError> = middle.run(|| {
        let netlink = Netlink::new()?;
        netlink.create_bridge(bridge)?;
        netlink.set_up(bridge)
    });
    made.context("cannot make a bridge")
}

/// Plugs the NIC of a host, made for it, into a bridge of `middle`; the bridge's port is called `port`.
pub fn plug(
    (middle, bridge, port): (&Namespace, &str, &str),
    (host, nic, address): (&Namespace, &str, Cidr),
) -> Outcome {
    let plugged: Result<(), LinkError> = middle
        .run(|| {
            let netlink = Netlink::new()?;
            netlink.create_veth(port, nic, Some(host.fd()))?;
            netlink.set_master(port, bridge)?;
            netlink.set_up(port)
        })
        .and_then(|()| {
            host.run(|| {
                let netlink = Netlink::new()?;
                netlink.set_up(nic)?;
                netlink.add_address(nic, address)
            })
        });
    plugged.context(format_args!("cannot plug {nic} into {bridge} as {port}"))
}

/// Plugs a TAP of the router into a bridge of `middle`.
pub fn plug_tap(middle: &Namespace, bridge: &str, tap: &str) -> Outcome {
    let plugged: Result<(), LinkError> = middle.run(|| {
        let netlink = Netlink::new()?;
        netlink.set_master(tap, bridge)?;
        netlink.set_up(tap)
    });
    plugged.context(format_args!("cannot plug {tap} into {bridge}"))
}

/// Makes a TAP of the router, which is in `middle`, a host's NIC.
pub fn give_tap(middle: &Namespace, tap: &str, (host, address): (&Namespace, Cidr)) -> Outcome {
    let given: Result<(), LinkError> =
        middle.run(|| Netlink::new()?.move_to_namespace(tap, host.fd())).and_then(|()| {
            host.run(|| {
                let netlink = Netlink::new()?;
                netlink.set_up(tap)?;
                netlink.add_address(tap, address)
            })
        });
    given.context(format_args!("cannot make {tap} a host's NIC"))
}

/// One end of a cable: where, what it is called, its address with prefix length.
pub type End<'n> = (&'n Namespace, &'static str, &'static str);

/// Connects two namespaces.
pub fn cable(one: End<'_>, other: End<'_>, mtu: u32) -> Outcome {
    one.0.run(|| Netlink::new()?.create_veth(one.1, other.1, Some(other.0.fd())))?;
    for (namespace, name, address) in [one, other] {
        namespace.run(|| {
            let netlink = Netlink::new()?;
            netlink.set_mtu(name, mtu)?;
            netlink.set_up(name)?;
            netlink.add_address(name, cidr(address))
        })?;
    }
    Ok(())
}

/// Adds a route that nothing else depends on.
pub fn add_route(namespace: &Namespace, to: &str, via: &str) -> Outcome {
    let via: Ipv4Addr = via.parse()?;
    let added: Result<(), LinkError> =
        namespace.run(|| Netlink::new()?.add_route(cidr(to), via.into()));
    added.context(format_args!("no route to {to} via {via}"))
}

/// Makes a namespace a router that tells nobody of better ones.
pub fn make_router(namespace: &Namespace) -> Outcome {
    namespace.write_sysctl("net/ipv4/ip_forward", "1")?;
    for scope in ["all", "default", "eth0"] {
        let sysctl = format!("net/ipv4/conf/{scope}/send_redirects");
        match namespace.write_sysctl(&sysctl, "0") {
            // Not every namespace has a device of that name.
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error.into()),
            Ok(()) | Err(_) => {}
        }
    }
    Ok(())
}
