//! The TOML file as written, with every default in place.
//!
//! [`Config`] is passive data: what a person may choose, in tables and under keys. Order of
//! loading: defaults, then the file, then `--set`. What the choices *mean together* (names,
//! addresses, collisions) is [`crate::topology::build`]'s work.
//!
//! **A key is written once**: as a field of its table's struct, with its default. From the fields
//! come
//!
//! ```text
//!  struct ─ schema ─┬─> `config schema`   a JSON Schema for editors (published)
//!                   ├─> check             unknown keys, bounds, "did you mean"
//!                   ├─> example           `config example`
//!                   └─> reference         docs/src/reference/keys.md
//! ```
//!
//! - The first paragraph of the doc comment is for users: it stands in the example. Further
//!   paragraphs are shown by the schema alone.
//! - `range(min, max)` bounds a whole number, `x-unit` ends the message about it ("it takes 1 to
//!   255 racks").
//! - `with` names the form of a text, one of those in `forms.rs`; a text without one must not be empty.
//! - `example` is the value that the example shows for a key without a default.
//! - `x-live`: `apply` can change the key of a running fabric.

mod cable;
mod check;
mod datacenter;
mod example;
mod fixed;
mod forms;
mod impair;
mod load;
mod location;
mod machines;
mod network;
mod reach;
mod recorder;
#[cfg(test)]
mod reference;
mod said;
mod schema;
#[cfg(test)]
mod tests;
mod values;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use cable::CableKeys;
pub(crate) use check::problems;
pub use datacenter::{Macs, Names, Shape};
pub use example::example;
pub(crate) use example::toml_line;
pub use fixed::FixedAddress;
pub use impair::Impair;
pub use load::{ConfigError, load, parse};
pub use location::{Location, Origin, Problem};
pub use machines::{Image, Ipmi, Ssh, Vm, Vnc};
pub use network::{Bgp, Dhcp, Host, Vlan};
pub use reach::{HostReach, Service, Transport};
pub use recorder::Recorder;
pub use said::Said;
pub use schema::published as json_schema;
pub(crate) use schema::{is_live, order};
pub use values::{AccelChoice, Account, Listen, MacPrefix, Memory, Snat, ValueError, VlanPeer};

/// Everything that can be chosen, with ikvswitch 1.0.4's values as defaults.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// User (name or uid) who may command the fabric and plug VMs in. Default: $SUDO_UID, or root
    /// without it.
    #[schemars(example = &"anna")]
    pub owner: Option<Account>,
    /// Size and address range of the datacenter.
    pub topology: Shape,
    /// Names of cables and taps, or what they begin with: letters, digits, "_", "-". With its
    /// numbers a name has at most 15 characters.
    pub names: Names,
    /// Prefixes of MAC addresses.
    pub mac: Macs,
    /// AS numbers and peerings.
    pub bgp: Bgp,
    /// DHCP and PXE for the untagged server ports, on the odd leaf of each rack.
    pub dhcp: Dhcp,
    /// VLAN networks over all server ports of leaf2.
    pub vlan: Vlan,
    /// The host's end of the fabric.
    pub host: Host,
    /// The switches' virtual machines.
    pub vm: Vm,
    /// The switches' consoles by VNC. Every viewer has to log in: as root, with ssh.root_password.
    pub vnc: Vnc,
    /// A BMC for each switch, for ipmitool: power status, on, off, cycle and reset. `ikv-fabric
    /// ipmi` shows how.
    pub ipmi: Ipmi,
    /// The image that all switches boot.
    pub image: Image,
    /// How to log in to the switches.
    pub ssh: Ssh,
    /// The flight recorder: the last frames of every cable, for `ikv-fabric recorder dump`.
    pub recorder: Recorder,
    /// What the impairments of all cables share.
    pub impair: Impair,
    /// Cables of your own, and the state and impairments of cables from the start. The table may
    /// be repeated; later ones win.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub cable: Vec<CableKeys>,
    /// Where each value was written, for messages about it.
    #[serde(skip)]
    pub origin: Origin,
}

impl Config {
    /// Where the value of `key` (such as `dhcp.subnets[1]`) was written.
    pub fn location(&self, key: &str) -> Location {
        self.origin.location(key)
    }

    /// Values that are out of their bounds; a [`Config`] from a file has none.
    pub fn problems(&self) -> Vec<Problem> {
        match toml::Table::try_from(self) {
            Ok(table) => problems(&table),
            Err(error) => vec![Problem {
                key: "owner".into(),
                what: error.to_string(),
            }],
        }
    }
}
