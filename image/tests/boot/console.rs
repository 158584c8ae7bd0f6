//! The consoles: what they show, and what may be typed.

use std::fs;

use crate::qemu::trial;
use libtest_mimic::Trial;
use netns_tests::{Outcome, ensure, eventually, http};

use crate::network::{Network, nat};
use crate::qemu::{Boot, PATIENCE, UEFI_MEMORY, Vm, image};

/// So many pixels are letters; fewer are a cursor.
const LETTERS: usize = 5_000;

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        trial("console::commands_of_the_router_can_be_typed_and_no_others", commands),
        trial("console::the_screen_of_the_machine_shows_the_same", screen),
    ]
}

fn commands() -> Outcome {
    let network = Network::new()?;
    let text = nat("[status]\nlisten = \"203.0.113.2:9180\"\ntoken_file = \"/etc/tapvs/token\"\n");
    let files: [(&str, &[u8]); 2] =
        [("tapvs.toml", text.as_bytes()), ("token", b"0123456789abcdef-secret\n")];
    let disk = network.disk_with("config", &files)?;
    let mut vm = network.machine(0, Boot::Direct(""), 160, vec![disk])?;
    let screen = vm.wait_for(&["203.0.113.10", "3 of 3 up", "disk TAPVS (vda)", "reload"])?;
    ensure!(!screen.contains("role"), "no pair, and yet a role:\n{screen}");
    for (line, words) in [
        ("tapvs status", ["router      lvs1", "frames"]),
        ("drain web 10.0.0.11:8080", ["drained", "generation 2"]),
        ("nics", ["virtio_net", "0000:00:0"]),
        ("config", ["[[service.server]]", "10.0.0.13"]),
        ("sh", ["not a command here", "poweroff, reboot"]),
        ("tapvs run /x", ["not a command here", "trace [FILTER]"]),
    ] {
        vm.type_line(line)?;
        vm.wait_for(&words)?;
        // Back to the screen, so that the next words are the next command's.
        vm.type_line("")?;
        vm.wait_for(&["router running", "Type a command"])?;
    }
    // From elsewhere, with the token that lies beside the configuration.
    let page = http::get(&network.client, ([203, 0, 113, 2].into(), 9_180))?;
    ensure!(page.contains("POST /api/drain"), "the status page says: {page}");
    let changed = post(&network, "/api/undrain", "0123456789abcdef-secret")?;
    ensure!(changed.contains(" 200 "), "with the token: {changed}");
    let refused = post(&network, "/api/undrain", "another-secret-0123")?;
    ensure!(refused.contains(" 401 ") || refused.contains(" 403 "), "another token: {refused}");
    // Without the words on the kernel's command line there is no shell.
    ensure!(!vm.all().contains("Rescue"), "a shell was offered");
    Ok(())
}

fn post(network: &Network, path: &str, token: &str) -> Outcome<String> {
    use std::io::{Read as _, Write as _};
    let to = ([203, 0, 113, 2].into(), 9_180);
    let mut stream =
        netns_tests::tcp::connect(&network.client, to, std::time::Duration::from_secs(20))?;
    let body = "{\"service\": \"web\", \"server\": \"10.0.0.11:8080\"}";
    let length = body.len();
    write!(
        stream,
        "POST {path} HTTP/1.1\r\nHost: test\r\nAuthorization: Bearer {token}\r\n\
         Content-Length: {length}\r\nConnection: close\r\n\r\n{body}"
    )?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}

/// Its picture has letters on it; what they say is the serial console's to tell.
fn screen() -> Outcome {
    let network = Network::new()?;
    let disk = network.scratch.path().join("tapvs.raw");
    fs::copy(image("tapvs.raw"), &disk)?;
    let mut vm = network.machine(0, Boot::Uefi(disk), UEFI_MEMORY, Vec::new())?;
    vm.ready()?;
    // It is drawn after the serial console is.
    let mut lit = Ok(0);
    eventually(PATIENCE, || {
        lit = letters(&mut vm);
        !matches!(lit, Ok(..=LETTERS))
    });
    let lit = lit?;
    ensure!(lit > LETTERS, "{lit} pixels are lit on the machine's screen");
    Ok(())
}

/// How many pixels are lit now. The picture is kept, for whoever wants to see it.
fn letters(vm: &mut Vm) -> Outcome<usize> {
    let path = vm.picture("screen.ppm")?;
    drop(fs::copy(&path, image("screen.ppm")));
    Ok(lit(&fs::read(&path)?))
}

/// Bright bytes of a binary PPM.
fn lit(picture: &[u8]) -> usize {
    picture.iter().skip(20).filter(|byte| **byte > 100).count() / 3
}
