use proptest::prelude::*;

use super::*;

const SOURCE: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 2);
const ADDRESSES: [Ipv4Addr; 2] = [Ipv4Addr::new(203, 0, 113, 10), Ipv4Addr::new(203, 0, 113, 11)];

/// Of 203.0.113.2, id 51, priority 200, 100 ms; their checksums were computed by another program.
const PSEUDO_HEADER: &str = "45c0002400004000ff705e94cb007102e0000012\
     3133c802000a7212cb00710acb00710b";
const MESSAGE: &str = "45c0002400004000ff705e94cb007102e0000012\
     3133c802000a8ea8cb00710acb00710b";
/// The same by version 2, 1 s.
const VERSION_2: &str = "45c0002c00004000ff705e8ccb007102e0000012\
     2133c80200019eb1cb00710acb00710b0000000000000000";

fn bytes(hex: &str) -> Vec<u8> {
    let digits: Vec<u8> =
        hex.chars().filter_map(|c| c.to_digit(16)).map(|d| u8::try_from(d).unwrap()).collect();
    digits.chunks(2).map(|pair| pair[0] << 4 | pair[1]).collect()
}

fn draft(version: VrrpVersion, checksum: AdvertChecksum) -> Draft<'static> {
    Draft {
        version,
        checksum,
        source: SOURCE,
        virtual_router_id: 51,
        priority: 200,
        interval: match version {
            VrrpVersion::V2 => Duration::from_secs(1),
            VrrpVersion::V3 => Duration::from_millis(100),
        },
        addresses: &ADDRESSES,
    }
}

#[test]
fn each_form_is_written_and_read_byte_for_byte() {
    let forms = [
        (PSEUDO_HEADER, VrrpVersion::V3, AdvertChecksum::PseudoHeader),
        (MESSAGE, VrrpVersion::V3, AdvertChecksum::Message),
        (VERSION_2, VrrpVersion::V2, AdvertChecksum::Message),
    ];
    for (hex, version, form) in forms {
        let wire = bytes(hex);
        let mut out = Vec::new();
        draft(version, form).write(0, &mut out);
        assert_eq!(out, wire, "{hex}");
        let advert = Advert::parse(&wire, version).unwrap();
        assert_eq!((advert.source, advert.virtual_router_id), (SOURCE, 51));
        assert_eq!((advert.priority, advert.form), (200, form));
        assert_eq!(advert.interval, draft(version, form).interval);
        assert!(advert.addresses().eq(ADDRESSES));
        assert_eq!(advert.message(), &wire[20..]);
        assert!(advert.trailer().is_empty());
        // Ethernet's padding is none of the packet.
        let padded = [wire, vec![0xaa; 18]].concat();
        assert_eq!(Advert::parse(&padded, version).map(|advert| advert.trailer().len()), Ok(0));
    }
    let mut out = Vec::new();
    draft(VrrpVersion::V2, AdvertChecksum::PseudoHeader).write(0, &mut out);
    assert_eq!(out, bytes(VERSION_2), "version 2 has one form");
}

#[test]
fn addresses_are_compared_in_any_order() {
    let wire = bytes(MESSAGE);
    let advert = Advert::parse(&wire, VrrpVersion::V3).unwrap();
    let [a, b] = ADDRESSES;
    assert!(advert.names(&[a, b]) && advert.names(&[b, a]));
    assert!(!advert.names(&[a]) && !advert.names(&[a, SOURCE]) && !advert.names(&[a, b, SOURCE]));
}

#[test]
fn an_advert_without_virtual_ips_names_its_sender() {
    let mut out = Vec::new();
    let draft = Draft { addresses: &[], ..draft(VrrpVersion::V3, AdvertChecksum::PseudoHeader) };
    draft.write(0, &mut out);
    let advert = Advert::parse(&out, VrrpVersion::V3).unwrap();
    assert!(advert.addresses().eq([SOURCE]));
}

/// Makes both checksums right again after a change.
fn mend(packet: &mut [u8]) {
    let header = 4 * usize::from(packet[0] & 0x0f);
    for (range, at) in [(0..header, 10), (header..packet.len(), header + 6)] {
        packet[at..at + 2].fill(0);
        let sum = checksum::of(&packet[range]);
        packet[at..at + 2].copy_from_slice(&sum.to_be_bytes());
    }
}

#[test]
fn each_wrong_byte_has_its_reason() {
    // The byte, what becomes of it, and what is said then.
    let changes: &[(usize, u8, Option<Discard>)] = &[
        (0, 0x55, Some(Discard::Malformed)),
        (1, 0, None),
        (6, 0x20, Some(Discard::Malformed)),
        (7, 1, Some(Discard::Malformed)),
        (8, 254, Some(Discard::Ttl)),
        (9, 51, Some(Discard::Malformed)),
        (19, 19, Some(Discard::Destination)),
        (20, 0x21, Some(Discard::Version)),
        (20, 0x41, Some(Discard::Version)),
        (20, 0x32, Some(Discard::Kind)),
        (21, 77, None),
        (22, 0, None),
        (22, 255, None),
        (23, 0, Some(Discard::NoAddresses)),
        (23, 3, Some(Discard::Truncated)),
        (24, 0xf0, None),
        (25, 0, Some(Discard::NoInterval)),
    ];
    for (at, value, expected) in changes {
        let mut packet = bytes(MESSAGE);
        packet[*at] = *value;
        mend(&mut packet);
        // A message that ends after no address is that long.
        if *expected == Some(Discard::NoAddresses) {
            packet.truncate(28);
            packet[3] = 28;
            mend(&mut packet);
        }
        let found = Advert::parse(&packet, VrrpVersion::V3).err();
        assert_eq!(found, *expected, "byte {at} is {value:#x}");
    }
    for at in [10, 11, 26, 27] {
        let mut packet = bytes(MESSAGE);
        packet[at] ^= 1;
        let expected = if at < 20 { Discard::Malformed } else { Discard::Checksum };
        assert_eq!(Advert::parse(&packet, VrrpVersion::V3), Err(expected), "byte {at}");
    }
    let mut packet = bytes(VERSION_2);
    packet[24] = 1;
    mend(&mut packet);
    assert_eq!(Advert::parse(&packet, VrrpVersion::V2), Err(Discard::Authentication));
}

#[test]
fn the_upper_bits_of_the_interval_are_ignored() {
    let mut packet = bytes(MESSAGE);
    packet[24] = 0xff;
    packet[25] = 0xff;
    mend(&mut packet);
    let advert = Advert::parse(&packet, VrrpVersion::V3).unwrap();
    assert_eq!(advert.interval, Duration::from_millis(40_950));
}

#[test]
fn one_version_is_none_of_the_other() {
    assert_eq!(Advert::parse(&bytes(VERSION_2), VrrpVersion::V3), Err(Discard::Version));
    assert_eq!(Advert::parse(&bytes(MESSAGE), VrrpVersion::V2), Err(Discard::Version));
}

#[test]
fn whatever_ends_early_is_told_so() {
    for (hex, version) in [(MESSAGE, VrrpVersion::V3), (VERSION_2, VrrpVersion::V2)] {
        let whole = bytes(hex);
        for len in 0..whole.len() {
            let cut = &whole[..len];
            assert_eq!(Advert::parse(cut, version), Err(Discard::Malformed), "cut on its way");
            if len >= 20 {
                let mut short = cut.to_vec();
                short[3] = u8::try_from(len).unwrap();
                short[10..12].fill(0);
                let sum = checksum::of(&short[..20]);
                short[10..12].copy_from_slice(&sum.to_be_bytes());
                assert_eq!(Advert::parse(&short, version), Err(Discard::Truncated), "{len} bytes");
            }
        }
    }
}

#[test]
fn ip_options_are_passed_over() {
    let mut packet = bytes(MESSAGE);
    packet[0] = 0x46;
    packet[3] += 4;
    packet.splice(20..20, [1, 1, 1, 0]);
    mend(&mut packet);
    let advert = Advert::parse(&packet, VrrpVersion::V3).unwrap();
    assert_eq!(advert.virtual_router_id, 51);
}

proptest! {
    #[test]
    fn whatever_comes_in_is_read_or_refused(
        packet in prop::collection::vec(any::<u8>(), 0..200),
        is_3: bool,
    ) {
        let version = if is_3 { VrrpVersion::V3 } else { VrrpVersion::V2 };
        if let Ok(advert) = Advert::parse(&packet, version) {
            prop_assert!(advert.addresses().count() > 0);
        }
    }

    /// Past the IPv4 header, where plain noise never gets.
    #[test]
    fn whatever_is_sent_as_vrrp_is_read_or_refused(
        payload in prop::collection::vec(any::<u8>(), 8..200),
        is_3: bool,
    ) {
        let version = if is_3 { VrrpVersion::V3 } else { VrrpVersion::V2 };
        let mut packet = bytes(MESSAGE)[..20].to_vec();
        packet.extend(payload);
        packet[3] = u8::try_from(packet.len()).unwrap();
        packet[20] = if is_3 { 0x31 } else { 0x21 };
        mend(&mut packet);
        if let Ok(advert) = Advert::parse(&packet, version) {
            prop_assert_eq!(advert.addresses().count(), usize::from(packet[23]));
        }
    }

    #[test]
    fn what_is_written_is_read_again(
        is_3: bool,
        has_pseudo_header: bool,
        (source, virtual_router_id, priority) in any::<(u32, u8, u8)>(),
        steps in 1_u64..=4095,
        addresses in prop::collection::vec(any::<u32>(), 1..300),
        trailer in 0_usize..60,
    ) {
        let version = if is_3 { VrrpVersion::V3 } else { VrrpVersion::V2 };
        let checksum = match has_pseudo_header && is_3 {
            true => AdvertChecksum::PseudoHeader,
            false => AdvertChecksum::Message,
        };
        let interval = match version {
            VrrpVersion::V2 => Duration::from_secs(steps.min(255)),
            VrrpVersion::V3 => Duration::from_millis(10 * steps),
        };
        let addresses: Vec<_> = addresses.into_iter().map(Ipv4Addr::from_bits).collect();
        let source = Ipv4Addr::from_bits(source);
        let draft = Draft {
            version,
            checksum,
            source,
            virtual_router_id,
            priority,
            interval,
            addresses: &addresses,
        };
        let mut out = vec![0xee; 7];
        draft.write(trailer, &mut out);
        let advert = Advert::parse(&out, version).unwrap();
        prop_assert_eq!(advert.source, source);
        prop_assert_eq!(advert.virtual_router_id, virtual_router_id);
        prop_assert_eq!((advert.priority, advert.interval), (priority, interval));
        prop_assert!(advert.addresses().eq(addresses.iter().copied().take(MOST_ADDRESSES)));
        prop_assert_eq!(advert.trailer().len(), trailer);
        // Either form is right by accident when the pseudo-header sums to nothing.
        let pseudo = checksum::of_segment(source.octets(), GROUP.octets(), PROTOCOL, &[]);
        if advert.form != checksum {
            prop_assert!(is_3 && pseudo.wrapping_sub(u16::try_from(advert.message().len()).unwrap()) <= 1);
        }
    }
}
