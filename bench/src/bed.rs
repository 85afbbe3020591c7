//! What is measured: the two ends of a cable and who forwards between them.

use std::fs::DirBuilder;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::os::unix::net::UnixListener;
use std::path::PathBuf;

use dataplane::jack::{JackSpec, Jacks, Role};
use dataplane::{Cable, Panel, PanelOptions, Port, Side};

use crate::BenchError;
use crate::clock::CpuMeter;
use crate::endpoint::End;

/// A cable that can be measured.
#[derive(Debug, Clone)]
pub struct Bed {
    /// What holds its ends.
    pub ends: [End; 2],
    /// Who forwards, for its CPU time.
    pub cpu: Option<CpuMeter>,
}

/// A cable of our own, in this process, with a vhost-user socket at either end.
pub struct FreshCable {
    panel: Panel,
    jacks: Option<Jacks>,
    folder: PathBuf,
}

impl FreshCable {
    /// Plugs it in.
    ///
    /// # Errors
    /// When no worker can be started or no socket be made.
    pub fn plug(options: &PanelOptions) -> Result<FreshCable, BenchError> {
        let failed = |why: &dyn std::fmt::Display| BenchError::Fresh(why.to_string());
        let folder = std::env::temp_dir().join(format!("ikv-bench-{}", std::process::id()));
        DirBuilder::new()
            .mode(0o700)
            .create(&folder)
            .map_err(|error| failed(&error))?;
        let panel = Panel::start(options, || {}).map_err(|error| failed(&error))?;
        let mut fresh = FreshCable {
            panel,
            jacks: None,
            folder,
        };
        fresh.open().map_err(|error| failed(&error))?;
        Ok(fresh)
    }

    fn open(&mut self) -> io::Result<()> {
        let cable = self
            .panel
            .add(Cable::new(None::<Port>, None::<Port>))
            .map_err(io::Error::other)?;
        let jacks = Jacks::start(self.panel.clone(), || {})?;
        for (side, name) in [(Side::A, "a"), (Side::B, "b")] {
            let listener = UnixListener::bind(self.folder.join(name))?;
            let role = Role::Server(listener);
            jacks.add(JackSpec {
                name: name.into(),
                cable: cable.id,
                side,
                role,
                mtu: None,
            })?;
        }
        self.jacks = Some(jacks);
        Ok(())
    }

    /// Adds another cable to the same panel.
    ///
    /// # Errors
    /// When the worker cannot watch its ports.
    pub fn beside(&self, cable: Cable) -> Result<(), BenchError> {
        self.panel
            .add(cable)
            .map(drop)
            .map_err(|error| BenchError::Fresh(error.to_string()))
    }

    /// What to measure.
    pub fn bed(&self) -> Bed {
        Bed {
            ends: ["a", "b"].map(|name| End::VhostUser(self.folder.join(name))),
            cpu: Some(CpuMeter::OwnThreads("worker")),
        }
    }
}

impl Drop for FreshCable {
    fn drop(&mut self) {
        if let Some(jacks) = self.jacks.take() {
            jacks.stop();
        }
        self.panel.stop();
        // A folder that is left over in /tmp harms nobody.
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}
