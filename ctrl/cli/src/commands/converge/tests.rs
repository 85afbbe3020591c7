use std::net::IpAddr;

use dataplane::DropReason;
use dataplane::capture::{Record, Verdict};
use etherparse::PacketBuilder;
use proptest::prelude::*;

use super::observation::{Ends, Lane, Observation, observe};
use super::report::{Cut, Report};
use super::table::{spread, table};

const SECOND: u64 = 1_000_000_000;
const MS: u64 = 1_000_000;
const CUT: u64 = 10 * SECOND;

/// leaf1 – spine1 – leaf3 and leaf1 – spine2 – leaf3, there and back.
fn lanes() -> Vec<Lane> {
    let cables = [
        ("iksb12", "spine1:2", "leaf1:1"),
        ("iksb14", "spine1:4", "leaf3:1"),
        ("iksb22", "spine2:2", "leaf1:2"),
        ("iksb24", "spine2:4", "leaf3:2"),
    ];
    let lane = |cable: &str, from: &str, to: &str| Lane {
        from: from.into(),
        to: to.into(),
        cable: cable.into(),
    };
    cables
        .into_iter()
        .flat_map(|(cable, a, b)| [lane(cable, a, b), lane(cable, b, a)])
        .collect()
}

/// Lanes of the way from leaf1 to leaf3 by spine 1 and 2.
const BY: [[usize; 2]; 2] = [[1, 2], [5, 6]];

#[derive(Default)]
struct Capture(Vec<(usize, Record, Vec<u8>)>);

impl Capture {
    fn add(&mut self, lane: usize, time: u64, bytes: Vec<u8>, dropped: Option<DropReason>) {
        let record = Record {
            time,
            len: bytes.len() as u32,
            captured: bytes.len() as u32,
            verdict: Verdict {
                dropped,
                ..Verdict::default()
            },
            ..Record::default()
        };
        self.0.push((lane, record, bytes));
    }

    /// A packet of the flow that passes these lanes, 1 ms each, and is dropped on the last if
    /// `lost`.
    fn packet(&mut self, number: u16, sent: u64, path: &[usize], lost: bool) {
        for (hop, lane) in path.iter().enumerate() {
            let ttl = 64 - hop as u8;
            let builder = PacketBuilder::ethernet2([hop as u8; 6], [7; 6])
                .ipv4([10, 0, 0, 1], [10, 0, 0, 3], ttl)
                .icmpv4_echo_request(9, number);
            let mut bytes = Vec::new();
            builder.write(&mut bytes, &[0; 56]).unwrap();
            let dropped = (lost && hop + 1 == path.len()).then_some(DropReason::CableDown);
            self.add(*lane, sent + hop as u64 * MS, bytes, dropped);
        }
    }

    fn bgp(&mut self, lane: usize, time: u64, kind: u8, body: &[u8]) {
        let length = (19 + body.len() as u16).to_be_bytes();
        let message = [&[0xff; 16][..], &length, &[kind], body].concat();
        let builder = PacketBuilder::ethernet2([1; 6], [7; 6])
            .ipv6([1; 16], [2; 16], 1)
            .tcp(179, 40000, 1, 100);
        let mut bytes = Vec::new();
        builder.write(&mut bytes, &message).unwrap();
        self.add(lane, time, bytes, None);
    }

    fn observations(&self) -> Vec<Observation> {
        let ends = Ends {
            source: IpAddr::from([10, 0, 0, 1]),
            destination: IpAddr::from([10, 0, 0, 3]),
        };
        let observe_frame = |(lane, record, bytes): &(usize, Record, Vec<u8>)| {
            observe(*lane, record, bytes, Some(ends))
        };
        self.0.iter().flat_map(observe_frame).collect()
    }

    fn report(&self) -> Report {
        let cut = Cut {
            cables: vec!["iksb12".into()],
            state: "down".into(),
            at: CUT,
            took: 3 * MS,
        };
        Report {
            settled: true,
            ..Report::of(self.observations(), &lanes(), &cut)
        }
    }
}

/// 100 packets a second from 1 s before the cut to 2 s after it; for 100 ms after the cut they
/// are sent into the dead cable, for 50 ms more not at all.
fn cut_flow() -> Capture {
    let mut capture = Capture::default();
    for number in 0..300 {
        let sent = CUT - SECOND + u64::from(number) * 10 * MS;
        match sent {
            ..CUT => capture.packet(number, sent, &BY[0], false),
            _ if sent < CUT + 100 * MS => capture.packet(number, sent, &BY[0][..1], true),
            _ if sent < CUT + 150 * MS => {}
            _ => capture.packet(number, sent, &BY[1], false),
        }
    }
    capture
}

const WITHDRAW: &[u8] = &[0, 4, 24, 10, 1, 3, 0, 0];
const ANNOUNCE: &[u8] = &[0, 0, 0, 0, 24, 10, 1, 3, 16, 10, 2];

#[test]
fn a_cut_is_reported_in_full() {
    let mut capture = cut_flow();
    capture.bgp(3, CUT - SECOND / 2, 2, WITHDRAW);
    capture.bgp(1, CUT + MS, 4, &[]);
    capture.bgp(2, CUT + 12 * MS, 2, ANNOUNCE);
    capture.bgp(2, CUT + 20 * MS, 2, WITHDRAW);
    capture.bgp(5, CUT + 90 * MS, 2, &[0, 0, 0, 0]);
    capture.bgp(7, CUT + 80 * MS, 2, WITHDRAW);
    capture.bgp(0, CUT + 30 * MS, 3, &[6, 10]);
    let report = capture.report();
    insta::assert_snapshot!(table(&report));
    let flow = report.flow.clone().unwrap();
    assert_eq!((flow.sent, flow.lost), (295, 10));
    assert_eq!(flow.new_path_ms, Some(151.0));
    assert_eq!(flow.gap_ms, Some(160.0));
    assert_eq!(report.back, None);
    insta::assert_snapshot!(spread(&[report.clone(), report]));
}

#[test]
fn a_flow_that_stays_on_its_path_lost_nothing() {
    let mut capture = Capture::default();
    for number in 0..200 {
        capture.packet(
            number,
            CUT - SECOND + u64::from(number) * 10 * MS,
            &BY[1],
            false,
        );
    }
    let flow = capture.report().flow.unwrap();
    assert_eq!((flow.sent, flow.lost, flow.new_path_ms), (200, 0, None));
    assert_eq!(flow.path_before, ["leaf1:2", "spine2:4", "leaf3:2"]);
    assert_eq!(flow.path_before, flow.path_after);
}

#[test]
fn what_is_on_its_way_at_the_end_is_not_lost() {
    let mut capture = Capture::default();
    capture.packet(1, CUT - SECOND, &BY[0], false);
    capture.packet(2, CUT + SECOND, &BY[0][..1], false);
    assert_eq!(capture.report().flow.unwrap().lost, 0);
    capture.packet(3, CUT + 2 * SECOND, &BY[0], false);
    assert_eq!(capture.report().flow.unwrap().lost, 1);
}

#[test]
fn reports_nothing_if_nothing_is_observed() {
    let report = Capture::default().report();
    assert_eq!((report.flow, report.first_withdraw), (None, None));
}

proptest! {
    #[test]
    fn the_order_in_which_lanes_are_read_changes_nothing(
        sent in prop::collection::vec((0..3000_u64, 0..3_usize, any::<bool>()), 1..60),
        seed in any::<u64>(),
    ) {
        let mut capture = Capture::default();
        for (number, (at, hops, by_second)) in sent.iter().enumerate() {
            let path = &BY[usize::from(*by_second)][..*hops];
            // No two at the same instant: their order would be the reader's choice.
            let at = CUT - SECOND + at * 10 * MS + number as u64;
            capture.packet(number as u16, at, path, false);
        }
        let report = capture.report();
        let mut order = seed;
        capture.0.sort_by_cached_key(|_| {
            order = order.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            order >> 33
        });
        prop_assert_eq!(&capture.report(), &report);
        if let Some(flow) = report.flow {
            prop_assert!(flow.lost <= flow.sent && flow.sent <= sent.len());
        }
    }
}
