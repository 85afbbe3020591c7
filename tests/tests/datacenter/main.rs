//! The default datacenter on real VMs: nine switches are booted once, and everything that the
//! project promises of them is tried, in this order; then once more on taps for a part of it. `cargo test -p ikv-tests --test
//! datacenter -- NAME` boots it for those trials whose names contain NAME.
//!
//! Trials run one after the other: under emulation two would only slow each other down, and
//! most of them disturb.

#![allow(clippy::unwrap_used)]

mod access;
mod converging;
mod cutting;
mod dhcp;
mod facts;
mod faults;
mod lab;
mod links;
mod power;
mod probe;
mod reports;
mod routing;
mod server;
mod teardown;
mod warm;

use std::process::ExitCode;
use std::sync::{Arc, Mutex};

use lab::{Lab, Nics, Up};
use libtest_mimic::{Arguments, Trial};

type Test = fn(&mut Up);

/// Name and test. The last one takes the fabric away.
const TRIALS: &[(&str, Test)] = &[
    ("ready_in_time", reports::ready_in_time),
    ("status_json", reports::status_json),
    ("cables_json", reports::cables_json),
    (
        "topology_and_vm_args_json",
        reports::topology_and_vm_args_json,
    ),
    ("every_switch_has_all_its_sessions", routing::sessions),
    (
        "every_switch_pings_every_loopback_and_the_outside",
        routing::pings,
    ),
    ("the_outside_sees_the_hosts_address", routing::snat),
    (
        "the_host_reaches_every_loopback",
        routing::host_reaches_loopbacks,
    ),
    ("two_equal_paths_between_leaves", routing::equal_paths),
    ("names_macs_link_locals_mtus", links::addresses),
    ("serial_numbers", links::serials),
    ("restored_switches_share_no_secret", warm::no_shared_secrets),
    ("restored_switches_know_the_time", warm::clocks),
    ("link_locals_by_ping_and_ssh", access::link_local),
    (
        "ssh_from_switch_to_switch_by_name",
        access::ssh_between_switches,
    ),
    ("ssh_from_the_host", access::ssh_from_host),
    ("exec_passes_everything_through", access::exec),
    ("lldp_neighbours_are_the_cabling_plan", links::lldp),
    ("console_is_a_shell", access::console),
    ("dhcp_lease_for_an_ip_stack", dhcp::lease),
    ("dhcp_boot_file_by_kind_of_client", dhcp::boot_files),
    ("dhcp_lease_times_and_options", dhcp::times_and_options),
    ("dhcp_keeps_the_lease_of_a_machine", dhcp::kept_lease),
    ("a_probe_is_green_in_time", probe::green),
    ("a_servers_tap_is_freed_of_the_lan_bridge", server::freed),
    ("a_probe_skips_whoever_is_plugged_in", probe::skips),
    ("a_probe_finds_a_cable_that_loses_frames", probe::red),
    ("a_server_peers_with_both_leaves", server::sessions),
    ("a_server_is_no_way_between_leaves", server::no_transit),
    ("a_server_on_vlan_11_peers_with_leaf2", server::vlan_network),
    (
        "a_server_is_reached_with_its_first_cable_cut",
        server::first_cable_down,
    ),
    (
        "a_server_is_reached_with_its_second_cable_a_blackhole",
        server::second_cable_blackhole,
    ),
    (
        "a_front_end_loses_its_carrier_with_its_cable",
        server::carrier,
    ),
    (
        "a_cut_cable_ends_both_sessions_at_once",
        cutting::down_and_up,
    ),
    (
        "a_delay_on_one_spine_shows_in_pings_between_racks",
        converging::delayed_spine,
    ),
    (
        "loss_one_way_and_a_blackhole_end_sessions_by_their_timers",
        converging::timers,
    ),
    (
        "a_lost_spine_costs_a_flow_few_packets",
        converging::lost_spine,
    ),
    ("the_recorder_kept_what_a_cut_brought", converging::recorded),
    (
        "the_rights_of_root_are_given_up",
        reports::rights_are_given_up,
    ),
    ("power_off_on_cycle_reset", power::buttons),
    ("a_spine_restarts_alone_and_rejoins", power::rejoins),
    (
        "a_killed_dnsmasq_answers_again_with_its_leases",
        faults::dnsmasq,
    ),
    ("killed_bgpds_have_their_sessions_again", faults::bgpd),
    ("a_killed_switch_of_each_role_comes_back", faults::switches),
    (
        "clients_killed_at_a_silent_console_leave_nothing",
        faults::consoles,
    ),
    ("everything_is_taken_away", teardown::as_before),
];

/// The same with the switches' NICs on taps: what may depend on that.
const TAP_TRIALS: &[(&str, Test)] = &[
    ("tap_ready_in_time", reports::ready_in_time),
    ("tap_every_switch_has_all_its_sessions", routing::sessions),
    (
        "tap_every_switch_pings_every_loopback_and_the_outside",
        routing::pings,
    ),
    ("tap_names_macs_link_locals_mtus", links::addresses),
    (
        "tap_restored_switches_share_no_secret",
        warm::no_shared_secrets,
    ),
    (
        "tap_a_servers_tap_is_freed_of_the_lan_bridge",
        server::freed,
    ),
    ("tap_a_server_peers_with_both_leaves", server::sessions),
    (
        "tap_a_cut_cable_ends_both_sessions_at_once",
        cutting::down_and_up,
    ),
    ("tap_power_off_on_cycle_reset", power::buttons),
    ("tap_everything_is_taken_away", teardown::as_before),
];

fn main() -> ExitCode {
    let mut arguments = Arguments::from_args();
    arguments.test_threads = Some(1);
    let lacking = ikv_tests::lacks_for_vms();
    if let (Some(lacking), false) = (lacking, arguments.list) {
        if std::env::var_os("CI").is_some() {
            eprintln!("datacenter: needs {lacking}, and under CI nothing may be skipped");
            return ExitCode::FAILURE;
        }
        for (name, _) in TRIALS.iter().chain(TAP_TRIALS) {
            eprintln!("SKIP {name}: needs {lacking}");
        }
        return ExitCode::SUCCESS;
    }
    let lab = Arc::new(Mutex::new(Lab::default()));
    let all = [(Nics::VhostUser, TRIALS), (Nics::Tap, TAP_TRIALS)];
    let all = all
        .into_iter()
        .flat_map(|(nics, trials)| trials.iter().map(move |(name, test)| (nics, name, test)));
    let trials = all.map(|(nics, name, test)| {
        let lab = lab.clone();
        Trial::test(*name, move || {
            lab.lock()
                .expect("no trial panics in here")
                .run(name, nics, *test)
        })
    });
    let conclusion = libtest_mimic::run(&arguments, trials.collect());
    drop(lab);
    conclusion.exit_code()
}
