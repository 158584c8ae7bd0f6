//! Each method: silent after `apply`, served by direct routing, as before after `undo`.

use std::net::Ipv4Addr;
use std::path::Path;

use libtest_mimic::Trial;
use netns_tests::harness::{say, trial};
use netns_tests::tcp::EchoServer;
use netns_tests::udp::UdpEchoServer;
use netns_tests::{Outcome, ensure, silent_namespace};

use crate::program::{arptables, name_it, shell};
use crate::server::{CLIENT, NIC, RIP, Site, TCP_PORT, UDP_PORT, VIPS, same};

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        trial("a_stock_server_gives_the_virtual_ip_away", stock),
        trial("sysctl_keeps_a_server_silent_and_served", || silent_and_served("sysctl", None)),
        trial("arptables_keeps_a_server_silent_and_served", with_arptables),
        trial("nft_keeps_a_server_silent_and_served", || silent_and_served("nft", None)),
        trial("redirect_keeps_a_server_silent_and_served", || silent_and_served("redirect", None)),
    ]
}

/// The control: what the methods are for happens without them, and is seen.
fn stock() -> Outcome {
    let site = Site::new()?;
    for vip in VIPS {
        shell(&site.server, &format!("ip address add {vip}/32 dev {NIC}"), None)?;
    }
    site.is_alive()?;
    for vip in VIPS {
        let answers = site.who_has(vip)?;
        ensure!(answers == 4, "{answers} of 4 questions for {vip} were answered");
        let said = site.traffic(vip, vip)?;
        let leaked = said.iter().any(|arp| arp.sender.1 == vip);
        ensure!(leaked, "{vip} was not named as sender: {said:?}");
    }
    let said = site.realserver(&["check", "--vip", "10.0.0.10", "203.0.113.10"])?;
    let named = said.out.matches("in the way").count();
    ensure!(said.code == Some(1) && named == 2, "check found it right: {said:?}");
    Ok(())
}

/// With every arptables that is installed, or, where none works, that it is refused.
fn with_arptables() -> Outcome {
    let mut worked = 0;
    for variant in arptables() {
        let elsewhere = silent_namespace()?;
        let path = variant.display();
        match shell(
            &elsewhere,
            &format!("{path} -L -n; {path} -I INPUT -d 10.0.0.10 -j DROP"),
            None,
        ) {
            Ok(_) => {
                silent_and_served("arptables", Some(&variant))?;
                worked += 1;
                say(format_args!("arptables: {path} was tested"));
            }
            Err(why) => {
                refused(&variant)?;
                say(format_args!(
                    "arptables: {path} DOES NOT WORK ON THIS KERNEL, NOT TESTED: {why}"
                ));
            }
        }
    }
    if worked < 2 {
        let both = "arptables-legacy and arptables-nft";
        say(format_args!("arptables: {worked} tested; of {both} the other is NOT TESTED here"));
    }
    Ok(())
}

fn refused(variant: &Path) -> Outcome {
    let mut site = Site::new()?;
    let folder = site.scratch.path().join("programs");
    name_it(&folder, "arptables", variant)?;
    site.programs = Some(folder);
    let said = site.realserver(&["apply", "--method", "arptables", "--vip", "10.0.0.10"])?;
    let clear = said.words.contains("arptables does not work on this machine")
        && said.words.contains("nothing was changed");
    ensure!(said.code == Some(1) && clear, "{said:?}");
    Ok(())
}

fn silent_and_served(method: &str, variant: Option<&Path>) -> Outcome {
    let mut site = Site::new()?;
    if let Some(variant) = variant {
        let folder = site.scratch.path().join("programs");
        name_it(&folder, "arptables", variant)?;
        site.programs = Some(folder);
    }
    let before = site.snapshot()?;
    apply(&site, method)?;
    let after = site.snapshot()?;
    ensure!(after != before, "apply changed nothing that the snapshot shows");
    site.is_alive()?;
    for vip in VIPS {
        let answers = site.who_has(vip)?;
        ensure!(answers == 0, "{answers} of 4 questions for {vip} were answered");
        let said = site.traffic(vip, if method == "redirect" { RIP } else { vip })?;
        let asked =
            said.iter().any(|arp| !arp.is_reply && arp.sender.1 == RIP && arp.target == CLIENT);
        ensure!(asked, "the server never asked for the client: {said:?}");
        let leaked: Vec<_> = said.iter().filter(|arp| VIPS.contains(&arp.sender.1)).collect();
        ensure!(leaked.is_empty(), "a virtual IP was named as sender: {leaked:?}");
        // The same, now that the server has spoken with the client.
        let answers = site.who_has(vip)?;
        ensure!(answers == 0, "after traffic {answers} of 4 questions for {vip} were answered");
    }
    check(&site, method)?;
    apply(&site, method)?;
    same("the second apply", &after, &site.snapshot()?)?;
    site.succeed(&["undo", "--method", method])?;
    same("undo", &before, &site.snapshot()?)?;
    let left: Vec<_> = std::fs::read_dir(site.state())?.flatten().collect();
    ensure!(left.is_empty(), "undo left {left:?}");
    let said = site.realserver(&["undo", "--method", method])?;
    let clear = said.words.contains("nothing to undo");
    ensure!(said.code == Some(1) && clear, "a second undo: {said:?}");
    Ok(())
}

/// For both virtual IPs, TCP and UDP.
fn apply(site: &Site, method: &str) -> Outcome {
    let [a, b] = VIPS.map(|vip| vip.to_string());
    let vips = ["apply", "--method", method, "--vip", &a, "--vip", &b];
    for (protocol, port) in [("tcp", TCP_PORT), ("udp", UDP_PORT)] {
        let port = port.to_string();
        let service = ["--protocol", protocol, "--port", &port];
        site.succeed(&[&vips[..], &service[..]].concat())?;
    }
    Ok(())
}

/// All is right with a listener, named or not; without one it is missing.
fn check(site: &Site, method: &str) -> Outcome {
    let [a, b] = VIPS.map(|vip| vip.to_string());
    let without_port = ["check", "--vip", &a, &b, "--method", method];
    let tcp = ["check", "--vip", &a, &b, "--port", "80"];
    let udp = ["check", "--vip", &a, "--port", "53", "--protocol", "udp", "--method", method];
    if method != "redirect" {
        site.succeed(&without_port)?;
    }
    let said = site.realserver(&tcp)?;
    let listener = said.out.matches("a listener for tcp").count();
    let found = said.out.starts_with(&format!("{method}, {NIC}\n"));
    ensure!(said.code == Some(1) && listener == 2 && found, "nobody listens: {said:?}");
    let _tcp = EchoServer::start(&site.server, (Ipv4Addr::UNSPECIFIED, TCP_PORT), "rs")?;
    let _udp = UdpEchoServer::start(&site.server, (Ipv4Addr::UNSPECIFIED, UDP_PORT), "rs")?;
    site.succeed(&tcp)?;
    let said = site.succeed(&udp)?;
    ensure!(said.contains("IP_PKTINFO") == (method != "redirect"), "{said}");
    let json = site.succeed(&[&tcp[..], &["--json"]].concat())?;
    let right = json.contains("\"right\": true") && json.contains(&format!("\"{method}\""));
    ensure!(right, "{json}");
    Ok(())
}
