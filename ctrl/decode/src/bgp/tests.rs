use ipnet::IpNet;
use proptest::prelude::*;

use super::*;

fn whole(kind: u8, body: &[u8]) -> Vec<u8> {
    let length = (HEADER + body.len()) as u16;
    [&MARKER[..], &length.to_be_bytes(), &[kind], body].concat()
}

fn net(text: &str) -> IpNet {
    text.parse().unwrap()
}

fn only(message: &[u8]) -> Message {
    let mut segment = segment(message);
    assert_eq!((segment.messages.len(), segment.cut), (1, false));
    segment.messages.remove(0)
}

fn attribute(flags: u8, kind: u8, value: &[u8]) -> Vec<u8> {
    [&[flags, kind, value.len() as u8], value].concat()
}

fn update(withdrawn: &[u8], attributes: &[u8], announced: &[u8]) -> Vec<u8> {
    let length = |of: &[u8]| (of.len() as u16).to_be_bytes();
    let (w, a) = (length(withdrawn), length(attributes));
    whole(2, &[&w[..], withdrawn, &a, attributes, announced].concat())
}

#[test]
fn open_with_an_as_number_of_four_octets() {
    let capabilities = [2, 6, 65, 4, 0xfd, 0xe8, 0, 1];
    let body = [&[4, 0x5b, 0xa0, 0, 16, 10, 0, 0, 1, 8], &capabilities[..]].concat();
    let expected = Open {
        asn: 0xfde8_0001,
        hold_time: 16,
        identifier: Ipv4Addr::new(10, 0, 0, 1),
    };
    assert_eq!(only(&whole(1, &body)), Message::Open(expected));
}

#[test]
fn update_of_both_families_with_a_next_hop_of_ipv6() {
    let path = attribute(0x40, 2, &[2, 2, 0, 0, 0xfd, 0xe9, 0, 0, 0xfd, 0xea]);
    let mut reach = vec![0, 1, 1, 32];
    reach.extend([0; 32]);
    reach.extend([0, 24, 10, 1, 3, 32, 10, 0, 0, 7]);
    let unreach = [0, 2, 1, 64, 0x20, 1, 0xd, 0xb8, 0, 0, 0, 1, 0];
    let attributes = [
        path,
        attribute(0x80, 14, &reach),
        attribute(0x80, 15, &unreach),
    ]
    .concat();
    let expected = Update {
        withdrawn: vec![net("10.9.0.0/16"), net("2001:db8:0:1::/64"), net("::/0")],
        announced: vec![net("10.1.3.0/24"), net("10.0.0.7/32"), net("0.0.0.0/0")],
        as_path: vec![65001, 65002],
        end_of_rib: false,
    };
    let message = update(&[16, 10, 9], &attributes, &[0]);
    assert_eq!(only(&message), Message::Update(expected));
}

#[test]
fn distinguishes_the_end_of_rib_from_an_update() {
    let end = |attributes: &[u8]| match only(&update(&[], attributes, &[])) {
        Message::Update(update) => update.end_of_rib,
        other => panic!("{other:?}"),
    };
    assert!(end(&[]));
    assert!(end(&attribute(0x80, 15, &[0, 2, 1])));
    assert!(!end(&attribute(0x80, 15, &[0, 2, 1, 0])));
}

#[test]
fn notifications_have_names() {
    let shown = |body: &[u8]| match only(&whole(3, body)) {
        Message::Notification(notification) => notification.to_string(),
        other => panic!("{other:?}"),
    };
    assert_eq!(shown(&[4, 0]), "4/0 Hold Timer Expired");
    assert_eq!(
        shown(&[6, 2, 3, b'b', b'y', 7]),
        "6/2 Cease, Administrative Shutdown: by\\u{7}"
    );
    assert_eq!(shown(&[99, 1]), "99/1 unknown error");
}

#[test]
fn several_messages_in_a_segment_and_a_truncated_one() {
    let bytes = [whole(4, &[]), update(&[8, 10], &[], &[]), whole(4, &[])].concat();
    let all = segment(&bytes);
    assert_eq!(all.messages.len(), 3);
    assert!(!all.cut && !all.continued);

    let cut = segment(&bytes[..bytes.len() - 1]);
    assert_eq!((cut.messages.len(), cut.cut), (2, true));

    let middle = segment(&bytes[25..]);
    assert_eq!((middle.messages.len(), middle.continued), (1, true));
    assert!(segment(&bytes[..7]).cut);
    assert!(segment(b"no BGP").continued);
}

proptest! {
    #[test]
    fn decodes_any_bytes_without_a_panic(
        kind in 0_u8..7,
        body in prop::collection::vec(any::<u8>(), 0..200),
        claimed: u16,
    ) {
        let mut message = whole(kind, &body);
        segment(&message);
        message[16..18].copy_from_slice(&claimed.to_be_bytes());
        segment(&message);
        segment(&body);
    }
}
