//! The shape of a VM: what must be equal for a VM to start from a saved state.
//!
//! QEMU restores a machine only into an equal one, and the guest goes on with what it learned when its
//! template booted. So a shape's key is a hash of everything that must be equal: QEMU's command line
//! without what is the switch's own, the template's seed, the size of the seed's disk, the image, and
//! QEMU's version.

use model::mac::Mac;
use std::fs;
use std::path::PathBuf;

use crate::fingerprint::Fingerprint;
use crate::qemu::{self, Fds, Features};
use crate::seed::{self, SeedError};
use crate::spec::{NicBackend, NicSpec, VmSpec};
use crate::states::States;

/// The file of a template's seed by which the guest knows that it is a template.
pub const MARK: &str = "etc/ikv/template";

/// The MAC address of NIC `index` in a template: locally administered, and used nowhere else.
pub fn mac(index: usize) -> Mac {
    let [high, low] = u16::try_from(index)
        .expect("a VM has at most 232 NICs")
        .to_be_bytes();
    Mac([0x02, 0x69, 0x6b, 0x76, high, low])
}

/// The template from whose state `spec` can start, with its files in `run_dir`.
pub(crate) fn template_of(spec: &VmSpec, run_dir: PathBuf) -> VmSpec {
    let nic = |(index, nic): (usize, &NicSpec)| NicSpec {
        mac: mac(index),
        backend: NicBackend::Unconnected {
            vhost_user: nic.backend.like_vhost_user(),
        },
    };
    VmSpec {
        name: "template".into(),
        seed: run_dir.join("seed.tar"),
        nics: spec.nics.iter().enumerate().map(nic).collect(),
        run_dir,
        template: None,
        ..spec.clone()
    }
}

/// The key of a shape: 16 hexadecimal digits. `None` for a VM that is always booted. `seed_size` is
/// that of the VM's own seed in bytes, `made_with` identifies image and QEMU.
fn key(spec: &VmSpec, seed_size: u64, made_with: &str) -> Result<Option<String>, SeedError> {
    let Some(seed) = &spec.template else {
        return Ok(None);
    };
    let nics = (100..).take(spec.nics.len()).collect();
    let fds = Fds {
        bmc: spec.bmc.then_some(17),
        ..Fds::numbered(nics)
    };
    let template = template_of(spec, "/".into());
    let mut fingerprint = Fingerprint::default();
    // The installed QEMU is a part of `made_with`.
    let features = Features::default();
    for argument in qemu::argv(&template, features, &fds) {
        fingerprint.field(argument.as_bytes());
    }
    fingerprint.field(&seed::archive(seed)?);
    fingerprint.field(&seed_size.to_le_bytes());
    fingerprint.field(made_with.as_bytes());
    Ok(Some(fingerprint.short()))
}

/// The key of the shape of `spec`. Its seed must have been written.
pub(crate) fn key_of(spec: &VmSpec, states: &States) -> Option<String> {
    let size = fs::metadata(&spec.seed).ok()?.len();
    // An invalid seed is reported when the template is built.
    key(spec, size, states.made_with()).ok().flatten()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::accel::Accel;
    use crate::seed::SeedFile;
    use crate::spec::{Display, example};
    use proptest::prelude::*;

    fn shape(nics: usize) -> VmSpec {
        VmSpec {
            template: Some(vec![SeedFile {
                path: MARK.into(),
                mode: 0o644,
                bytes: Vec::new(),
            }]),
            ..example(nics)
        }
    }

    fn of(spec: &VmSpec) -> Option<String> {
        key(spec, 1 << 18, "an image, a QEMU").unwrap()
    }

    #[test]
    fn what_must_be_equal_makes_another_shape() {
        let base = shape(3);
        let mut others = vec![
            shape(4),
            VmSpec {
                memory_mib: 513,
                ..base.clone()
            },
            VmSpec {
                vcpus: 1,
                ..base.clone()
            },
            VmSpec {
                cpu: Some("max".into()),
                ..base.clone()
            },
            VmSpec {
                accel: Accel::Kvm { group: None },
                ..base.clone()
            },
            VmSpec {
                cmdline: "quiet".into(),
                ..base.clone()
            },
            VmSpec {
                bmc: true,
                ..base.clone()
            },
            VmSpec {
                display: Display::Open,
                ..base.clone()
            },
            VmSpec {
                display: Display::Password,
                ..base.clone()
            },
        ];
        others.push(base.clone());
        others[9].nics[1].backend = NicBackend::VhostUser;
        others.push(base.clone());
        others[10].template.as_mut().unwrap()[0].bytes = b"x".into();
        let mut keys: Vec<_> = others.iter().map(of).collect();
        keys.push(of(&base));
        keys.push(key(&base, 2 << 18, "an image, a QEMU").unwrap());
        keys.push(key(&base, 1 << 18, "an image, another QEMU").unwrap());
        let count = keys.len();
        keys.sort();
        keys.dedup();
        assert_eq!(keys.len(), count);
        assert!(
            keys.iter()
                .all(|key| key.as_ref().is_some_and(|key| key.len() == 16))
        );
    }

    #[test]
    fn a_vm_that_is_always_booted_has_no_shape() {
        assert_eq!(of(&example(3)), None);
    }

    #[test]
    fn a_template_sees_the_nics_that_its_switches_see() {
        let mut spec = shape(2);
        for nic in &mut spec.nics {
            nic.backend = NicBackend::VhostUser;
        }
        let devices = |spec: &VmSpec, nics: Vec<i32>| -> Vec<String> {
            let argv = qemu::argv(spec, Features::default(), &Fds::numbered(nics));
            let devices = argv.iter().filter(|arg| arg.starts_with("virtio-net-pci"));
            let own = |device: &String| {
                let parts = device.split(',').filter(|part| !part.starts_with("mac="));
                parts.collect::<Vec<_>>().join(",")
            };
            devices.map(own).collect()
        };
        let template = template_of(&spec, "/x".into());
        assert_eq!(
            devices(&spec, vec![20, 20]),
            devices(&template, vec![30, 31])
        );
        assert!(
            qemu::argv(&template, Features::default(), &Fds::numbered(vec![30, 31]))
                .contains(&"tap,id=net1,fd=31".into())
        );
    }

    proptest! {
        /// If anything of a switch's own counted, each switch would need a state of its own.
        #[test]
        fn switches_of_one_shape_share_its_key(
            name in "[a-z]{1,8}[0-9]{1,2}",
            uid in 1u32..100_000,
            macs in proptest::array::uniform3(any::<[u8; 6]>()),
        ) {
            let mut other = shape(3);
            other.uid = uid;
            other.seed = format!("/other/{name}.tar").into();
            other.run_dir = format!("/other/{name}").into();
            for (nic, mac) in other.nics.iter_mut().zip(macs) {
                nic.mac = Mac(mac);
                nic.backend = NicBackend::Tap { name: format!("ik{name}") };
            }
            other.name = name;
            prop_assert_eq!(of(&other), of(&shape(3)));
        }

        #[test]
        fn templates_nics_have_addresses_of_their_own(a in 0usize..232, b in 0usize..232) {
            prop_assert_eq!(mac(a) == mac(b), a == b);
            prop_assert_eq!(mac(a).0[0] & 3, 2, "locally administered, not multicast");
        }
    }
}
