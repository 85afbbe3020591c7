//! The options of a fabric, and the reasons why it may fail to come up.

use std::path::PathBuf;

use dataplane::PanelOptions;

use crate::cables::error::CablesError;
use crate::files::FileError;
use crate::owner::NoSuchAccount;
use crate::preflight::finding::{Finding, text};
use crate::recorder::options::RecorderOptions;
use crate::switches::seeds::SeedsError;
use api::ApiError;
use host::HostError;
use host::execute::HostChangeError;
use host::lock::LockError;
use model::difference::FabricPlan;
use model::topology::Choice;
use vm::LaunchError;
use vm::accel::AccelError;
use vm::bmc::BmcError;
use vm::bmc::password::PasswordError;
use vm::image::ImageError;
use web::Page;

/// Which fabric to bring up, and how.
#[derive(Debug)]
pub struct Options {
    /// The configuration, the topology that follows from it, and the selection of switches that run
    /// as VMs. Every other switch's ends are taps that a user can plug into.
    pub plan: FabricPlan,
    /// How the switches that run were chosen. `apply` makes the same choice from another topology.
    pub choice: Choice,
    /// Path of the API's socket.
    pub socket: PathBuf,
    /// Options of the workers that forward frames.
    pub panel: PanelOptions,
    /// Options of the flight recorder; `None` disables it.
    pub recorder: Option<RecorderOptions>,
    /// Where the page is served; `None`: nowhere.
    pub page: Option<Page>,
}

/// Why a fabric did not come up. [`Running::take_down`](crate::Running::take_down) undoes what had
/// been done.
#[derive(Debug, thiserror::Error)]
#[expect(
    missing_docs,
    reason = "each is the error of the step of that name, in its own words"
)]
pub enum BringUpError {
    #[error(transparent)]
    Owner(#[from] NoSuchAccount),
    #[error(transparent)]
    Lock(#[from] LockError),
    #[error("{}", text(.0))]
    Preflight(Vec<Finding>),
    #[error(transparent)]
    Accel(#[from] AccelError),
    #[error(transparent)]
    Image(#[from] ImageError),
    #[error(transparent)]
    Apply(#[from] HostChangeError),
    #[error("the host's own addresses cannot be kept from the fabric's guests: {0}")]
    ShutHost(std::io::Error),
    #[error(transparent)]
    Cables(#[from] CablesError),
    #[error("the API cannot listen at {}: {source}", .socket.display())]
    Listen {
        socket: PathBuf,
        source: std::io::Error,
    },
    #[error("the VNC display of {switch} cannot be at {at}: {source}; choose another vnc.display")]
    Display {
        switch: String,
        at: String,
        source: std::io::Error,
    },
    #[error(
        "the BMC of {switch} cannot be at {at} (UDP): {source}; choose another ipmi.port (`ss -ulpn` \
         shows who is there)"
    )]
    Bmc {
        switch: String,
        at: std::net::SocketAddr,
        source: std::io::Error,
    },
    #[error("the ports of the BMCs: {0}")]
    BmcPorts(#[from] HostError),
    #[error(transparent)]
    BmcFiles(#[from] BmcError),
    #[error(transparent)]
    BmcPassword(#[from] PasswordError),
    #[error("the configuration's cables: {0}")]
    Cable(#[from] ApiError),
    #[error("the page cannot be served: {0}; start the fabric without --web")]
    Page(std::io::Error),
    #[error("the devices cannot be watched: {0}")]
    Watch(std::io::Error),
    #[error(transparent)]
    Seeds(#[from] SeedsError),
    #[error(transparent)]
    File(#[from] FileError),
    #[error(transparent)]
    Launch(#[from] LaunchError),
}
