//! What `vm-args` prints.

use std::path::Path;

use fabric::vm_args::options;

use super::remarks::remarks;
use super::*;
use host::rootless::inside::Place;
use model::config::Config;
use model::topology::build;

fn text(place: &str) -> String {
    by(place, &PlugOptions::default())
}

fn by(place: &str, plug: &PlugOptions) -> String {
    let topology = build(&Config::default()).unwrap();
    let paths = StatePaths::beside(Path::new("/run/ikv-fabric/control.sock"));
    match options(&topology, &paths, place, plug) {
        Ok(options) => pasteable(&options),
        Err(error) => error.to_string(),
    }
}

#[test]
fn both_nics_of_a_position() {
    insta::assert_snapshot!(text("rack1:u3"), @r"
    -netdev tap,id=net0,ifname=ikvm1-3-1,script=no,downscript=no \
    -device virtio-net-pci,netdev=net0,mac=02:69:6b:01:03:01 \
    -netdev tap,id=net1,ifname=ikvm1-3-2,script=no,downscript=no \
    -device virtio-net-pci,netdev=net1,mac=02:69:6b:01:03:02
    ");
}

#[test]
fn one_nic_by_alias_or_tap() {
    let expected = "-netdev tap,id=net0,ifname=ikvm2-6-2,script=no,downscript=no \\\n\
                    -device virtio-net-pci,netdev=net0,mac=02:69:6b:02:06:02\n";
    assert_eq!(text("rack2:u6:2"), expected);
    assert_eq!(text("ikvm2-6-2"), expected);
}

#[test]
fn a_tap_with_several_queues_is_opened_with_all_of_them() {
    let sets = ["host.tap_queues=4".to_owned()];
    let topology = build(&model::config::parse("f", "", &sets).unwrap()).unwrap();
    let paths = StatePaths::beside(Path::new("/run/ikv-fabric/control.sock"));
    let options = options(&topology, &paths, "rack1:u3:1", &PlugOptions::default());
    insta::assert_snapshot!(pasteable(&options.unwrap()), @r"
    -netdev tap,id=net0,ifname=ikvm1-3-1,script=no,downscript=no,queues=4 \
    -device virtio-net-pci,netdev=net0,mac=02:69:6b:01:03:01,mq=on,vectors=10
    ");
}

#[test]
fn by_vhost_user() {
    let mut plug = PlugOptions {
        nic: PlugKind::VhostUser,
        tcg: true,
        ..PlugOptions::default()
    };
    insta::assert_snapshot!(by("rack1:u3", &plug), @r"
    -object memory-backend-memfd,id=ram,size=1024M,share=on \
    -machine memory-backend=ram \
    -chardev socket,id=cable0,path=/run/ikv-fabric/vhost/ikvm1-3-1.sock,reconnect=1 \
    -netdev vhost-user,id=net0,chardev=cable0 \
    -device virtio-net-pci,netdev=net0,mac=02:69:6b:01:03:01,vectors=0 \
    -chardev socket,id=cable1,path=/run/ikv-fabric/vhost/ikvm1-3-2.sock,reconnect=1 \
    -netdev vhost-user,id=net1,chardev=cable1 \
    -device virtio-net-pci,netdev=net1,mac=02:69:6b:01:03:02,vectors=0
    ");
    plug.tcg = false;
    assert!(!by("rack1:u3", &plug).contains("vectors"));
}

#[test]
fn for_libvirt_by_tap() {
    let plug = PlugOptions {
        vmm: Vmm::Libvirt,
        ..PlugOptions::default()
    };
    insta::assert_snapshot!(elements("host.tap_queues=4", "/run/a", "rack1:u3", &plug), @r"
    <interface type='ethernet'>
      <mac address='02:69:6b:01:03:01'/>
      <target dev='ikvm1-3-1' managed='no'/>
      <model type='virtio'/>
      <driver queues='4'/>
    </interface>
    <interface type='ethernet'>
      <mac address='02:69:6b:01:03:02'/>
      <target dev='ikvm1-3-2' managed='no'/>
      <model type='virtio'/>
      <driver queues='4'/>
    </interface>
    ");
}

#[test]
fn for_libvirt_by_vhost_user_with_a_path_that_xml_would_take_for_markup() {
    let plug = PlugOptions {
        vmm: Vmm::Libvirt,
        nic: PlugKind::VhostUser,
        ..PlugOptions::default()
    };
    insta::assert_snapshot!(elements("host.tap_queues=1", "/run/a'<&", "rack1:u3:1", &plug), @r"
    <memoryBacking>
      <source type='memfd'/>
      <access mode='shared'/>
    </memoryBacking>
    <interface type='vhostuser'>
      <mac address='02:69:6b:01:03:01'/>
      <source type='unix' path='/run/a&apos;&lt;&amp;/vhost/ikvm1-3-1.sock' mode='client'>
        <reconnect enabled='yes' timeout='1'/>
      </source>
      <model type='virtio'/>
    </interface>
    ");
}

#[test]
fn for_cloud_hypervisor() {
    let mut plug = PlugOptions {
        vmm: Vmm::CloudHypervisor,
        ..PlugOptions::default()
    };
    insta::assert_snapshot!(elements("host.tap_queues=4", "/run/a", "rack1:u3", &plug), @r"
    --net
    tap=ikvm1-3-1,mac=02:69:6b:01:03:01,num_queues=8
    tap=ikvm1-3-2,mac=02:69:6b:01:03:02,num_queues=8
    ");
    plug.nic = PlugKind::VhostUser;
    insta::assert_snapshot!(elements("host.tap_queues=1", "/run/a,b", "rack1:u3", &plug), @r#"
    --memory
    size=1024M,shared=on
    --net
    vhost_user=true,socket="/run/a,b/vhost/ikvm1-3-1.sock",vhost_mode=client,mac=02:69:6b:01:03:01
    vhost_user=true,socket="/run/a,b/vhost/ikvm1-3-2.sock",vhost_mode=client,mac=02:69:6b:01:03:02
    "#);
}

#[test]
fn for_libvirt_under_tcg_the_vectors_are_overridden() {
    let plug = PlugOptions {
        vmm: Vmm::Libvirt,
        nic: PlugKind::VhostUser,
        tcg: true,
        ..PlugOptions::default()
    };
    insta::assert_snapshot!(elements("host.tap_queues=1", "/run/a", "rack1:u3", &plug), @r"
    <memoryBacking>
      <source type='memfd'/>
      <access mode='shared'/>
    </memoryBacking>
    <interface type='vhostuser'>
      <mac address='02:69:6b:01:03:01'/>
      <source type='unix' path='/run/a/vhost/ikvm1-3-1.sock' mode='client'>
        <reconnect enabled='yes' timeout='1'/>
      </source>
      <model type='virtio'/>
      <alias name='ua-ikvm1-3-1'/>
    </interface>
    <interface type='vhostuser'>
      <mac address='02:69:6b:01:03:02'/>
      <source type='unix' path='/run/a/vhost/ikvm1-3-2.sock' mode='client'>
        <reconnect enabled='yes' timeout='1'/>
      </source>
      <model type='virtio'/>
      <alias name='ua-ikvm1-3-2'/>
    </interface>
    <qemu:override xmlns:qemu='http://libvirt.org/schemas/domain/qemu/1.0'>
      <qemu:device alias='ua-ikvm1-3-1'>
        <qemu:frontend>
          <qemu:property name='vectors' type='unsigned' value='0'/>
        </qemu:frontend>
      </qemu:device>
      <qemu:device alias='ua-ikvm1-3-2'>
        <qemu:frontend>
          <qemu:property name='vectors' type='unsigned' value='0'/>
        </qemu:frontend>
      </qemu:device>
    </qemu:override>
    ");
}

#[test]
fn remarks_are_those_of_the_program_that_runs_the_vm() {
    let of = |vmm, nic, tcg, group| {
        let plug = PlugOptions {
            nic,
            tcg,
            vmm,
            ..PlugOptions::default()
        };
        let lines = remarks(&plug, &Place::Here, group);
        lines.join("\n")
    };
    let (tap, socket) = (PlugKind::Tap, PlugKind::VhostUser);
    insta::assert_snapshot!(of(Vmm::Libvirt, socket, true, false), @r"
    <memoryBacking> belongs directly in <domain>, the <interface> elements in its <devices>; a <memoryBacking> that is there already takes <source> and <access>
    <qemu:override> belongs at the end of <domain>, and needs libvirt 8.2: QEMU 7.2 crashes with vhost-user and MSI-X under TCG; for a domain of type kvm leave it out (--accel kvm)
    libvirt of the system runs QEMU as a user of its own, whom the sockets refuse: set host.plug_group to that user's group (on Debian libvirt-qemu) and start the fabric anew
    ");
    insta::assert_snapshot!(of(Vmm::Libvirt, socket, false, true), @r"
    <memoryBacking> belongs directly in <domain>, the <interface> elements in its <devices>; a <memoryBacking> that is there already takes <source> and <access>
    ");
    insta::assert_snapshot!(of(Vmm::Libvirt, tap, false, false), @r"
    the <interface> elements belong in the domain's <devices>
    ");
    insta::assert_snapshot!(of(Vmm::CloudHypervisor, socket, false, false), @r"
    size= is the VM's memory (1024 MiB; --memory changes it): it replaces another --memory
    ");
    assert_eq!(of(Vmm::CloudHypervisor, tap, false, false), "");
    let elsewhere = |vmm| {
        let plug = PlugOptions {
            vmm,
            ..PlugOptions::default()
        };
        remarks(&plug, &Place::Inside { pid: 7 }, false).concat()
    };
    for vmm in [Vmm::Qemu, Vmm::Libvirt, Vmm::CloudHypervisor] {
        assert!(elsewhere(vmm).contains("--nic vhost-user"));
    }
}

fn elements(set: &str, folder: &str, place: &str, plug: &PlugOptions) -> String {
    let topology = build(&model::config::parse("f", "", &[set.to_owned()]).unwrap()).unwrap();
    let paths = StatePaths::beside(&Path::new(folder).join("control.sock"));
    options(&topology, &paths, place, plug).unwrap().join("\n")
}

#[test]
fn the_vm_that_manages_the_switches() {
    let sets = ["ipmi.enabled=true".to_owned()];
    let topology = build(&model::config::parse("f", "", &sets).unwrap()).unwrap();
    let paths = StatePaths::beside(Path::new("/run/ikv-fabric/control.sock"));
    let plug = PlugOptions::default();
    let by = |place| options(&topology, &paths, place, &plug).unwrap();
    assert_eq!(
        pasteable(&by("ipmi")),
        "-netdev tap,id=net0,ifname=ikipmi,script=no,downscript=no \\\n\
         -device virtio-net-pci,netdev=net0,mac=02:69:6b:00:00:01\n"
    );
    assert_eq!(by("ikipmi"), by("ipmi"));
    assert!(options(&topology, &paths, "bripmi", &plug).is_err());
}

#[test]
fn a_tap_in_another_namespace_is_remarked_and_a_socket_is_not() {
    let mut plug = PlugOptions::default();
    let of_tap = remarks(&plug, &Place::Inside { pid: 7 }, false);
    assert!(of_tap[0].contains("ikv-fabric shell -- "), "{of_tap:?}");
    assert_eq!(remarks(&plug, &Place::Here, false), Vec::<String>::new());
    plug.nic = PlugKind::VhostUser;
    let of_socket = remarks(&plug, &Place::Inside { pid: 7 }, false);
    assert!(!of_socket.concat().contains("shell"), "{of_socket:?}");
}

#[test]
fn a_shell_takes_a_pasted_path_whole() {
    let words = [
        "-chardev".to_owned(),
        "socket,path=/it's here/a.sock".to_owned(),
    ];
    assert_eq!(
        pasteable(&words),
        "-chardev 'socket,path=/it'\\''s here/a.sock'\n"
    );
}

#[test]
fn memory_is_written_as_for_qemu() {
    assert_eq!(memory("2G"), Ok(2048));
    assert_eq!(memory("512"), Ok(512));
    assert_eq!(memory("64m"), Ok(64));
    for bad in ["", "G", "0", "1T", "-1", "5000000G"] {
        assert!(memory(bad).is_err(), "{bad}");
    }
}

#[test]
fn a_place_without_a_server_is_refused() {
    assert_eq!(
        text("rack1:u33"),
        "there is no server \"rack1:u33\" in this fabric; did you mean rack1:u3 or rack1:u13 \
         or rack1:u23?"
    );
    assert_eq!(
        text("leaf1:u3"),
        "there is no server \"leaf1:u3\" in this fabric; names look like rack1:u3, \
         rack1:u3:1, ikvm1-3-1; `ikv-fabric topology` prints them all"
    );
}
