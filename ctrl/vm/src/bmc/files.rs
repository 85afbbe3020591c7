//! The files of an `ipmi_sim`: its configuration (ipmi_lan(5)), the commands that define the BMC
//! (ipmi_sim_cmd(5)), and the program by which it reads and controls the chassis. Everything except
//! [`write`] and [`set_line`] is pure.

use std::fmt::Write as _;
use std::io::{self, Write as _};
use std::os::unix::fs::fchown;

use host::folder::Folder;
use sha2::{Digest, Sha256};

use super::spec::{BmcError, BmcSpec, USER};
use crate::fingerprint::hexadecimal;

/// The names of the files in the BMC's folder.
pub(super) const LAN_CONF: &str = "lan.conf";
pub(super) const COMMANDS: &str = "bmc.emu";
const CHASSIS: &str = "chassis";

/// The content of `lan.conf`. `line` is the TCP port of 127.0.0.1 at which `ipmi_sim` waits for its
/// VM.
///
/// Each address has its own channel, because `ipmi_sim` accepts one address per channel. With `md5`
/// the password never crosses the network, even in IPMI 1.5.
pub(super) fn lan_conf(spec: &BmcSpec, line: u16) -> String {
    let mut text = format!("name \"{}\"\nset_working_mc 0x20\n", spec.name);
    let guid = guid(&spec.name);
    for (channel, address) in (1..).zip(&spec.addresses) {
        let port = spec.port;
        let _ = write!(
            text,
            "startlan {channel}\n\
             addr {address} {port}\n\
             priv_limit admin\n\
             allowed_auths_callback md5\n\
             allowed_auths_user md5\n\
             allowed_auths_operator md5\n\
             allowed_auths_admin md5\n\
             guid {guid}\n\
             endlan\n"
        );
    }
    let password = &spec.password;
    let _ = write!(
        text,
        "chassis_control \"sh ./{CHASSIS}\"\n\
         serial kcs 127.0.0.1 {line} codec VM\n\
         user 2 true \"{USER}\" \"{password}\" admin 10 md5\n"
    );
    text
}

/// Defines the BMC, at its usual address: IPMI version 2.0, a sensor for the watchdog and an event
/// log. Manufacturer and product are those of the simulator's own example.
pub(super) const BMC_EMU: &str = "\
mc_setbmc 0x20
mc_add 0x20 0 no-device-sdrs 0x23 9 8 0x9f 0x1291 0xf02
sel_enable 0x20 1000 0x0a
sensor_add 0x20 0 0 35 0x6f event-only
sensor_set_event_support 0x20 0 0 enable scanning per-state \\
	000000000001111 000000000000000 \\
	000000000001111 000000000000000
mc_enable 0x20
";

/// The chassis program: it passes its arguments on and prints the answer. Its standard input is the
/// socket to this process, inherited through `ipmi_sim`. A question begins with a number that its
/// answer repeats, because an earlier program may have ended without reading its own answer.
pub(super) const CHASSIS_SH: &str = "\
printf '%s %s\\n' \"$$\" \"$*\" >&0
while read -r id status answer; do
    [ \"$id\" = \"$$\" ] || continue
    [ -z \"$answer\" ] || printf '%s\\n' \"$answer\"
    exit \"$status\"
done
exit 1
";

/// The BMC's GUID, the same at every start: 16 bytes in hexadecimal.
fn guid(name: &str) -> String {
    let digest = Sha256::digest(format!("ikv-fabric BMC {name}"));
    hexadecimal(&digest[..16])
}

/// Writes the files that never change, and an empty `lan.conf`, which [`set_line`] fills. The BMC's
/// group may read them.
pub(super) fn write(spec: &BmcSpec) -> Result<(), BmcError> {
    let create = |name: &str, text: &str| -> io::Result<()> {
        let mut file = Folder::open(&spec.folder)?.create(name, 0o640)?;
        fchown(&file, None, Some(spec.uid))?;
        file.write_all(text.as_bytes())
    };
    for (name, text) in [(COMMANDS, BMC_EMU), (CHASSIS, CHASSIS_SH), (LAN_CONF, "")] {
        create(name, text).map_err(|error| BmcError {
            name: spec.name.clone(),
            path: spec.folder.join(name),
            error,
        })?;
    }
    Ok(())
}

/// Overwrites `lan.conf` in place, which keeps its group: when a BMC is started again, this process
/// may no longer have the right to set the group.
pub(super) fn set_line(spec: &BmcSpec, line: u16) -> io::Result<()> {
    let mut file = Folder::open(&spec.folder)?.overwrite(LAN_CONF)?;
    file.write_all(lan_conf(spec, line).as_bytes())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;
    use std::path::Path;

    use super::*;

    fn spec(folder: &Path) -> BmcSpec {
        BmcSpec {
            name: "leaf1".into(),
            folder: folder.into(),
            uid: folder.metadata().map_or(0, |meta| meta.gid()),
            addresses: vec![[127, 0, 0, 1].into(), [192, 168, 200, 1].into()],
            port: 9083,
            password: "abcDEF1234567890".into(),
        }
    }

    #[test]
    fn a_channel_for_each_address_and_one_user() {
        insta::assert_snapshot!(lan_conf(&spec(Path::new("/run/b")), 40_001), @r#"
        name "leaf1"
        set_working_mc 0x20
        startlan 1
        addr 127.0.0.1 9083
        priv_limit admin
        allowed_auths_callback md5
        allowed_auths_user md5
        allowed_auths_operator md5
        allowed_auths_admin md5
        guid 029a4440b5dafde8ffd30e42e6658d67
        endlan
        startlan 2
        addr 192.168.200.1 9083
        priv_limit admin
        allowed_auths_callback md5
        allowed_auths_user md5
        allowed_auths_operator md5
        allowed_auths_admin md5
        guid 029a4440b5dafde8ffd30e42e6658d67
        endlan
        chassis_control "sh ./chassis"
        serial kcs 127.0.0.1 40001 codec VM
        user 2 true "ipmiusr" "abcDEF1234567890" admin 10 md5
        "#);
    }

    #[test]
    fn files_are_closed_to_others_and_rewritten_in_place() {
        let folder = tempfile::tempdir().unwrap();
        let spec = spec(folder.path());
        write(&spec).unwrap();
        let path = folder.path().join(LAN_CONF);
        let before = path.metadata().unwrap();
        assert_eq!((before.mode() & 0o777, before.len()), (0o640, 0));
        set_line(&spec, 40_001).unwrap();
        set_line(&spec, 7).unwrap();
        let after = path.metadata().unwrap();
        assert_eq!((after.ino(), after.mode()), (before.ino(), before.mode()));
        assert_eq!(std::fs::read_to_string(&path).unwrap(), lan_conf(&spec, 7));
        let twice = write(&spec).unwrap_err().to_string();
        assert!(twice.starts_with("the BMC of leaf1: /"), "{twice}");
    }

    #[test]
    fn the_password_stays_out_of_debug_output() {
        assert!(!format!("{:?}", spec(Path::new("/"))).contains("abcDEF"));
    }
}
