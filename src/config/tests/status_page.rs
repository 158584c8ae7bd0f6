//! The rules of `[status]`.

use super::*;

#[test]
fn it_is_served_on_an_own_address_or_not_at_all() {
    assert_eq!(parse(RIGHT).unwrap().status_page, None);
    let with = |section: &str| format!("{RIGHT}\n[status]\n{section}\n");
    let page = parse(&with("listen = \"10.0.0.2:9180\"")).unwrap().status_page.unwrap();
    assert_eq!(page.listen.to_string(), "10.0.0.2:9180");
    assert_eq!(page.token_file, None);
    let both = with("listen = \"203.0.113.2:80\"\ntoken_file = \"/etc/tapvs/token\"");
    assert_eq!(
        parse(&both).unwrap().status_page.unwrap().token_file,
        Some("/etc/tapvs/token".into())
    );
    let expected = "expected an address and a port, such as \"10.0.0.2:9180\"";
    for (section, message) in [
        ("", "status.listen: is missing; add one of the router's own addresses and a port".to_owned()),
        ("listen = \"10.0.0.2\"", format!("status.listen: found \"10.0.0.2\"; {expected}")),
        ("listen = \"10.0.0.2:0\"", format!("status.listen: found \"10.0.0.2:0\"; {expected}")),
        ("listen = 9180", format!("status.listen: found 9180; {expected}")),
        (
            "listen = \"203.0.113.10:9180\"",
            "status.listen: 203.0.113.10 is a virtual IP; use one of 10.0.0.2, 203.0.113.2".to_owned(),
        ),
        (
            "listen = \"10.0.0.3:9180\"",
            "status.listen: 10.0.0.3 is not the router's own address; use one of 10.0.0.2, 203.0.113.2".to_owned(),
        ),
        (
            "listen = \"10.0.0.2:9180\"\ntoken_file = \"token\"",
            "status.token_file: found \"token\"; expected an absolute path, such as \"/etc/tapvs/token\"".to_owned(),
        ),
        (
            "listen = \"10.0.0.2:9180\"\ntoken = \"x\"",
            "status.token: unknown key; known here: listen, token_file".to_owned(),
        ),
    ] {
        let found = wrong(&with(section));
        assert_eq!(found.len(), 1, "{section}: {found:?}");
        assert_eq!(found[0], message, "{section}");
    }
}
