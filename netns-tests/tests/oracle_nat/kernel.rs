//! The Linux kernel as a router with NAT, between two TAPs that the test holds.

use std::io::{ErrorKind, Write as _};
use std::net::Ipv4Addr;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use netns_tests::{Context as _, Failure, Outcome, ensure, eventually, silent_namespace};
use tapvs::addr::{LinkId, MacAddr};
use tapvs::links::tap::Tap;
use tapvs::links::{LinkError, Namespace, Netlink};

use crate::support::{GATEWAY_IP, IN, OUT, ROUTER_IN, ROUTER_OUT, is_at, owner};

/// What the configuration of the other side says.
const RULES: &str = "
table ip nat {
    chain services {
        type nat hook prerouting priority dstnat;
        iifname \"out\" ip daddr 203.0.113.10 tcp dport 80 dnat to 10.0.0.11:8080
        iifname \"out\" ip daddr 203.0.113.10 udp dport 53 dnat to 10.0.0.11:5353
    }
    chain servers_out {
        type nat hook postrouting priority srcnat;
        oifname \"out\" ip saddr 10.0.0.0/24 snat to 203.0.113.10
    }
}
";
/// A frame comes out within this, on a machine that does other things too.
const PATIENCE: Duration = Duration::from_millis(500);
/// What is no answer yet after this will not come: the kernel forwards before a write returns.
const QUIET: Duration = Duration::from_millis(20);

/// The kernel's side of a case.
#[derive(Debug)]
pub(crate) struct Kernel {
    taps: [Tap; 2],
    _namespace: Namespace,
}

impl Kernel {
    /// A router with rules and without flows.
    pub(crate) fn new() -> Outcome<Self> {
        let namespace = silent_namespace()?;
        let taps = namespace.run(|| {
            let netlink = Netlink::new()?;
            let mut taps = Vec::new();
            for (name, mac, addresses) in [
                ("out", ROUTER_OUT, ["203.0.113.2/24", "203.0.113.10/32"]),
                ("in", ROUTER_IN, ["10.0.0.2/24", "10.0.0.1/32"]),
            ] {
                let tap = Tap::open(name, 1_500)?;
                netlink.set_down(name)?;
                netlink.set_mac(name, mac)?;
                netlink.set_up(name)?;
                for address in addresses {
                    netlink.add_address(name, address.parse().unwrap())?;
                }
                taps.push(tap);
            }
            netlink.add_route("0.0.0.0/0".parse().unwrap(), GATEWAY_IP.into())?;
            Ok::<_, LinkError>(taps)
        })?;
        let taps = <[Tap; 2]>::try_from(taps).map_err(|_| Failure::new("not two TAPs"))?;
        for (sysctl, value) in [
            ("ip_forward", "1"),
            ("conf/all/rp_filter", "0"),
            ("conf/out/rp_filter", "0"),
            ("conf/in/rp_filter", "0"),
            ("conf/all/send_redirects", "0"),
            ("conf/out/send_redirects", "0"),
            ("conf/in/send_redirects", "0"),
        ] {
            namespace.write_sysctl(&format!("net/ipv4/{sysctl}"), value)?;
        }
        load(&namespace, RULES)?;
        Ok(Self { taps, _namespace: namespace })
    }

    /// Hands a frame in and takes everything that leaves; the neighbours answer who-has.
    pub(crate) fn pass(&mut self, link: LinkId, frame: &[u8]) -> Outcome<Vec<(LinkId, Vec<u8>)>> {
        let tap = &self.taps[usize::from(link.0)];
        // A TAP that has just come up may not have its carrier yet.
        let written = eventually(PATIENCE, || tap.write(frame).is_ok());
        ensure!(written, "the kernel does not take the frame");
        let mut out = Vec::new();
        let mut quiet = Instant::now() + QUIET;
        while Instant::now() < quiet {
            for link in [OUT, IN] {
                while let Some(frame) = self.read(link)? {
                    quiet = Instant::now() + QUIET;
                    match frame[12..14] {
                        [8, 0] => out.push((link, frame)),
                        [8, 6] => self.answer(link, &frame)?,
                        _ => {}
                    }
                }
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        Ok(out)
    }

    fn read(&self, link: LinkId) -> Outcome<Option<Vec<u8>>> {
        let mut buffer = vec![0; 2_048];
        match self.taps[usize::from(link.0)].read(&mut buffer) {
            Ok(length) => {
                buffer.truncate(length);
                Ok((length >= 34).then_some(buffer))
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Says who has the address that is asked for.
    fn answer(&self, link: LinkId, question: &[u8]) -> Outcome {
        let address = |at: usize| {
            Ipv4Addr::new(question[at], question[at + 1], question[at + 2], question[at + 3])
        };
        let (asker, target) = (address(28), address(38));
        let Some(mac) = owner(link, target).filter(|_| question[21] == 1) else { return Ok(()) };
        let to = MacAddr([
            question[22],
            question[23],
            question[24],
            question[25],
            question[26],
            question[27],
        ]);
        let reply = is_at(target, mac, to, asker).frame();
        self.taps[usize::from(link.0)].write(&reply).context("cannot answer ARP")?;
        Ok(())
    }
}

/// Gives nft these rules in `namespace`.
pub(crate) fn load(namespace: &Namespace, rules: &str) -> Outcome {
    let mut nft = Command::new("nft");
    nft.args(["-f", "-"]).stdin(Stdio::piped()).stderr(Stdio::piped());
    let mut child = namespace.spawn(&mut nft).context("cannot start nft")?;
    let mut input = child.stdin.take().ok_or_else(|| Failure::new("nft has no input"))?;
    input.write_all(rules.as_bytes())?;
    drop(input);
    let output = child.wait_with_output()?;
    let words = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "nft refused the rules: {words}");
    Ok(())
}
