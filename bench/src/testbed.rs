//! The cable to measure: its two ends, and the threads that forward between them.

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
use crate::CableEnd;
use crate::cpu_time::CpuMeter;

/// A cable to measure.
#[derive(Debug, Clone)]
pub struct Testbed {
    /// The cable's two ends.
    pub ends: [CableEnd; 2],
    /// Meters the CPU time of the threads that forward; `None` if they are unknown.
    pub cpu: Option<CpuMeter>,
}

/// A CPU for the load generator and another one for the worker; both `None` on a single CPU.
#[derive(Debug, Clone, Copy)]
pub struct CpuPair {
    /// The load generator's CPU.
    generator: Option<usize>,
    /// The worker's CPU.
    pub worker: Option<usize>,
}

impl CpuPair {
    /// The first and the last CPU that this process may use.
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

    /// Binds this thread, and the threads that it starts later, to the generator's CPU.
    pub fn bind_generator(&self) {
        if let Some(cpu) = self.generator {
            let mut set = CpuSet::new();
            set.set(cpu);
            // Without the binding, figures only vary more.
            let _ = sched_setaffinity(None, &set);
        }
    }
}

/// A cable in this process, with a vhost-user socket at either end. Dropping it stops its worker and
/// removes its sockets.
pub struct FreshCable {
    panel: Panel,
    sockets: Option<VhostUserSockets>,
    lanes: Vec<Arc<LaneStats>>,
    folder: PathBuf,
}

impl FreshCable {
    /// Starts a worker with the cable, and listens on the sockets.
    ///
    /// # Errors
    /// When the worker cannot start or a socket cannot be made.
    pub fn start(options: &PanelOptions) -> Result<FreshCable, BenchError> {
        let folder = std::env::temp_dir().join(format!("ikv-bench-{}", std::process::id()));
        DirBuilder::new()
            .mode(0o700)
            .create(&folder)
            .map_err(failed)?;
        let panel = Panel::start(options, || {}).map_err(failed)?;
        let mut fresh = FreshCable {
            panel,
            sockets: None,
            lanes: Vec::new(),
            folder,
        };
        fresh.open().map_err(failed)?;
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

    /// The cable's counters, one set for each lane.
    pub fn counters(&self) -> Vec<LaneSnapshot> {
        self.lanes.iter().map(|lane| lane.snapshot()).collect()
    }

    /// Adds another cable to the same panel.
    ///
    /// # Errors
    /// When the worker cannot watch the cable's ports.
    pub(crate) fn add_cable(&self, cable: Cable) -> Result<(), BenchError> {
        self.panel.add(cable).wait().map(drop).map_err(failed)
    }

    /// The cable's ends, and the meter of its worker.
    pub fn testbed(&self) -> Testbed {
        Testbed {
            ends: ["a", "b"].map(|name| CableEnd::VhostUser(self.folder.join(name))),
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
        // A folder that remains in /tmp does no harm.
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

fn failed(error: impl std::fmt::Display) -> BenchError {
    BenchError::FreshCable(error.to_string())
}
