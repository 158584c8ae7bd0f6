//! What the machine lacks is said before anything is changed; what fails half-way is undone.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;

use libtest_mimic::Trial;
use netns_tests::harness::{say, trial};
use netns_tests::{Outcome, ensure, tapvs};

use crate::program::{find, output, shell, text};
use crate::server::{NIC, Said, Site, same};

const METHODS: [&str; 4] = ["sysctl", "arptables", "nft", "redirect"];
const SERVICE: [&str; 4] = ["--vip", "10.0.0.10", "--port", "80"];

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        trial("a_missing_program_is_named", no_program),
        trial("a_kernel_without_the_table_is_named", no_table),
        trial("a_program_that_fails_half_way_leaves_nothing", half_way),
        trial("a_wrong_interface_or_address_is_named_with_the_right_ones", no_interface),
        trial("a_virtual_ip_in_the_wrong_place_is_named", wrong_place),
        trial("a_read_only_proc_sys_is_named", read_only),
        trial("an_ordinary_user_is_told_to_be_root", no_root),
    ]
}

/// Refused with these words and this code, nothing changed and nothing remembered.
fn refused(site: &Site, method: &str, more: &[&str], words: &[&str]) -> Outcome {
    let before = site.snapshot()?;
    let said = site.realserver(&[&["apply", "--method", method], &SERVICE[..], more].concat())?;
    unchanged(site, &before, &said, words)
}

fn unchanged(site: &Site, before: &str, said: &Said, words: &[&str]) -> Outcome {
    ensure!(said.code == Some(1), "{said:?}");
    for word in words {
        ensure!(said.words.contains(word), "no `{word}` in {said:?}");
    }
    same("what was refused", before, &site.snapshot()?)?;
    let left = fs::read_dir(site.state()).map_or(0, Iterator::count);
    ensure!(left == 0, "refused, and yet it remembers something");
    Ok(())
}

fn no_program() -> Outcome {
    let site = Site::new()?;
    for (method, program) in [("arptables", "arptables"), ("nft", "nft"), ("redirect", "nft")] {
        let before = site.snapshot()?;
        // In a mount namespace without administrators' programs.
        let line = format!(
            "for folder in /usr/local/sbin /usr/sbin /sbin; do \
                 if [ -d $folder ]; then mount -t tmpfs none $folder; fi; done; \
             exec {} realserver apply --method {method} --state-directory {} {}",
            tapvs().display(),
            site.state().display(),
            SERVICE.join(" ")
        );
        let mut command = Command::new("unshare");
        command.args(["--mount", "sh", "-e", "-c", &line]).env("PATH", "/usr/bin:/bin");
        let output = output(&site.server, &mut command)?;
        let said = Said {
            code: output.status.code(),
            out: text(&output.stdout),
            words: text(&output.stderr),
        };
        let named = format!("needs the program `{program}`, which is not installed");
        unchanged(&site, &before, &said, &[&named, "nothing was changed"])?;
    }
    Ok(())
}

fn no_table() -> Outcome {
    for (method, program, why) in [
        ("arptables", "arptables", "can't initialize arptables table `filter'"),
        ("nft", "nft", "Error: Could not process rule: Not supported"),
        ("redirect", "nft", "Error: Could not process rule: Not supported"),
    ] {
        let mut site = Site::new()?;
        let before = site.snapshot()?;
        let folder = site.scratch.path().join("programs");
        script(&folder, program, &format!("echo \"{}\" >&2; exit 1", why.replace('`', "\\`")))?;
        site.programs = Some(folder);
        let said = site.realserver(&[&["apply", "--method", method], &SERVICE[..]].concat())?;
        site.programs = None;
        let words =
            [&format!("{method} does not work on this machine"), why, "nothing was changed"];
        unchanged(&site, &before, &said, &words)?;
    }
    Ok(())
}

/// The n-th change that a program is asked for fails, for every n until all succeed.
fn half_way() -> Outcome {
    for (method, program, change) in [
        ("arptables", "arptables", "-I"),
        ("nft", "nft", "-f -|add element"),
        ("redirect", "nft", "-f -|add element"),
    ] {
        let mut site = Site::new()?;
        let before = site.snapshot()?;
        let real = find(program).map(|path| path.display().to_string()).unwrap_or_default();
        let count = site.scratch.path().join("count");
        let folder = site.scratch.path().join("programs");
        let mut failures = 0;
        for at in 1.. {
            ensure!(at < 20, "{method}: it never succeeds");
            let body = format!(
                "if echo \"$*\" | grep -qE -e '^({change})'; then\n\
                     echo x >>{count}\n\
                     if [ $(wc -l <{count}) = {at} ]; then echo 'no, not this time' >&2; exit 1; fi\n\
                 fi\nexec {real} \"$@\"",
                count = count.display(),
            );
            fs::write(&count, "")?;
            script(&folder, program, &body)?;
            site.programs = Some(folder.clone());
            let two = ["--vip", "10.0.0.10", "203.0.113.10", "--port", "80"];
            let said = site.realserver(&[&["apply", "--method", method], &two[..]].concat())?;
            site.programs = None;
            if said.code == Some(0) {
                break;
            }
            unchanged(&site, &before, &said, &["no, not this time"])?;
            failures += usize::from(said.words.contains("what was done before it is undone"));
        }
        // Every change but those of the rehearsal.
        let expected = if program == "arptables" { 4 } else { 3 };
        ensure!(failures == expected, "{method}: {failures} of {expected} changes failed");
        site.succeed(&["undo"])?;
        same(&format!("undo of {method}"), &before, &site.snapshot()?)?;
    }
    Ok(())
}

fn no_interface() -> Outcome {
    let site = Site::new()?;
    for method in METHODS {
        let none = ["there is no interface ens3 here, but lo, eth0", "nothing was changed"];
        refused(&site, method, &["--interface", "ens3"], &none)?;
        let other = ["--address 10.0.0.12 is no address of eth0, which has 10.0.0.11"];
        refused(&site, method, &["--address", "10.0.0.12"], &other)?;
    }
    shell(&site.server, &format!("ip address flush dev {NIC}"), None)?;
    for method in METHODS {
        refused(&site, method, &[], &["eth0 has no IPv4 address of its own"])?;
    }
    Ok(())
}

fn wrong_place() -> Outcome {
    let site = Site::new()?;
    shell(&site.server, &format!("ip address add 10.0.0.10/24 dev {NIC}"), None)?;
    let remedy = "ip address del 10.0.0.10/24 dev eth0";
    refused(&site, "sysctl", &[], &["10.0.0.10 on eth0", remedy, "nothing was changed"])?;
    refused(&site, "redirect", &[], &["10.0.0.10 on eth0", remedy, "nothing was changed"])?;
    // A table of that name that says something else.
    shell(&site.server, "nft add table arp tapvs_realserver", None)?;
    refused(
        &site,
        "nft",
        &[],
        &["nft table arp tapvs_realserver is there, but not as it should be"],
    )
}

fn read_only() -> Outcome {
    let site = Site::new()?;
    let before = site.snapshot()?;
    let line = format!(
        "mount --bind /proc/sys /proc/sys; mount -o remount,bind,ro /proc/sys; \
         exec {} realserver apply --method sysctl --state-directory {} {}",
        tapvs().display(),
        site.state().display(),
        SERVICE.join(" ")
    );
    let mut command = Command::new("unshare");
    let output = output(&site.server, command.args(["--mount", "sh", "-e", "-c", &line]))?;
    let (out, words) = (text(&output.stdout), text(&output.stderr));
    let said = Said { code: output.status.code(), out, words };
    let named = ["/proc/sys/net/ipv4/conf/all/arp_ignore cannot be written", "nothing was changed"];
    unchanged(&site, &before, &said, &named)
}

fn no_root() -> Outcome {
    let map = fs::read_to_string("/proc/self/uid_map")?;
    if map.split_whitespace().nth(2) == Some("1") {
        say("there is no second user in this user namespace: NOT TESTED, needs a real root");
        return Ok(());
    }
    let site = Site::new()?;
    let before = site.snapshot()?;
    for method in METHODS {
        // A folder that an ordinary user may reach, which a build tree need not be.
        let copy = site.scratch.path().join("tapvs");
        if !copy.exists() {
            fs::copy(tapvs(), &copy)?;
        }
        // Becomes nobody inside the namespace, which only root may enter.
        let mut command = Command::new("setpriv");
        command.args(["--reuid", "65534", "--regid", "65534", "--clear-groups"]).arg(&copy);
        command.args(["realserver", "apply", "--method", method]).args(SERVICE);
        command.arg("--state-directory").arg(site.state());
        let output = output(&site.server, &mut command)?;
        let words = text(&output.stderr);
        ensure!(output.status.code() == Some(77), "{method}: {}: {words}", output.status);
        ensure!(words.contains("CAP_NET_ADMIN") && words.contains("root"), "{method}: {words}");
    }
    ensure!(site.snapshot()? == before, "an ordinary user changed something");
    Ok(())
}

/// A program that is `body`.
fn script(folder: &Path, name: &str, body: &str) -> Outcome {
    fs::create_dir_all(folder)?;
    let path = folder.join(name);
    fs::write(&path, format!("#!/bin/sh\n{body}\n"))?;
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755))?;
    Ok(())
}
