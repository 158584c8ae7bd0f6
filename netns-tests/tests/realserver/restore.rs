//! What `undo` restores and what it leaves, what `print` prints, and what `check` sees.

use std::net::Ipv4Addr;
use std::process::Command;

use libtest_mimic::Trial;
use netns_tests::harness::trial;
use netns_tests::{Outcome, ensure, tapvs};

use crate::program::{output, shell, text};
use crate::server::{NIC, Site, same};

const METHODS: [&str; 4] = ["sysctl", "arptables", "nft", "redirect"];

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        trial("the_printed_commands_do_what_apply_and_undo_do", printed),
        trial("undo_restores_values_that_were_not_the_default", other_values),
        trial("undo_leaves_what_somebody_else_changed_since", changed_since),
        trial("undo_of_one_virtual_ip_keeps_the_other", one_of_two),
        trial("namespaces_do_not_share_records", two_namespaces),
        trial("check_takes_the_larger_sysctl_and_sees_strict_filtering", effective_values),
    ]
}

fn printed() -> Outcome {
    for method in METHODS {
        let site = Site::new()?;
        let before = site.snapshot()?;
        let arguments = ["--method", method, "--vip", "10.0.0.10", "203.0.113.10", "--port", "80"];
        site.succeed(&[&["apply"], &arguments[..]].concat())?;
        let applied = site.snapshot()?;
        site.succeed(&["undo"])?;
        let script = |part| site.succeed(&[&["print", "--part", part], &arguments[..]].concat());
        // The shell's memory is a file in /run, which all namespaces share: one of this trial.
        let memory = site.scratch.path().join("memory");
        let here = |text: String| {
            text.replace("/run/tapvs-realserver-eth0.sysctl", &memory.display().to_string())
        };
        shell(&site.server, &here(script("apply")?), None)?;
        same(&format!("{method} by a shell"), &applied, &site.snapshot()?)?;
        shell(&site.server, &here(script("undo")?), None)?;
        same(&format!("undo of {method} by a shell"), &before, &site.snapshot()?)?;
        ensure!(!memory.exists(), "{method}: {} is left", memory.display());
    }
    Ok(())
}

fn other_values() -> Outcome {
    let site = Site::new()?;
    for (path, value) in
        [("all/arp_announce", "1"), ("eth0/arp_ignore", "3"), ("all/arp_ignore", "2")]
    {
        site.server.write_sysctl(&format!("net/ipv4/conf/{path}"), value)?;
    }
    shell(&site.server, "ip address add 203.0.113.10/32 dev lo", None)?;
    let before = site.snapshot()?;
    site.succeed(&["apply", "--method", "sysctl", "--vip", "10.0.0.10", "203.0.113.10"])?;
    let after = site.snapshot()?;
    for line in
        ["all/arp_announce 2", "eth0/arp_announce 2", "eth0/arp_ignore 1", "all/arp_ignore 2"]
    {
        ensure!(after.contains(line), "no `{line}` in\n{after}");
    }
    site.succeed(&["undo"])?;
    same("undo", &before, &site.snapshot()?)?;
    Ok(())
}

fn changed_since() -> Outcome {
    let site = Site::new()?;
    site.succeed(&["apply", "--method", "sysctl", "--vip", "10.0.0.10"])?;
    site.server.write_sysctl("net/ipv4/conf/all/arp_ignore", "2")?;
    shell(&site.server, "ip address del 10.0.0.10/32 dev lo", None)?;
    let said = site.succeed(&["undo"])?;
    ensure!(said.contains("left") && said.contains("it is 2 now"), "{said}");
    ensure!(said.contains("was gone  10.0.0.10/32 on lo"), "{said}");
    let after = site.snapshot()?;
    for line in ["all/arp_ignore 2", "eth0/arp_ignore 0", "all/arp_announce 0"] {
        ensure!(after.contains(line), "no `{line}` in\n{after}");
    }
    Ok(())
}

fn one_of_two() -> Outcome {
    for method in METHODS {
        let site = Site::new()?;
        let before = site.snapshot()?;
        let apply = ["apply", "--method", method, "--port", "80", "--vip", "10.0.0.10"];
        site.succeed(&apply)?;
        let first = site.snapshot()?;
        site.succeed(&[&apply[..], &["203.0.113.10"]].concat())?;
        ensure!(site.snapshot()? != first, "{method}: a second virtual IP changed nothing");
        site.succeed(&["undo", "--vip", "203.0.113.10"])?;
        same(&format!("{method}, undo of one"), &first, &site.snapshot()?)?;
        let said = site.realserver(&["undo", "--vip", "203.0.113.10"])?;
        let clear = said.words.contains("203.0.113.10 was not applied");
        ensure!(said.code == Some(1) && clear, "{said:?}");
        site.succeed(&["undo", "--vip", "10.0.0.10"])?;
        same(&format!("undo of {method}"), &before, &site.snapshot()?)?;
    }
    Ok(())
}

fn two_namespaces() -> Outcome {
    let (one, other) = (Site::new()?, Site::new()?);
    one.succeed(&["apply", "--method", "sysctl", "--vip", "10.0.0.10"])?;
    // One folder for both, as /run is.
    let mut command = Command::new(tapvs());
    command.args(["realserver", "undo", "--state-directory"]).arg(one.state());
    let output = output(&other.server, &mut command)?;
    let words = text(&output.stderr);
    ensure!(output.status.code() == Some(1), "the other namespace undid it: {words}");
    ensure!(words.contains("in this network namespace"), "{words}");
    one.succeed(&["undo"]).map(drop)
}

fn effective_values() -> Outcome {
    let site = Site::new()?;
    let vip: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 10);
    shell(&site.server, &format!("ip address add {vip}/32 dev lo"), None)?;
    let set =
        |path: &str, value: &str| site.server.write_sysctl(&format!("net/ipv4/conf/{path}"), value);
    let check = ["check", "--method", "sysctl", "--vip", "10.0.0.10"];
    // (all, eth0) of arp_ignore, of arp_announce, and whether that is right.
    for (ignore, announce, right) in [
        (("0", "0"), ("2", "0"), false),
        (("0", "1"), ("2", "0"), true),
        (("1", "0"), ("0", "2"), true),
        (("1", "3"), ("2", "2"), false),
        (("1", "1"), ("1", "1"), false),
    ] {
        set("all/arp_ignore", ignore.0)?;
        set("eth0/arp_ignore", ignore.1)?;
        set("all/arp_announce", announce.0)?;
        set("eth0/arp_announce", announce.1)?;
        let said = site.realserver(&check)?;
        ensure!((said.code == Some(0)) == right, "{ignore:?} {announce:?}: {said:?}");
        // The kernel agrees about who answers.
        let answers = site.who_has(vip)?;
        let quiet = matches!(ignore, ("0", "1") | ("1", "0" | "1"));
        ensure!((answers == 0) == quiet, "{ignore:?}: {answers} answers");
    }
    set("all/arp_announce", "2")?;
    set("eth0/rp_filter", "1")?;
    site.succeed(&check)?;
    let other = "ip link add other type veth peer name rehto; ip link set other up; \
                 ip link set rehto up; ip address add 10.9.9.1/24 dev other; \
                 ip route add default via 10.9.9.9";
    shell(&site.server, other, None)?;
    let said = site.realserver(&check)?;
    let named =
        said.out.contains("in the way  rp_filter = 1 on eth0") && said.out.contains("other");
    ensure!(said.code == Some(1) && named, "{said:?}");
    set("eth0/rp_filter", "2")?;
    site.succeed(&check)?;
    shell(&site.server, &format!("ip link set {NIC} down"), None)?;
    let said = site.realserver(&check)?;
    ensure!(said.code == Some(1) && said.out.contains("it is down"), "{said:?}");
    Ok(())
}
