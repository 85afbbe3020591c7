//! DHCP and PXE for machines that plug into rack 2, U3.

use std::net::Ipv4Addr;
use std::time::Duration;

use ikv_tests::dhcp::{self, option};
use ikv_tests::{IpHost, Station};

use super::facts;
use super::lab::Up;

const LIMIT: Duration = Duration::from_secs(30);
const ROUTER: Ipv4Addr = Ipv4Addr::new(192, 168, 111, 1);
const NEXT_SERVER: Ipv4Addr = Ipv4Addr::new(192, 168, 100, 2);

fn plug(up: &Up, mac_end: u8) -> Station {
    Station::plug(&up.fabric.site.host, "ikvm2-3-1", [2, 0, 0, 0, 3, mac_end])
}

fn in_range(address: Ipv4Addr) -> bool {
    let [a, b, c, d] = address.octets();
    [a, b, c] == [192, 168, 111] && (20..=250).contains(&d)
}

/// A machine with an IP stack gets a lease and reaches the datacenter with it.
pub(crate) fn lease(up: &mut Up) {
    let mut host = IpHost::new(plug(up, 1));
    let lease = host.lease(LIMIT);
    assert!(in_range(lease.address.address()), "{lease:?}");
    assert_eq!(
        (lease.address.prefix_len(), lease.router),
        (24, Some(ROUTER))
    );
    assert_eq!(
        lease.dns,
        [Ipv4Addr::new(1, 1, 1, 1), Ipv4Addr::new(9, 9, 9, 9)]
    );
    let silent = host.silent(&facts::loopbacks(), LIMIT);
    assert!(silent.is_empty(), "no echo from {silent:?}");
}

pub(crate) fn boot_files(up: &mut Up) {
    let mut station = plug(up, 2);
    let arch = option::ARCHITECTURE;
    let class = |class: &'static [u8]| (option::USER_CLASS, class);
    let ipxe = class(b"iPXE");
    let uefi = (arch, &[0, 7][..]);
    let script = "http://192.168.100.2/oci/ipxe.php";
    let cases = [
        (vec![(arch, &[0, 0][..])], "lpxelinux.0"),
        (vec![uefi], "shimx64.efi.signed"),
        (vec![(arch, &[0, 9][..])], "shimx64.efi.signed"),
        (vec![(arch, &[0, 11][..])], "shimaa64.efi.signed"),
        (vec![(arch, &[0, 6][..])], "pxelinux.0"),
        (vec![], "pxelinux.0"),
        (vec![ipxe], script),
        (vec![(arch, &[0, 0][..]), ipxe], script),
        (vec![uefi, ipxe], script),
        (vec![uefi, class(b"\x04iPXE")], script),
        (vec![uefi, class(b"\x04iPXE\x03foo")], script),
        (vec![uefi, class(b"\x03foo\x04iPXE")], script),
        (vec![uefi, class(b"iPXE2")], "shimx64.efi.signed"),
        (vec![uefi, class(b"\x08noniPXEx")], "shimx64.efi.signed"),
        // iPXE that sends no user class.
        (vec![uefi, (option::IPXE, &b"\x13\x01\x01"[..])], script),
    ];
    for (options, file) in cases {
        let offer = dhcp::discover(&mut station, &options);
        assert!(in_range(offer.address), "{offer:?}");
        assert_eq!(offer.boot_file, file, "{options:?}");
        assert_eq!(offer.next_server, NEXT_SERVER, "{options:?}");
        let vendor = offer.options.get(&option::VENDOR_CLASS);
        assert_eq!(vendor, None, "{options:?}");
    }
}

/// Firmware that boots over HTTP gets a URL, in an answer for such clients. Of another architecture it
/// gets no file.
pub(crate) fn http_boot(up: &mut Up) {
    let mut station = plug(up, 6);
    let vendor = |arch: u8| format!("HTTPClient:Arch:{arch:05}:UNDI:003001");
    for (arch, file) in [(16, "shimx64"), (19, "shimaa64")] {
        let (code, vendor) = ([0, arch], vendor(arch));
        let options = [
            (option::ARCHITECTURE, &code[..]),
            (option::VENDOR_CLASS, vendor.as_bytes()),
        ];
        let offer = dhcp::discover(&mut station, &options);
        let url = format!("http://192.168.100.2/oci/{file}.efi.signed");
        assert_eq!(offer.boot_file, url);
        assert_eq!(offer.options[&option::VENDOR_CLASS], b"HTTPClient");
    }
    let (code, vendor) = ([0, 15], vendor(15));
    let options = [
        (option::ARCHITECTURE, &code[..]),
        (option::VENDOR_CLASS, vendor.as_bytes()),
    ];
    let offer = dhcp::discover(&mut station, &options);
    assert_eq!(offer.boot_file, "");
    assert!(!offer.options.contains_key(&option::VENDOR_CLASS));
}

pub(crate) fn times_and_options(up: &mut Up) {
    let mut station = plug(up, 3);
    let plain = dhcp::lease(&mut station, &[]);
    assert_eq!(plain.lease_time(), Some(600));
    assert_eq!(plain.address_option(option::ROUTER), Some(ROUTER));
    assert_eq!(plain.address_option(option::SERVER), Some(ROUTER));
    assert_eq!(plain.options[&option::DNS], [1, 1, 1, 1, 9, 9, 9, 9]);
    assert_eq!(plain.options[&option::DOMAIN], b"example.com");
    assert_eq!(dhcp::rapid_lease(&mut station).address, plain.address);
    for (wanted, given) in [(3600u32, 3600), (7200, 7200), (1_000_000, 7200)] {
        let asked = wanted.to_be_bytes();
        let lease = dhcp::lease(&mut station, &[(option::LEASE_TIME, &asked)]);
        assert_eq!(lease.lease_time(), Some(given), "asked for {wanted} s");
        assert_eq!(lease.address, plain.address);
    }
}

/// A machine keeps its address although firmware, iPXE and the installed system send different
/// client-ids, and after it was unplugged. Another machine gets another address.
pub(crate) fn kept_lease(up: &mut Up) {
    let mut station = plug(up, 4);
    let ids: [&[u8]; 3] = [
        b"\x00firmware-uuid-0000",
        &[1, 2, 0, 0, 0, 3, 4],
        b"\xffinstalled",
    ];
    let address = dhcp::lease(&mut station, &[]).address;
    for id in ids {
        let lease = dhcp::lease(&mut station, &[(option::CLIENT_ID, id)]);
        assert_eq!(lease.address, address, "client-id {id:?}");
    }
    drop(station);
    let mut again = plug(up, 4);
    assert_eq!(dhcp::lease(&mut again, &[]).address, address, "replugged");
    drop(again);
    let mut other = plug(up, 5);
    assert_ne!(
        dhcp::lease(&mut other, &[]).address,
        address,
        "another machine"
    );
}
