//! What is measured: the two ends of a cable and who forwards between them.

use std::fs::DirBuilder;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::sync::Arc;

use dataplane::vhost_sockets::{Role, SocketSpec, VhostUserSockets};
use dataplane::{Cable, LaneSnapshot, LaneStats, Panel, PanelOptions, Port, Side};

use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

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

/// The worker and the generator each get a CPU of their own, where there are two.
#[derive(Debug, Clone, Copy)]
pub struct CpuPair {
    /// Where the load comes from.
    pub generator: Option<usize>,
    /// Where frames are forwarded.
    pub worker: Option<usize>,
}

impl CpuPair {
    /// The first and the last that this process may use.
    pub fn of_this_process() -> CpuPair {
        let mask = sched_getaffinity(None).unwrap_or_else(|_| CpuSet::new());
        let mut cpus = (0..CpuSet::MAX_CPU).filter(|cpu| mask.is_set(*cpu));
        match (cpus.next(), cpus.next_back()) {
            (Some(first), Some(last)) => CpuPair {
                generator: Some(first),
                worker: Some(last),
            },
            _ => CpuPair {
                generator: None,
                worker: None,
            },
        }
    }

    /// Binds this thread, and those that it starts from now on, to the generator's CPU.
    pub fn bind_generator(&self) {
        if let Some(cpu) = self.generator {
            let mut set = CpuSet::new();
            set.set(cpu);
            // Unbound, figures are only less steady.
            let _ = sched_setaffinity(None, &set);
        }
    }
}

/// A cable of our own, in this process, with a vhost-user socket at either end.
pub struct FreshCable {
    panel: Panel,
    sockets: Option<VhostUserSockets>,
    lanes: Vec<Arc<LaneStats>>,
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
            sockets: None,
            lanes: Vec::new(),
            folder,
        };
        fresh.open().map_err(|error| failed(&error))?;
        Ok(fresh)
    }

    fn open(&mut self) -> io::Result<()> {
        let cable = self
            .panel
            .add(Cable::new(None::<Port>, None::<Port>))
            .wait()
            .map_err(io::Error::other)?;
        self.lanes = cable.lanes.to_vec();
        let sockets = VhostUserSockets::start(self.panel.clone(), || {})?;
        for (side, name) in [(Side::A, "a"), (Side::B, "b")] {
            let listener = UnixListener::bind(self.folder.join(name))?;
            let role = Role::Server(listener);
            sockets
                .add(SocketSpec {
                    name: name.into(),
                    cable: cable.id,
                    side,
                    role,
                    mtu: None,
                })
                .wait()
                .map_err(io::Error::other)?;
        }
        self.sockets = Some(sockets);
        Ok(())
    }

    /// The cable's counters, a lane each.
    pub fn counters(&self) -> Vec<LaneSnapshot> {
        self.lanes.iter().map(|lane| lane.snapshot()).collect()
    }

    /// Adds another cable to the same panel.
    ///
    /// # Errors
    /// When the worker cannot watch its ports.
    pub fn beside(&self, cable: Cable) -> Result<(), BenchError> {
        self.panel
            .add(cable)
            .wait()
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
        if let Some(sockets) = self.sockets.take() {
            sockets.stop();
        }
        self.panel.stop();
        // A folder that is left over in /tmp harms nobody.
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}
