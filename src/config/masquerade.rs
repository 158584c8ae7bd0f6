//! `[[masquerade]]`: whose own connections are seen to come from which address.

use super::addressing::Addressing;
use super::model::Masquerade;
use super::section::Section;

/// Reads every `[[masquerade]]`.
pub(super) fn read(root: &mut Section<'_>, known: &Addressing) -> Vec<Masquerade> {
    let sections = root.sections("masquerade").into_iter();
    sections.filter_map(|section| one(section, known)).collect()
}

fn one(mut section: Section<'_>, known: &Addressing) -> Option<Masquerade> {
    let from = section
        .require("from", "whose connections, such as \"10.0.0.0/24\"")
        .and_then(|value| value.cidr("masquerades"))
        .and_then(|from| {
            from.check(|from| {
                let network = from.network();
                let fits = network == *from;
                fits.then_some(())
                    .ok_or_else(|| format!("{from} has host bits; a masquerade is for {network}"))
            })
        });
    let to = section
        .require("to", "the address they are seen to come from, such as a virtual IP")
        .and_then(|value| value.host_address("masquerades"))
        .and_then(|to| {
            to.check(|to| {
                let ours = known.virtual_ips.contains(to) || known.own.contains(to);
                let maybe = known.lost_virtual_ip || known.lost_network;
                (ours || maybe).then_some(()).ok_or_else(|| {
                    format!(
                        "{to} is neither a virtual IP nor the router's own address; answers to it \
                         would not come back"
                    )
                })
            })
        });
    section.finish();
    Some(Masquerade { from: from?.value, to: to?.value.into() })
}
