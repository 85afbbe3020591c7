//! `[vm]`, `[vnc]`, `[ipmi]`, `[image]`, `[ssh]`: the switches' virtual machines and the ways to
//! reach them.

use std::path::PathBuf;

use ipnet::Ipv4Net;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::forms::{HostInterface, InterfaceName, VncPassword};
use super::values::{AccelChoice, Listen, Memory, net};
use crate::plugging::PlugKind;

/// The table `[vm]`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Vm {
    /// Memory of a switch: "192M", "1G", or a number of MiB; 96 MiB or more. Default: "192M" with an
    /// image of Debian 12, "320M" with any other: FRR 10 takes more than FRR 8.
    #[schemars(example = &"256M", extend("x-live" = true))]
    pub memory: Option<Memory>,
    /// Virtual CPUs of a switch.
    #[schemars(range(min = 1, max = 255), extend("x-unit" = "virtual CPUs", "x-live" = true))]
    pub cpus: u16,
    /// What executes the switches' instructions.
    pub accel: AccelChoice,
    /// Under TCG: start switches from a saved state, one for each shape of VM (role, NICs,
    /// memory, …), made when it is missing; false boots each, as `run --cold` does.
    pub warm: bool,
    /// How a switch's NICs are joined to their cables.
    pub nic: PlugKind,
    /// QEMU's -cpu model. Default: "host" under KVM, "qemu64,+rdrand" under TCG.
    #[schemars(example = &"max")]
    pub cpu: Option<String>,
    /// First of the uids that the switches run as, one each in the order internet, spines, leaves.
    #[schemars(range(min = 1, max = 4_294_900_000u32), extend("x-unit" = "as uid"))]
    pub uid: u32,
}

impl Vm {
    /// The uid and gid of a switch, by its index in the topology.
    pub fn uid_of(&self, switch: usize) -> u32 {
        self.uid + switch as u32
    }
}

impl Default for Vm {
    fn default() -> Self {
        Self {
            memory: None,
            cpus: 1,
            accel: AccelChoice::Auto,
            warm: true,
            nic: PlugKind::VhostUser,
            cpu: None,
            uid: 70_000,
        }
    }
}

/// The table `[vnc]`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Vnc {
    /// Where the consoles are offered.
    pub listen: Listen,
    /// First display (its port is 5900 more), one each in the order internet, spines, leaves.
    ///
    /// The default gives the default fabric's leaf6 port 5988, as ikvswitch has it.
    #[schemars(range(min = 0, max = 58_000), extend("x-unit" = "as first display"))]
    pub display: u16,
    /// What viewers must know: at most 8 letters, digits and signs. Needed for "tcp".
    ///
    /// RFC 6143, section 7.2.2.
    #[schemars(with = "Option<VncPassword>", example = &"another")]
    pub password: Option<String>,
}

impl Default for Vnc {
    fn default() -> Self {
        Self {
            listen: Listen::Off,
            display: 80,
            password: None,
        }
    }
}

/// The table `[ipmi]`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Ipmi {
    /// Whether the switches have BMCs.
    pub enabled: bool,
    /// First UDP port, one each in the order internet, spines, leaves: on 127.0.0.1 and on the
    /// address below.
    #[schemars(range(min = 1024, max = 64_000), extend("x-unit" = "as first UDP port"))]
    pub port: u16,
    /// Name of the cable from which a VM manages the switches, and of the host's device there.
    #[schemars(with = "InterfaceName")]
    pub link: String,
    /// The host's address on that cable with its prefix, outside of topology.range.
    #[schemars(with = "HostInterface")]
    pub address: Ipv4Net,
    /// The tap at the cable's other end, where that VM plugs in.
    #[schemars(with = "InterfaceName")]
    pub tap: String,
    /// First of the uids that the BMCs run as, one each; they must not be those of the switches.
    #[schemars(range(min = 1, max = 4_294_900_000u32), extend("x-unit" = "as uid"))]
    pub uid: u32,
}

impl Ipmi {
    /// The uid and gid of a switch's BMC, by the switch's index in the topology.
    pub fn uid_of(&self, switch: usize) -> u32 {
        self.uid + switch as u32
    }
}

impl Default for Ipmi {
    fn default() -> Self {
        Self {
            enabled: false,
            port: 9080,
            link: "bripmi".into(),
            address: net([192, 168, 200, 1], 24),
            tap: "ikipmi".into(),
            uid: 71_000,
        }
    }
}

/// The table `[image]`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Image {
    /// Folder that caches built images. Default: /var/cache/ikv-fabric for root,
    /// $XDG_CACHE_HOME/ikv-fabric for other users.
    #[schemars(example = &"/var/cache/ikv-fabric")]
    pub dir: Option<PathBuf>,
    /// Debian's code name. Default: the host's.
    #[schemars(example = &"bookworm")]
    pub release: Option<String>,
    /// Address of the Debian archive. Default: from the host's apt sources.
    #[schemars(example = &"http://mirror.example/debian")]
    pub mirror: Option<String>,
    /// Address of the archive of security updates, used only together with `mirror`. Default with
    /// `mirror`: no security updates.
    #[schemars(example = &"http://mirror.example/debian-security")]
    pub security_mirror: Option<String>,
}

/// The table `[ssh]`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Ssh {
    /// Who may log in to the switches as root: files like authorized_keys, or key lines. Empty: the
    /// owner's ~/.ssh/authorized_keys and public keys. The fabric's own key is always accepted.
    pub authorized_keys: Vec<String>,
    /// Root's password in the switches. Default: no login by password.
    #[schemars(example = &"a long one")]
    pub root_password: Option<String>,
    /// Folder of the fabric's own key pair. Default: `ssh` beside the API socket.
    #[schemars(example = &"/etc/ikv-fabric/ssh")]
    pub key_dir: Option<PathBuf>,
}
