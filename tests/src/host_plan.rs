//! A plan for the host's part of a fabric, as the default configuration has it.

use host::plan::{HostLinkPlan, HostPlanInput, TapForm, TapOpener, TapPlan};
use model::config::{HostReach, Snat};
use model::mac::Mac;

/// Positions of a rack, and NICs of a position.
const POSITIONS: usize = 21;
const NICS: usize = 2;

/// `taps` taps of servers, in order from `ikvm1-3-1`, and with `host` the host link.
///
/// # Panics
/// Never: the addresses are constants.
pub fn host_plan_input(taps: usize, host: bool) -> HostPlanInput {
    HostPlanInput {
        taps: (0..taps).map(tap).collect(),
        tap_form: TapForm {
            opener: TapOpener::User(65534),
            mtu: 9000,
            multi_queue: false,
        },
        host: host.then(|| HostLinkPlan {
            name: "ikhn".into(),
            mac: Mac([0x00, 0x22, 0x22, 0xdd, 0xee, 0x01]),
            mtu: 9000,
            address: "192.168.96.1/24".parse().expect("a network"),
            peer: "192.168.96.2".parse().expect("an address"),
            range: "192.168.96.0/19".parse().expect("a network"),
            snat: Snat::Masquerade,
            ipv6_forwarding: false,
            reach: HostReach::default(),
        }),
        ipmi: None,
    }
}

fn tap(index: usize) -> TapPlan {
    let (position, nic) = (index / NICS, index % NICS + 1);
    let (rack, u) = (position / POSITIONS + 1, position % POSITIONS + 3);
    TapPlan {
        name: format!("ikvm{rack}-{u}-{nic}"),
        alias: format!("rack{rack}:u{u}:{nic}"),
    }
}
