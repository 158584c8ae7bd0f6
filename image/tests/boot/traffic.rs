//! Packets through the machine: NAT, direct routing, macvtap; and what a dead router does to them.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, Shutdown};
use std::thread;
use std::time::{Duration, Instant};

use crate::qemu::trial;
use libtest_mimic::Trial;
use netns_tests::cable::{plug, within};
use netns_tests::harness::say;
use netns_tests::tcp::{Client, EchoServer, connect, noise};
use netns_tests::{
    Context as _, Failure, Outcome, SERVER_NIC, VIP, ensure, eventually, raw, silent_namespace,
};
use tapvs::links::Netlink;
use tapvs_image::{disk, manifest};

use crate::network::{NIC, Network, OUTSIDE, nat, nat_with};
use crate::qemu::{Boot, PATIENCE, UEFI_MEMORY, Vm, image};

/// Of the download.
const BYTES: usize = 50_000_000;
/// From PID 1 to the first forwarded frame, in millions: of nanoseconds, and so a second, by the machine's
/// clock. What the machine waits for others counts too.
const INSTRUCTIONS: u64 = 1_000;
const ROUTER: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 2);

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        trial("traffic::nat_by_the_file_on_the_system_partition", by_partition),
        trial("traffic::the_first_frame_takes_few_instructions", by_instructions),
        trial("traffic::a_router_that_is_killed_comes_back", killed),
        trial("traffic::direct_routing", direct),
        trial("traffic::macvtap_with_the_nics_own_address", macvtap),
    ]
}

fn by_partition() -> Outcome {
    let network = Network::new()?;
    let mut bytes = fs::read(image("tapvs.raw"))?;
    disk::edit(&mut bytes, &[("tapvs.toml", nat("").as_bytes())]).context("the partition")?;
    let path = network.scratch.path().join("edited.raw");
    fs::write(&path, bytes)?;
    let vm = network.machine(0, Boot::Uefi(path), UEFI_MEMORY, Vec::new())?;
    network.answers(ROUTER)?;
    let servers = (0..6)
        .map(|_| Client::connect(&network.client, (VIP, 80)).map(|client| client.server))
        .collect::<Outcome<std::collections::BTreeSet<_>>>()?;
    ensure!(servers.len() == 3, "only {servers:?} were asked");
    vm.wait_for(&["system partition (vda1)", "3 of 3 up", "; first frame "])?;
    first_frame(&vm)?;
    download(&network)
}

/// The guest's own clock, from PID 1 to the first frame that was forwarded.
fn first_frame(vm: &Vm) -> Outcome<u64> {
    let text = vm.screen();
    let (_, after) = text.split_once("; first frame ").unwrap_or_default();
    let ms: u64 = after.split(' ').next().unwrap_or_default().parse().unwrap_or(u64::MAX);
    let (used, age) = (vm.processor_time()?, vm.age());
    say(format_args!(
        "PID 1 to the first forwarded frame: {ms} ms by the guest's clock ({used:?} of {age:?})"
    ));
    ensure!(ms < 60_000, "no figure on the console:\n{text}");
    Ok(ms)
}

/// Here the machine's clock counts instructions, so the figure is the same however busy the computer is,
/// but for the time that the machine waits for others: that is the computer's own.
fn by_instructions() -> Outcome {
    let ms = boot_to_first_frame(Boot::Counted)?;
    ensure!(ms <= INSTRUCTIONS, "{ms} million instructions, more than {INSTRUCTIONS}");
    Ok(())
}

/// With a client that asks all the time, and asks for the address every 50 ms: it must not be what is
/// waited for.
fn boot_to_first_frame(boot: Boot) -> Outcome<u64> {
    let network = Network::new()?;
    network.client.write_sysctl(&format!("net/ipv4/neigh/{NIC}/retrans_time_ms"), "50")?;
    let disk = network.disk("config", &nat(""))?;
    let vm = network.machine(0, boot, 160, vec![disk])?;
    let attempt = || connect(&network.client, (VIP, 80), Duration::from_millis(100)).is_ok();
    ensure!(eventually(PATIENCE, attempt), "no service; the console shows:\n{}", vm.screen());
    vm.wait_for(&["; first frame "])?;
    first_frame(&vm)
}

/// 50 MB from a server to the client and nothing else on the wire; the hash is of what was sent.
fn download(network: &Network) -> Outcome {
    let mut client = Client::connect(&network.client, (VIP, 80))?;
    let data = noise(BYTES, 7);
    let expected = manifest::sha256(&data);
    let start = Instant::now();
    let mut writer = client.stream.try_clone()?;
    let sender = thread::spawn(move || {
        writer.write_all(&data).and_then(|()| writer.shutdown(Shutdown::Write))
    });
    let mut back = Vec::with_capacity(BYTES);
    client.stream.set_read_timeout(Some(PATIENCE))?;
    client.stream.read_to_end(&mut back).context("the download")?;
    sender.join().map_err(|_| Failure::new("the sender panicked"))?.context("sending")?;
    let found = manifest::sha256(&back);
    let seconds = start.elapsed().as_secs_f64();
    let rate = back.len() as f64 / seconds / 1e6;
    say(format_args!(
        "{} bytes there and back in {seconds:.1} s, {rate:.1} MB/s each way",
        back.len()
    ));
    ensure!(found == expected, "{} bytes came with another hash", back.len());
    Ok(())
}

/// By the rescue shell, which is nowhere without those words on the kernel's command line.
fn killed() -> Outcome {
    let network = Network::new()?;
    let disk = network.disk("config", &nat(""))?;
    let mut vm = network.machine(0, Boot::Direct("tapvs.rescue"), 160, vec![disk])?;
    vm.wait_for(&["Rescue shell"])?;
    network.answers(ROUTER)?;
    for round in 1..=2 {
        vm.type_line("killall -9 tapvs; echo killed $?")?;
        vm.wait_for(&["killed 0"])?;
        network.answers(ROUTER)?;
        let back = eventually(PATIENCE, || {
            Client::connect(&network.client, (VIP, 80))
                .and_then(|mut c| c.both_ways(10_000))
                .is_ok()
        });
        ensure!(back, "no service after kill {round}");
        vm.type_line("clear")?;
    }
    vm.type_line("exit")?;
    vm.wait_for(&["restarted 2 times", "router running"])?;
    Ok(())
}

/// Client, machine and server in one network; the server has the virtual IP and answers by itself.
fn direct() -> Outcome {
    let network = Network::new()?;
    let server = silent_namespace()?;
    let address = Ipv4Addr::new(203, 0, 113, 31);
    plug((&network.middle, OUTSIDE, "dr0"), (&server, SERVER_NIC, within(address, 24)))?;
    for (key, value) in [("arp_ignore", "1"), ("arp_announce", "2")] {
        server.write_sysctl(&format!("net/ipv4/conf/all/{key}"), value)?;
    }
    server.run(|| Netlink::new()?.add_address("lo", within(VIP, 32)))?;
    let _echo = EchoServer::start(&server, (VIP, 80), "dr0")?;
    let text = format!(
        r#"[[network]]
name = "lan"
links = [{{ tap = "tapvs0", attach = "52:54:00:00:00:00" }}]
addresses = ["{ROUTER}/24"]

[[virtual_ip]]
address = "{VIP}"
network = "lan"

[[service]]
name = "web"
protocol = "tcp"
address = "{VIP}"
port = 80
method = "direct"

[[service.server]]
address = "{address}"
port = 80
"#
    );
    let disk = network.disk("config", &text)?;
    let vm = network.machine(0, Boot::Direct(""), 160, vec![disk])?;
    vm.ready()?;
    network.answers(ROUTER)?;
    let mut client = Client::connect(&network.client, (VIP, 80))?;
    ensure!(client.server == "dr0", "{} answered", client.server);
    ensure!(client.seen_as.ip().to_string() == "203.0.113.100", "seen as {}", client.seen_as);
    client.both_ways(1_000_000)
}

/// By MAC on one side, by PCI address on the other; the neighbours learn the NICs' own addresses.
fn macvtap() -> Outcome {
    let network = Network::new()?;
    let text = nat_with(
        "tap = \"tapvs0\", attach = { nic = \"52:54:00:00:00:00\", mode = \"macvtap\" }",
        "tap = \"tapvs1\", attach = { nic = \"eth1\", mode = \"macvtap\" }",
        "",
    );
    let disk = network.disk("config", &text)?;
    let mut vm = network.machine(0, Boot::Direct("tapvs.rescue"), 160, vec![disk])?;
    network.answers(ROUTER)?;
    let neighbours = network.client.run(|| Netlink::new()?.neighbours(NIC))?;
    let mac = neighbours.iter().find(|n| n.address == std::net::IpAddr::V4(ROUTER)).map(|n| n.mac);
    let mac = mac.map(|mac| mac.map(|mac| mac.to_string()));
    let nics = Some(Some("52:54:00:00:00:00".to_owned()));
    ensure!(mac == nics, "{ROUTER} has the MAC {mac:?}");
    Client::connect(&network.client, (VIP, 80))?.both_ways(1_000_000)?;
    // What a killed router leaves behind does not keep the next one from starting.
    vm.wait_for(&["Rescue shell"])?;
    vm.type_line("killall -9 tapvs; echo killed $?")?;
    vm.wait_for(&["killed 0"])?;
    let back = eventually(PATIENCE, || {
        raw::ping(&network.client, ROUTER, 56).is_ok()
            && Client::connect(&network.client, (VIP, 80))
                .and_then(|mut c| c.both_ways(10_000))
                .is_ok()
    });
    ensure!(back, "no service after the kill; the console shows:\n{}", vm.screen());
    Ok(())
}
