//! TAPs that others left behind, kernels and policies that refuse, and UDP datagrams that travel together.

use std::collections::BTreeMap;
use std::net::UdpSocket;
use std::thread;
use std::time::Duration;

use libtest_mimic::Trial;
use netns_tests::harness::{built_trial, rig_trial, trial};
use netns_tests::tap::leave_offloading;
use netns_tests::tcp::{Client, noise};
use netns_tests::{
    CLIENT, CLIENT_TAP, Context as _, Failure, Hosts, Outcome, Rig, SERVERS_TAP, Service, VIP,
    cable_router, cable_servers, config, ensure, mode, server_address, udp,
};
use nix::libc;
use nix::sys::socket::{setsockopt, sockopt::UdpGsoSegment};
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule, TargetArch,
};

use crate::nat::echo_servers;

/// Of a transfer each way, in bytes: many times what a TAP's queue holds.
const SIZE: usize = 8 << 20;
/// Datagrams that travel together, and the bytes of each.
const DATAGRAMS: usize = 12;
const DATAGRAM: usize = 1_000;

pub(crate) fn trials() -> Vec<Trial> {
    let dns = || vec![Service::udp(53).server(0, 53, 1)];
    vec![
        built_trial("a_tap_left_with_offloads_carries_plain_frames", left_behind, transfers),
        rig_trial("udp_segments_cross_together_and_count_each", dns, udp_segments),
        trial("where_offloads_and_io_uring_are_forbidden_all_arrives", forbidden),
    ]
}

fn web() -> Vec<Service> {
    vec![Service::tcp(80).three(8080)]
}

/// Both TAPs are there before the router, as a virtual machine left them.
fn left_behind() -> Outcome<Rig> {
    let before = |hosts: &Hosts| {
        cable_servers(&hosts.middle, &hosts.servers)?;
        hosts.middle.run(|| {
            leave_offloading(CLIENT_TAP)?;
            leave_offloading(SERVERS_TAP)
        })
    };
    let after = |hosts: &Hosts| cable_router(&hosts.middle, &hosts.client);
    Rig::cabled(before, |folder| mode::without_offload(&config(folder, &web())), after)
}

fn transfers(rig: &mut Rig) -> Outcome {
    let _servers = echo_servers(rig, 8080)?;
    Client::connect(&rig.client, (VIP, 80))?.both_ways(SIZE)?;
    let report = rig.router.report()?;
    let link = report.link(CLIENT_TAP)?;
    let longest = link.bytes_in / link.frames_in;
    ensure!(longest <= 1_514, "frames of {longest} bytes came in, on average:\n{report}");
    Ok(())
}

fn udp_segments(rig: &mut Rig) -> Outcome {
    let server = rig.servers[0].run(|| UdpSocket::bind((server_address(0), 53)))?;
    server.set_read_timeout(Some(Duration::from_secs(2)))?;
    let client = udp::client(&rig.client, CLIENT, (VIP, 53))?;
    // The first packet makes the neighbours known.
    client.send(b"hello")?;
    let mut buffer = vec![0; 65_536];
    let (_, client_there) = server.recv_from(&mut buffer).context("the first datagram")?;
    let before = rig.router.report()?;

    let size = i32::try_from(DATAGRAM)?;
    let there = noise(DATAGRAMS * DATAGRAM, 1);
    setsockopt(&client, UdpGsoSegment, &size).context("the kernel has no UDP_SEGMENT")?;
    client.send(&there)?;
    ensure!(received(&server)? == there, "the server got other bytes");
    let back = noise(DATAGRAMS * DATAGRAM, 2);
    setsockopt(&server, UdpGsoSegment, &size)?;
    server.send_to(&back, client_there)?;
    ensure!(received(&client)? == back, "the client got other bytes");

    let after = rig.router.report()?;
    let count = |report: &netns_tests::Report| report.service("udp", &format!("{VIP}:53"));
    let (was, is) = (count(&before)?, count(&after)?);
    let packets = (is.packets_in - was.packets_in, is.packets_out - was.packets_out);
    ensure!(packets == (DATAGRAMS as u64, DATAGRAMS as u64), "counted {packets:?}:\n{after}");
    let frames = after.link(CLIENT_TAP)?.frames_in - before.link(CLIENT_TAP)?.frames_in;
    let together = rig.router.log().iter().any(|line| {
        line.contains("the link is set up")
            && line.contains(&format!("link={CLIENT_TAP} "))
            && line.contains("offload=tcp+udp")
    });
    if together {
        ensure!(frames < DATAGRAMS as u64, "{frames} frames came in, one for each datagram");
    } else {
        ensure!(frames >= DATAGRAMS as u64, "{frames} frames came in without an offload for UDP");
    }
    Ok(())
}

/// What came in as that many datagrams of that size.
fn received(socket: &UdpSocket) -> Outcome<Vec<u8>> {
    let mut all = Vec::new();
    let mut buffer = vec![0; 65_536];
    for number in 0..DATAGRAMS {
        let length = socket.recv(&mut buffer).context(format_args!("datagram {number}"))?;
        ensure!(length == DATAGRAM, "datagram {number} has {length} bytes");
        all.extend_from_slice(&buffer[..length]);
    }
    Ok(all)
}

/// As in a container with a strict policy, on an old kernel.
fn forbidden() -> Outcome {
    // The policy is the thread's and what it starts; the router lives no longer than the thread.
    thread::scope(|scope| {
        let trial = scope.spawn(|| {
            forbid(libc::SYS_io_uring_setup, vec![], libc::EPERM)?;
            let some_offload =
                [(1, libc::TUNSETOFFLOAD, SeccompCmpOp::Eq), (2, 0, SeccompCmpOp::Ne)];
            forbid(libc::SYS_ioctl, some_offload.to_vec(), libc::EINVAL)?;
            refused()
        });
        trial.join().map_err(|_| Failure::new("the trial panicked"))?
    })
}

fn refused() -> Outcome {
    let as_by_default = |text: String| {
        text.lines()
            .filter(|line| !line.starts_with("io = ") && !line.starts_with("offload = "))
            .map(|line| format!("{line}\n"))
            .collect::<String>()
    };
    let mut rig = Rig::configured(|folder| as_by_default(config(folder, &web())))?;
    for words in [
        &["no io_uring here; every frame costs a system call"][..],
        &["how frames are moved", "io=syscall"],
        &["the kernel refuses offloads; frames are plain", "link=tapvs1"],
        &["the link is set up", "link=tapvs1", "offload=off"],
    ] {
        rig.router.wait_for(0, words)?;
    }
    transfers(&mut rig)?;
    rig.router.stop()?;
    Ok(())
}

/// Makes a system call fail from now on where all its arguments in question are as said.
fn forbid(call: libc::c_long, with: Vec<(u8, u64, SeccompCmpOp)>, errno: i32) -> Outcome {
    let condition =
        |(number, value, how)| SeccompCondition::new(number, SeccompCmpArgLen::Dword, how, value);
    let conditions = with.into_iter().map(condition).collect::<Result<Vec<_>, _>>()?;
    let rules = if conditions.is_empty() { vec![] } else { vec![SeccompRule::new(conditions)?] };
    let filter = SeccompFilter::new(
        BTreeMap::from([(call, rules)]),
        SeccompAction::Allow,
        SeccompAction::Errno(errno.unsigned_abs()),
        TargetArch::try_from(std::env::consts::ARCH)?,
    )?;
    let program: BpfProgram = filter.try_into()?;
    seccompiler::apply_filter(&program)?;
    Ok(())
}
