//! The default datacenter on real VMs. Nine switches boot once, and the tests below run on them in
//! this order; some run again on a second datacenter whose switches are on taps.
//! `cargo test -p ikv-tests --test datacenter -- NAME` runs the tests whose names contain NAME.
//!
//! Tests run one after another: emulated switches would slow each other down, and most tests
//! disturb the fabric.

#![allow(clippy::unwrap_used)]

mod access;
mod converging;
mod cutting;
mod dhcp;
mod documents;
mod facts;
mod faults;
mod flaps;
mod host_peer;
mod hostile;
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

/// The tests by name. The last one ends the fabric.
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
    ("outgoing_packets_have_the_hosts_address", routing::snat),
    (
        "the_host_reaches_every_loopback",
        routing::host_reaches_loopbacks,
    ),
    ("leaves_have_two_equal_paths", routing::equal_paths),
    ("nics_have_the_planned_addresses_and_mtu", links::addresses),
    ("a_switchs_serial_number_is_its_name", links::serials),
    ("restored_switches_share_no_secret", warm::no_shared_secrets),
    ("restored_switches_know_the_time", warm::clocks),
    (
        "ping_and_ssh_reach_link_local_addresses",
        access::link_local,
    ),
    ("ssh_between_switches_by_name", access::ssh_between_switches),
    ("ssh_from_the_host", access::ssh_from_host),
    (
        "exec_passes_arguments_streams_and_status_through",
        access::exec,
    ),
    ("lldp_neighbours_match_the_cabling", links::lldp),
    ("a_switchs_log_holds_no_polls", access::log),
    ("a_log_that_nobody_reads_stops_nobody", access::long_log),
    ("write_memory_never_says_ok", access::write_memory),
    ("frr_takes_its_whole_configuration", access::accepted),
    ("console_is_a_shell", access::console),
    (
        "dhcp_gives_a_lease_that_reaches_the_datacenter",
        dhcp::lease,
    ),
    ("dhcp_boot_file_depends_on_the_client", dhcp::boot_files),
    ("dhcp_gives_a_url_to_http_boot", dhcp::http_boot),
    ("dhcp_lease_times_and_options", dhcp::times_and_options),
    ("dhcp_keeps_a_machines_address", dhcp::kept_lease),
    ("a_probe_passes_in_time", probe::green),
    (
        "a_servers_tap_is_removed_from_the_lan_bridge",
        server::freed,
    ),
    ("a_probe_skips_occupied_positions", probe::skips),
    ("a_probe_finds_a_lossy_cable", probe::red),
    ("a_server_peers_with_both_leaves", server::sessions),
    (
        "a_server_is_reached_with_any_link_local_address",
        server::any_link_local,
    ),
    ("leaves_do_not_route_through_a_server", server::no_transit),
    ("a_server_on_vlan_11_peers_with_leaf2", server::vlan_network),
    ("leaf2_peers_with_a_prefix", server::vlan_range),
    (
        "a_server_is_reachable_with_its_first_cable_cut",
        server::first_cable_down,
    ),
    (
        "a_server_is_reachable_with_its_second_cable_a_blackhole",
        server::second_cable_blackhole,
    ),
    (
        "cutting_a_cable_takes_a_front_ends_carrier",
        server::carrier,
    ),
    ("the_host_peers_with_internet", host_peer::peers),
    (
        "leaves_refuse_what_would_draw_the_traffic_of_others",
        hostile::refused,
    ),
    (
        "leaves_end_the_session_of_a_server_that_announces_too_much",
        hostile::too_many,
    ),
    (
        "cutting_a_cable_ends_its_session_at_once",
        cutting::down_and_up,
    ),
    ("kernel_and_rib_agree_after_flaps", flaps::agree),
    (
        "a_delayed_spine_delays_pings_between_racks",
        converging::delayed_spine,
    ),
    (
        "loss_and_a_blackhole_end_sessions_by_their_timers",
        converging::timers,
    ),
    (
        "losing_a_spine_costs_a_flow_few_packets",
        converging::lost_spine,
    ),
    (
        "the_recorder_kept_the_withdrawals_after_a_cut",
        converging::recorded,
    ),
    ("commands_of_the_documents_work", documents::commands),
    (
        "the_fabric_has_dropped_roots_rights",
        reports::rights_are_given_up,
    ),
    ("power_off_on_cycle_and_reset", power::buttons),
    ("a_spine_restarts_alone_and_rejoins", power::rejoins),
    ("a_killed_dnsmasq_restarts_with_its_leases", faults::dnsmasq),
    ("killed_bgpds_regain_their_sessions", faults::bgpd),
    ("killed_switches_restart", faults::switches),
    (
        "vanished_console_clients_leave_no_descriptor",
        faults::consoles,
    ),
    ("the_end_leaves_the_host_unchanged", teardown::as_before),
];

/// Tests that run again with the switches' NICs on taps, because the result may depend on it.
const TAP_TRIALS: &[(&str, Test)] = &[
    ("tap_ready_in_time", reports::ready_in_time),
    ("tap_every_switch_has_all_its_sessions", routing::sessions),
    (
        "tap_every_switch_pings_every_loopback_and_the_outside",
        routing::pings,
    ),
    (
        "tap_nics_have_the_planned_addresses_and_mtu",
        links::addresses,
    ),
    (
        "tap_restored_switches_share_no_secret",
        warm::no_shared_secrets,
    ),
    (
        "tap_a_servers_tap_is_removed_from_the_lan_bridge",
        server::freed,
    ),
    ("tap_a_server_peers_with_both_leaves", server::sessions),
    (
        "tap_cutting_a_cable_ends_its_session_at_once",
        cutting::down_and_up,
    ),
    ("tap_power_off_on_cycle_and_reset", power::buttons),
    ("tap_the_end_leaves_the_host_unchanged", teardown::as_before),
];

fn main() -> ExitCode {
    let mut arguments = Arguments::from_args();
    arguments.test_threads = Some(1);
    let lacking = ikv_tests::lacks_for_vms();
    if let (Some(lacking), false) = (lacking, arguments.list) {
        if std::env::var_os("CI").is_some() {
            eprintln!("datacenter: needs {lacking}; CI must not skip tests");
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
                .expect("`run` catches panics")
                .run(name, nics, *test)
        })
    });
    let conclusion = libtest_mimic::run(&arguments, trials.collect());
    drop(lab);
    conclusion.exit_code()
}
