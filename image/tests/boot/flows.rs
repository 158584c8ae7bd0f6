//! A hundred thousand flows in 160 MiB.

use std::net::{Ipv4Addr, SocketAddrV4, UdpSocket};
use std::thread::sleep;
use std::time::Duration;

use crate::qemu::trial;
use libtest_mimic::Trial;
use netns_tests::harness::say;
use netns_tests::udp::UdpEchoServer;
use netns_tests::{Context as _, Outcome, VIP, ensure, eventually, server_address};

use crate::network::{Network, nat};
use crate::qemu::Boot;

const FLOWS: u64 = 100_000;
const MEMORY: u32 = 160;
const DNS: u16 = 5_353;
const ROUTER: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 2);
const STATUS: u16 = 9_180;

pub(crate) fn trials() -> Vec<Trial> {
    vec![trial("flows::a_hundred_thousand_in_160_mib", many)]
}

fn many() -> Outcome {
    let network = Network::new()?;
    let second = Ipv4Addr::new(203, 0, 113, 101);
    network.client_address(second)?;
    let server = server_address(0);
    let more = format!(
        "[status]\nlisten = \"{ROUTER}:{STATUS}\"\n\n[[service]]\nname = \"dns\"\nprotocol = \"udp\"\n\
         address = \"{VIP}\"\nport = {DNS}\n\n[[service.server]]\naddress = \"{server}\"\nport = {DNS}\n"
    );
    let text = nat(&more);
    let disk = network.disk("config", &text)?;
    let _echo = UdpEchoServer::start(&network.servers[0], (server, DNS), "s0")?;
    let vm = network.machine(0, Boot::Direct(""), MEMORY, vec![disk])?;
    vm.ready()?;
    network.answers(ROUTER)?;
    // Two addresses with 50,000 ports each; what the emulated machine loses is sent again.
    let mut sent = 0_u32;
    let mut held = 0;
    for round in 0..8 {
        for from in [netns_tests::CLIENT, second] {
            network.client.run(|| -> Outcome {
                for port in 10_000..60_000_u16 {
                    let Ok(socket) = UdpSocket::bind(SocketAddrV4::new(from, port)) else {
                        continue;
                    };
                    drop(socket.send_to(b"?", (VIP, DNS)));
                    sent += 1;
                    if sent.is_multiple_of(64) {
                        sleep(Duration::from_millis(12));
                    }
                }
                Ok(())
            })?;
        }
        held = flows(&network)?;
        say(format_args!("after round {round}: {held} flows"));
        if held >= FLOWS * 99 / 100 {
            break;
        }
    }
    ensure!(held >= FLOWS * 99 / 100, "{held} flows of {FLOWS}");
    // And it still works.
    ensure!(
        eventually(Duration::from_secs(30), || network.answers_now(ROUTER)),
        "no ping any more"
    );
    let screen = vm.ready()?;
    ensure!(!screen.contains("restarted"), "the router died of it:\n{screen}");
    Ok(())
}

fn flows(network: &Network) -> Outcome<u64> {
    use std::io::{Read as _, Write as _};
    let mut stream =
        netns_tests::tcp::connect(&network.client, (ROUTER, STATUS), Duration::from_secs(30))?;
    stream.write_all(b"GET /api/status HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n")?;
    let mut text = String::new();
    stream.read_to_string(&mut text).context("no answer")?;
    let body = text.split_once("\r\n\r\n").map_or("", |(_, body)| body);
    let status: serde_json::Value = serde_json::from_str(body)?;
    let flows = status.pointer("/status/flows").and_then(serde_json::Value::as_u64);
    flows.ok_or_else(|| netns_tests::Failure::new(format!("no flows in {body}")))
}
