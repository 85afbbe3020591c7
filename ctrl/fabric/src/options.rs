//! What to bring up, and why it may not come up.

use std::path::PathBuf;

use dataplane::PanelOptions;

use super::cables::CablesError;
use super::owner::NoSuchUser;
use super::recorder::RecorderOptions;
use super::seeds::SeedsError;
use crate::preflight::{Finding, text};
use api::ApiError;
use host::HostError;
use host::execute::HostChangeError;
use host::lock::LockError;
use model::config::Config;
use model::topology::{Choice, Selection, Topology};
use vm::LaunchError;
use vm::accel::AccelError;
use vm::bmc::BmcError;
use vm::bmc::password::PasswordError;
use vm::image::ImageError;

/// What to bring up.
#[derive(Debug)]
pub struct Options {
    /// All that can be chosen.
    pub config: Config,
    /// What follows from it.
    pub topology: Topology,
    /// Where the API listens.
    pub socket: PathBuf,
    /// How it is said which switches run as VMs.
    pub choice: Choice,
    /// Which of its switches run as VMs, then; every other's end is a tap to plug into.
    pub switches: Selection,
    /// How to forward.
    pub panel: PanelOptions,
    /// How to record, if at all.
    pub recorder: Option<RecorderOptions>,
}

/// Why a fabric did not come up. Whatever had been done is taken back by
/// [`super::Running::take_down`].
#[derive(Debug, thiserror::Error)]
#[expect(
    missing_docs,
    reason = "each is the error of the step of that name, in its own words"
)]
pub enum BringUpError {
    #[error(transparent)]
    Owner(#[from] NoSuchUser),
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
    #[error("the devices cannot be watched: {0}")]
    Watch(std::io::Error),
    #[error(transparent)]
    Seeds(#[from] SeedsError),
    #[error(transparent)]
    Launch(#[from] LaunchError),
}
