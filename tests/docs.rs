//! The pages in `docs/` name what exists: drop reasons, configuration keys, tests.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use tapvs::config;
use tapvs::dataplane::DropReason;

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap()
}

/// The cells of the table rows of a page.
fn rows(page: &str) -> impl Iterator<Item = Vec<&str>> {
    let rows = page.lines().filter(|line| line.starts_with('|'));
    rows.map(|row| row.trim_matches('|').split('|').map(str::trim).collect())
}

#[test]
fn every_example_is_valid() {
    let examples = fs::read_dir(root().join("configs")).unwrap();
    let paths = examples.map(|entry| entry.unwrap().path());
    let paths: Vec<_> = paths.filter(|path| path.extension() == Some("toml".as_ref())).collect();
    assert!(paths.len() >= 4, "{paths:?}");
    for path in paths {
        let text = fs::read_to_string(&path).unwrap();
        config::parse(&text).unwrap_or_else(|wrong| panic!("{}", wrong.display(path.display())));
    }
    // The tour's own file.
    let readme = read("README.md");
    let toml = readme.split("```toml\n").nth(1).unwrap().split("```").next().unwrap();
    config::parse(toml).unwrap_or_else(|wrong| panic!("{}", wrong.display("README.md")));
}

#[test]
fn every_key_of_the_examples_is_explained() {
    let page = read("docs/configuration.md");
    let examples = fs::read_dir(root().join("configs")).unwrap();
    let paths = examples.map(|entry| entry.unwrap().path());
    let paths = paths.filter(|path| path.extension() == Some("toml".as_ref()));
    let examples: Vec<_> = paths.map(|path| fs::read_to_string(path).unwrap()).collect();
    // A key whose default cannot be written as a value is commented out without a space.
    let lines = examples.iter().flat_map(|example| example.lines());
    let lines = lines.map(|line| line.strip_prefix('#').unwrap_or(line));
    let keys: BTreeSet<&str> = lines
        .filter_map(|line| line.split_once(" = "))
        .map(|(key, _)| key)
        .filter(|key| key.chars().all(|c| c.is_ascii_lowercase() || c == '_'))
        .collect();
    assert!(keys.len() > 20, "only {keys:?}");
    let explained = |key: &&str| !page.contains(&format!("| `{key}`"));
    let missing: Vec<_> = keys.into_iter().filter(explained).collect();
    assert!(missing.is_empty(), "docs/configuration.md has no row for {missing:?}");
}

#[test]
fn every_drop_reason_is_explained_once() {
    let page = read("docs/operations.md");
    let section = page.split("\n## ").find(|section| section.starts_with("Drop reasons")).unwrap();
    let explained: Vec<&str> =
        rows(section).filter_map(|cells| cells[0].strip_prefix('`')?.strip_suffix('`')).collect();
    for reason in DropReason::ALL {
        let times = explained.iter().filter(|name| **name == reason.name()).count();
        assert_eq!(times, 1, "docs/operations.md has {times} rows for `{reason}`");
    }
    let names: BTreeSet<_> = DropReason::ALL.iter().map(|reason| reason.name()).collect();
    let unknown: Vec<_> = explained.iter().filter(|name| !names.contains(*name)).collect();
    assert!(unknown.is_empty(), "docs/operations.md explains what does not exist: {unknown:?}");
}

/// keepalived.conf(5) of 2.2.7, about virtual servers, real servers, checkers and VRRP instances.
const KEYWORDS: &str = "\
    virtual_server virtual_server_group lvs_sched lb_algo lvs_method lb_kind sh-port sh-fallback mh-port \
    mh-fallback flag-1 flag-2 flag-3 ops protocol persistence_timeout persistence_granularity \
    persistence_engine delay_loop connect_timeout retry delay_before_retry warmup alpha omega \
    inhibit_on_failure quorum hysteresis quorum_up quorum_down sorry_server sorry_server_inhibit \
    sorry_server_lvs_method ha_suspend virtualhost smtp_alert snmp_name ip_family real_server weight \
    uthreshold lthreshold notify_up notify_down TCP_CHECK HTTP_GET SSL_GET SMTP_CHECK DNS_CHECK UDP_CHECK \
    PING_CHECK MISC_CHECK BFD_CHECK FILE_CHECK connect_ip connect_port bindto bind_if bind_port fwmark \
    log_all_failures url path status_code digest regex regex_no_match regex_options regex_stack \
    regex_min_offset regex_max_offset http_protocol fast_recovery enable_sni helo_name type name payload \
    require_reply min_reply_length max_reply_length misc_path misc_timeout misc_dynamic user track_file \
    dynamic vrrp_instance vrrp_sync_group interface state virtual_router_id priority version advert_int \
    nopreempt preempt preempt_delay virtual_ipaddress virtual_ipaddress_excluded virtual_routes \
    virtual_rules use_vmac vmac_xmit_base native_ipv6 authentication auth_type auth_pass unicast_src_ip \
    mcast_src_ip unicast_peer track_interface track_script track_process track_bfd notify_master \
    notify_backup notify_fault notify_stop notify garp_master_delay garp_master_repeat \
    garp_master_refresh garp_lower_prio_delay garp_lower_prio_repeat higher_prio_send_advert \
    lower_prio_no_advert accept no_accept strict_mode skip_check_adv_addr down_timer_adverts \
    dont_track_primary linkbeat_use_polling debug";

/// ipvsadm(8) of 1.31.
const OPTIONS: &str = "\
    --add-service --edit-service --delete-service --clear --restore --save --add-server --edit-server \
    --delete-server --list --zero --set --start-daemon --stop-daemon --tcp-service --udp-service \
    --sctp-service --fwmark-service --scheduler --persistent --netmask --pe --sched-flags --real-server \
    --gatewaying --ipip --tun-type --tun-port --tun-nocsum --tun-csum --tun-remcsum --masquerading --weight \
    --u-threshold --l-threshold --mcast-interface --syncid --sync-maxlen --mcast-group --mcast-port \
    --mcast-ttl --connection --timeout --daemon --stats --rate --thresholds --persistent-conn --tun-info \
    --sort --exact --ops --ipv6";

#[test]
fn every_word_of_ipvsadm_and_keepalived_has_a_row() {
    let page = read("docs/keepalived-compatibility.md");
    let mut listed = BTreeSet::new();
    for cells in rows(&page).filter(|cells| cells[0].contains('`')) {
        let result = cells[2];
        let reason = cells[3];
        assert!(["same", "different", "not there"].contains(&result), "{cells:?}");
        assert!(result != "same" || !cells[1].is_empty() || !reason.is_empty(), "{cells:?}");
        listed.extend(cells[0].split('`').skip(1).step_by(2).map(str::to_owned));
    }
    let words = KEYWORDS.split_whitespace().chain(OPTIONS.split_whitespace());
    let missing: Vec<_> = words.filter(|word| !listed.contains(*word)).collect();
    assert!(missing.is_empty(), "docs/keepalived-compatibility.md has no row for {missing:?}");
}

const RESULTS: [&str; 6] =
    ["passes", "partly", "differs", "later", "not tested yet", "does not apply"];

#[test]
fn every_requirement_is_listed_once_and_every_test_named_exists() {
    let page = read("docs/conformance.md");
    let sources = sources();
    let mut wrong = Vec::new();
    let expected = [("N", 21), ("A", 8), ("R", 8), ("S", 14), ("O", 35)]
        .into_iter()
        .flat_map(|(letter, last)| (1..=last).map(move |number| format!("{letter}{number}")));
    for id in expected {
        let results: Vec<_> = rows(&page)
            .filter(|cells| cells[0] == id)
            .map(|cells| *cells.last().unwrap())
            .collect();
        let [result] = results[..] else {
            wrong.push(format!("{id} has {} rows", results.len()));
            continue;
        };
        if !RESULTS.contains(&result) {
            wrong.push(format!("{id}: {result:?} is not one of {RESULTS:?}"));
        }
        let tests = tests_of(&page, &id);
        let needed = matches!(result, "passes" | "partly" | "differs");
        if needed && tests.is_empty() {
            wrong.push(format!("{id} {result} without a test"));
        }
        let missing = tests.into_iter().filter(|test| !exists(test, &sources));
        wrong.extend(missing.map(|test| format!("{id}: there is no test {test:?}")));
    }
    assert!(wrong.is_empty(), "docs/conformance.md:\n{}", wrong.join("\n"));
}

/// The names behind "Tests:" in the note about a row.
fn tests_of(page: &str, id: &str) -> Vec<String> {
    let Some((_, note)) = page.split_once(&format!("\n- **{id}** ")) else { return Vec::new() };
    let lines =
        note.lines().enumerate().take_while(|(at, line)| *at == 0 || line.starts_with("  "));
    let note: Vec<_> = lines.map(|(_, line)| line.trim()).collect();
    let note = note.join(" ");
    let Some((_, tests)) = note.split_once("Tests: ") else { return Vec::new() };
    tests.split('`').skip(1).step_by(2).map(str::to_owned).collect()
}

/// A test function, or the name of a case or trial.
fn exists(test: &str, sources: &str) -> bool {
    sources.contains(&format!("fn {test}(")) || sources.contains(&format!("\"{test}\""))
}

fn sources() -> String {
    let mut text = String::new();
    for folder in ["src", "tests", "netns-tests/src", "netns-tests/tests"] {
        collect(&root().join(folder), &mut text);
    }
    text
}

fn collect(folder: &Path, text: &mut String) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            collect(&path, text);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            text.push_str(&fs::read_to_string(path).unwrap());
        }
    }
}
