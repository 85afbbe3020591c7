//! What runs each command of the documents.

/// What runs a command, or why nothing does.
#[derive(Debug, Clone, Copy)]
pub enum Verdict {
    /// `tests/documents.rs` types it where `run --switches none` runs; it must end with status 0.
    Panel,
    /// `tests/datacenter/documents.rs` types it where nine switches run; it must end with status 0.
    Datacenter,
    /// A test does the same: its file in the repository, and its function.
    Test(&'static str, &'static str),
    /// No test can run it: why.
    ByHand(&'static str),
}

/// The verdict of a command: the entry that is the whole line, otherwise the longest that it begins with.
pub fn verdict(command: &str) -> Option<&'static Verdict> {
    let all = VERDICTS
        .iter()
        .filter(|(pattern, _)| covers(pattern, command));
    let best = all.max_by_key(|(pattern, _)| (*pattern == command, pattern.len()));
    best.map(|(_, verdict)| verdict)
}

/// Whether an entry is about this command: the whole line, or what stands before its `*`.
pub fn covers(pattern: &str, command: &str) -> bool {
    match pattern.strip_suffix('*') {
        Some(beginning) => command.starts_with(beginning),
        None => pattern == command,
    }
}

use Verdict::{ByHand, Datacenter, Panel, Test};

const PLUGGING: &str = "tests/tests/plugging.rs";
const CAPTURE_CLIENTS: &str = "tests/tests/capture_clients.rs";
const CONVERGING: &str = "tests/tests/datacenter/converging.rs";
const POWER: &str = "tests/tests/datacenter/power.rs";
const ACCESS: &str = "tests/tests/datacenter/access.rs";
const PROBE: &str = "tests/tests/datacenter/probe.rs";
const IMAGE: &str = "ctrl/vm/src/image/archive/tests.rs";

/// Each command of the documents, or what it begins with and `*`.
pub const VERDICTS: &[(&str, Verdict)] = &[
    // From the sources to a program
    (
        "make run",
        ByHand("it installs packages and brings a fabric up in the machine's own network"),
    ),
    ("make setup", ByHand("it installs packages")),
    ("make test", ByHand("it is what runs this test")),
    ("make soak", Test("tests/tests/soak/main.rs", "soak")),
    (
        "make deb",
        Test(
            "tests/tests/package/main.rs",
            "everything_is_where_debian_expects_it",
        ),
    ),
    (
        "apt install ./target/deb/*",
        Test("tests/tests/package/installed.rs", "debian_13"),
    ),
    (
        "systemctl *",
        ByHand("it starts a service of the machine's own systemd"),
    ),
    ("ikv-fabric completions *", Panel),
    // Start and end
    (
        "ikv-fabric check",
        Test(
            "tests/tests/reports.rs",
            "check_reports_every_obstacle_and_changes_nothing",
        ),
    ),
    (
        "ikv-fabric check --strict",
        ByHand("whether the machine offers the whole jail is not the program's doing"),
    ),
    (
        "ikv-fabric clean",
        Test(
            "tests/tests/faults.rs",
            "clean_undoes_what_a_killed_fabric_left",
        ),
    ),
    (
        "ikv-fabric run",
        Test("tests/tests/datacenter/reports.rs", "ready_in_time"),
    ),
    (
        "ikv-fabric run --cold",
        Test(
            "tests/tests/warm.rs",
            "saved_states_are_made_used_and_replaced",
        ),
    ),
    (
        "ikv-fabric run --only *",
        Test(
            "tests/tests/subset.rs",
            "one_rack_under_one_spine_runs_and_can_be_killed",
        ),
    ),
    (
        "ikv-fabric run --set *",
        Test("tests/tests/panel.rs", "other_shapes_start_and_end"),
    ),
    (
        "ikv-fabric run --switches none",
        Test(
            "tests/tests/panel.rs",
            "a_patch_panel_starts_and_ends_quickly",
        ),
    ),
    (
        "ikv-fabric run -c *",
        Test(
            "tests/tests/bonding.rs",
            "lacp_bonds_two_cables_and_stp_opens_a_loop",
        ),
    ),
    (
        "ikv-fabric run -c libvirt.toml",
        Test(PLUGGING, "members_of_the_group_plug_in_and_others_do_not"),
    ),
    (
        "ikv-fabric run --web *",
        Test("tests/tests/web.rs", "only_the_link_opens_the_page"),
    ),
    (
        "ikv-fabric run --metrics *",
        Test(
            "tests/tests/metrics.rs",
            "metrics_have_the_values_of_cables",
        ),
    ),
    (
        "ikv-fabric stop",
        Test(
            "tests/tests/places.rs",
            "a_fabric_is_ended_from_another_terminal_and_leaves_nothing",
        ),
    ),
    (
        "ikv-fabric shell -- *",
        Test(
            "tests/tests/rootless.rs",
            "a_panel_runs_as_an_ordinary_user_and_leaves_the_machine_alone",
        ),
    ),
    ("ikv-fabric status*", Panel),
    ("ikv-fabric --json image path", Panel),
    (
        "ikv-fabric image forget-states",
        ByHand("it removes the saved states that other tests start from"),
    ),
    (
        "ikv-fabric image export *",
        Test(IMAGE, "what_was_exported_is_imported_byte_for_byte"),
    ),
    (
        "ikv-fabric image --set *",
        Test(IMAGE, "what_was_exported_is_imported_byte_for_byte"),
    ),
    // Plans and changes
    ("ikv-fabric config *", Panel),
    ("ikv-fabric topology*", Panel),
    ("ikv-fabric import *", Panel),
    ("ikv-fabric apply*", Panel),
    // Plugging in
    ("ikv-fabric vm-args *", Panel),
    (
        "ikv-fabric vm-args ipmi",
        Test("tests/tests/ipmi.rs", "a_guest_on_the_segment_controls_it"),
    ),
    ("ikv-fabric vm-args rack1:u3 --libvirt*", Panel),
    ("ikv-fabric vm-args rack2:u6 --libvirt", Panel),
    ("ikv-fabric vm-args rack2:u6 --cloud-hypervisor", Panel),
    ("ikv-fabric places", Panel),
    (
        "ikv-fabric places --watch",
        ByHand("it runs until Ctrl-C; without --watch it is typed"),
    ),
    (
        "ikv-fabric patch *",
        Test(
            "tests/tests/patch.rs",
            "taps_keep_working_in_other_namespaces",
        ),
    ),
    (
        "qemu-system-x86_64 *",
        Test(PLUGGING, "qemu_accepts_the_options_of_vm_args"),
    ),
    (
        "qemu-system-x86_64 … -netdev *",
        Test(PLUGGING, "an_unmodified_qemu_plugs_in_and_can_be_replaced"),
    ),
    (
        "qemu-system-x86_64 -m 256 -boot n *",
        Test(
            "tests/tests/pxe.rs",
            "machines_boot_over_the_network_and_reach_each_other_in_a_vlan",
        ),
    ),
    // Switches
    ("ikv-fabric ssh leaf3", Test(ACCESS, "ssh_from_host")),
    ("ikv-fabric ssh leaf3 -- true", Datacenter),
    ("ikv-fabric exec *", Datacenter),
    (
        "ikv-fabric exec leaf1 -- ping -c 1 192.168.100.2",
        Test(
            "tests/tests/pxe.rs",
            "machines_boot_over_the_network_and_reach_each_other_in_a_vlan",
        ),
    ),
    ("ikv-fabric console *", Test(ACCESS, "console")),
    ("ikv-fabric power *", Test(POWER, "buttons")),
    (
        "ikv-fabric ipmi *",
        Test("tests/tests/ipmi.rs", "ipmi_prints_the_access"),
    ),
    (
        "vncviewer *",
        Test("tests/tests/vnc.rs", "root_logs_in_over_the_owners_socket"),
    ),
    // Cables
    ("ikv-fabric cable *", Panel),
    ("ikv-fabric cables*", Panel),
    (
        "ikv-fabric cables rack1:u3 --watch",
        Test("tests/tests/cli.rs", "a_closed_pipe_is_not_an_error"),
    ),
    ("ikv-fabric impair *", Panel),
    ("ikv-fabric scenario *", Panel),
    (
        "ikv-fabric top",
        Test(
            "tests/tests/places.rs",
            "top_draws_cuts_and_gives_the_terminal_back",
        ),
    ),
    (
        "ikv-fabric web",
        Test("tests/tests/web.rs", "only_the_link_opens_the_page"),
    ),
    // Frames
    ("ikv-fabric capture *", Panel),
    (
        "ikv-fabric capture spine1:2",
        Test(
            "tests/tests/capture.rs",
            "each_frame_is_captured_once_with_port_and_direction",
        ),
    ),
    (
        "ikv-fabric capture spine1:2 -w - | wireshark -k -i -",
        Test(
            CAPTURE_CLIENTS,
            "frames_reach_a_pipe_at_once_and_closing_it_ends_the_capture",
        ),
    ),
    (
        "ikv-fabric extcap install",
        Test(
            CAPTURE_CLIENTS,
            "wireshark_lists_cables_and_captures_on_them",
        ),
    ),
    (
        "tshark -D",
        Test(
            CAPTURE_CLIENTS,
            "wireshark_lists_cables_and_captures_on_them",
        ),
    ),
    ("ikv-fabric recorder *", Panel),
    (
        "ikv-fabric events*",
        Test(
            "tests/tests/events.rs",
            "what_happens_is_seen_within_a_second",
        ),
    ),
    ("ikv-fabric events --no-follow", Panel),
    // Measuring
    ("ikv-fabric probe", Test(PROBE, "green")),
    ("ikv-fabric probe --quick", Datacenter),
    (
        "ikv-fabric probe --outside 1.1.1.1",
        ByHand("the tests' namespaces have no way to the Internet"),
    ),
    (
        "ikv-fabric probe --watch --quick",
        ByHand("it runs until Ctrl-C, and repeats what `probe --quick` does"),
    ),
    (
        "ikv-fabric converge --cut iksb12 --flow leaf1 leaf3",
        Datacenter,
    ),
    (
        "ikv-fabric converge --cut spine1 --repeat 10",
        Test(CONVERGING, "lost_spine"),
    ),
    (
        "ikv-fabric converge --flow leaf1 leaf3 --by blackhole",
        Test(
            "tests/tests/recorder.rs",
            "converge_counts_a_flows_losses_during_a_cut",
        ),
    ),
    ("ikv-fabric bench --size 64 *", Panel),
    (
        "ikv-fabric bench --plot fast.svg",
        ByHand(
            "it measures for longer than a test should; a line with one frame size is typed instead",
        ),
    ),
    (
        "ikv-fabric bench rack1:u3:1",
        Test("tests/tests/rootless.rs", "cables_work_from_outside"),
    ),
    // In CI
    (
        "IKV_RUN='--only *",
        Test(
            "tests/tests/documents.rs",
            "the_script_for_ci_brings_a_fabric_up_and_ends_it",
        ),
    ),
    (
        "IKV_RUN='--switches none' *",
        Test(
            "tests/tests/documents.rs",
            "the_script_for_ci_brings_a_fabric_up_and_ends_it",
        ),
    ),
    (
        "sh with-fabric.sh *",
        Test(
            "tests/tests/documents.rs",
            "the_script_for_ci_brings_a_fabric_up_and_ends_it",
        ),
    ),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_whole_line_comes_before_the_longest_beginning() {
        let of = |command| verdict(command).unwrap();
        assert!(matches!(of("ikv-fabric cables rack1:u3"), Panel));
        assert!(matches!(of("ikv-fabric cables rack1:u3 --watch"), Test(..)));
        assert!(matches!(of("ikv-fabric run"), Test(_, "ready_in_time")));
        assert!(matches!(
            of("qemu-system-x86_64 -m 256 -boot n x"),
            Test("tests/tests/pxe.rs", _)
        ));
        assert!(verdict("rm -rf /").is_none());
        assert!(verdict("ikv-fabric ssh leaf3 -- reboot").is_none());
    }
}
