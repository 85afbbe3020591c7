//! How a fabric comes up and goes away, step by step.

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock};

use dataplane::rights::{CapabilitySet, keep};
use futures_util::future::join_all;
use tokio::net::UnixListener;
use tokio::sync::{Notify, mpsc};
use tokio::task::JoinSet;

use super::Fabric;
use super::cables::{Cables, CablesError};
use super::change::Change;
use super::descriptors::make_room;
use super::ends::Sockets;
use super::impair::CheckedBatch;
use super::links::{Plugged, SharedHostChanges, Watched, write_down};
use super::look_ahead::{host_input, host_words, look_ahead};
use super::options::{BringUpError, Options};
use super::owner::Person;
use super::recorder::{Named, Recorder, RecorderOptions};
use super::whole::Whole;
use super::{displays, rights, sockets, start};
use crate::progress::Progress;
use api::{self};
use host::execute::{self, HostChangeError, HostChanges, HostTaps};
use host::lock::{Lock, StatePaths};
use host::plan;
use host::watch::LinkWatch;
use model::cable_change::{CableBatch, CableChange, CableState, ImpairmentChange};
use model::config::Config;
use model::topology::{End, EndOwner, Topology};

/// Everything that must be taken away again.
#[derive(Default)]
pub struct Running {
    lock: Option<Lock>,
    applied: SharedHostChanges,
    fabric: Option<Arc<Fabric>>,
    tasks: JoinSet<()>,
}

/// Brings a fabric up. `running` holds at every moment what exists: a caller that stops
/// waiting, or gets an error, calls [`Running::take_down`].
///
/// # Errors
/// The first step that failed.
pub async fn bring_up(
    options: &Options,
    running: &mut Running,
    progress: &Progress,
) -> Result<Arc<Fabric>, BringUpError> {
    let Options {
        config,
        topology,
        socket,
        ..
    } = options;
    let owner = Person::find(config.owner.as_ref())?;
    let paths = StatePaths::beside(socket);
    clean_up_before(running, &paths, progress)?;
    look_ahead(options, &paths, progress)?;

    let with_vms = !options.switches.is_empty();
    let machine = if with_vms {
        Some(start::machine(config, progress).await?)
    } else {
        None
    };

    let stage = progress.stage("host");
    let steps = plan::plan(&host_input(config, topology, &options.switches, &owner));
    let lock = running.lock.as_ref().expect("taken above");
    let mut applied = execute::execute(&steps, lock, |_| {})?;
    let host_taps = applied.take_host_taps();
    *running
        .applied
        .lock()
        .expect("no holder of this lock can panic") = Some(applied);
    stage.done(&host_words(topology));

    let stage = progress.stage("cables");
    if let Some(notice) = make_room(topology.cables.len())? {
        progress.note(&format!("  ! {notice}"));
    }
    let carriers = seconds(&host_taps);
    let cable_news = Arc::new(Notify::new());
    let bell = cable_news.clone();
    let displays = displays::open(options, &running.applied, &paths, &owner)?;
    let (watched, changes) = mpsc::unbounded_channel();
    let ring = move || bell.notify_one();
    let (cables, recorder) = plug(options, running, &paths, &owner, host_taps, ring)?;
    let cut = as_configured(topology, &cables, config).inspect_err(|_| cables.stop())?;
    stage.done(&in_words(&cables));

    let absolute = std::path::absolute(socket).unwrap_or_else(|_| socket.clone());
    let mut whole = Whole {
        config: config.clone(),
        topology: topology.clone(),
        selection: options.switches.clone(),
        reached: options.switches.reached(topology),
        cables,
        switches: BTreeMap::new(),
    };
    let fabric = |whole, fleet| Fabric {
        whole: Mutex::new(Arc::new(whole)),
        paths: StatePaths::beside(&absolute),
        recorder,
        host_taps: carriers,
        fleet,
        display_password: displays::password(config),
        ipmi: OnceLock::new(),
        ready: AtomicBool::new(!with_vms),
        plugged: Plugged::default(),
        notices: Mutex::default(),
        news: Notify::new(),
        change: Change::new(&running.applied, options, &owner, watched),
    };
    let image = machine.as_ref().map(start::Machine::image_root);
    let mut fleet = None;
    if let Some(machine) = machine {
        let result =
            start::start(options, &owner, machine, &running.applied, &paths, progress).await;
        match result {
            Ok((switches, made)) => (whole.switches, fleet) = (switches, Some(made)),
            Err(error) => {
                running.fabric = Some(Arc::new(fabric(whole, None)));
                return Err(error);
            }
        }
    }
    if let Some(words) = displays::words(options, &paths) {
        progress.note(&format!("  · {words}"));
    }
    let fabric = running
        .fabric
        .insert(Arc::new(fabric(whole, fleet)))
        .clone();
    fabric.start_bmcs(&owner, &running.applied, &paths, progress)?;
    fabric.tell_ends_of(&fabric.whole(), &cut).await;
    write_down(&running.applied, &paths.socket)?;
    let listener = listen(socket, &owner)?;
    let watch = LinkWatch::open(fabric.whole().devices()).map_err(BringUpError::Watch)?;
    give_up_rights(options, &paths, image.as_deref())?;
    running.attend(&fabric, listener, (watch, changes), cable_news);
    for display in displays {
        running.tasks.spawn(fabric.clone().attend_display(display));
    }
    Ok(fabric)
}

/// Keeps those of root's rights that a fabric which stands still needs.
fn give_up_rights(
    options: &Options,
    paths: &StatePaths,
    image: Option<&Path>,
) -> Result<(), CablesError> {
    let recorder = options.recorder.as_ref();
    let mut files = vec![paths.folder.as_path()];
    files.extend(recorder.and_then(|recorder| recorder.folder.as_deref()));
    files.extend(image);
    keep(rights::for_fabric(&options.switches, &files)).map_err(CablesError::Rights)
}

impl Running {
    /// Starts the tasks of a fabric that stands.
    fn attend(
        &mut self,
        fabric: &Arc<Fabric>,
        listener: UnixListener,
        watch: (LinkWatch, mpsc::UnboundedReceiver<Watched>),
        cable_news: Arc<Notify>,
    ) {
        self.tasks
            .spawn(fabric.clone().attend_links(watch, self.applied.clone()));
        let served = fabric.clone();
        self.tasks.spawn(async move {
            api::serve(listener, served).await;
        });
        self.tasks.spawn(fabric.clone().attend_cables(cable_news));
        self.tasks.spawn(fabric.clone().attend_recorder());
        let whole = fabric.whole();
        if whole.cables.workers() > 1 {
            self.tasks.spawn(fabric.clone().balance());
        }
        for switch in whole.switches.values() {
            let [sessions, cables] = fabric.followers(switch);
            self.tasks.spawn(sessions);
            self.tasks.spawn(cables);
        }
        if !whole.switches.is_empty() {
            self.tasks.spawn(fabric.clone().judge());
        }
    }

    /// Takes everything away again: switches, cables, and what was done to the host.
    ///
    /// # Errors
    /// What could not be undone; `ikv-fabric clean` tries again.
    pub async fn take_down(mut self) -> Result<(), HostChangeError> {
        if let Some(fabric) = &self.fabric {
            fabric.change.end().await;
        }
        self.tasks.shutdown().await;
        if let Some(fabric) = &self.fabric {
            fabric.ready.store(false, Ordering::Relaxed);
            // First, so that none of them starts a switch again.
            fabric.stop_bmcs().await;
            let whole = fabric.whole();
            join_all(whole.switches.values().map(|switch| switch.vm().stop())).await;
        }
        // Devices first: removing all at once is fast, closing the descriptor of each is not.
        let applied = self
            .applied
            .lock()
            .expect("no holder of this lock can panic")
            .take();
        let undone = applied.map_or(Ok(()), HostChanges::undo);
        if let Some(fabric) = &self.fabric {
            fabric.whole().cables.stop();
        }
        if undone.is_ok()
            && let Some(lock) = self.lock.take()
            && let Err(error) = lock.release()
        {
            tracing::warn!(%error);
        }
        undone
    }
}

/// Second descriptors of the same taps.
fn seconds(taps: &HostTaps) -> HostTaps {
    let second = |(name, tap): (&String, &OwnedFd)| Some((name.clone(), tap.try_clone().ok()?));
    taps.iter().filter_map(second).collect()
}

fn in_words(cables: &Cables) -> String {
    let workers = match cables.workers() {
        1 => "1 worker".into(),
        several => format!("{several} workers"),
    };
    format!(
        "{} cables, {} ends, {workers}",
        cables.len(),
        2 * cables.len()
    )
}

/// What the configuration says of cables, before the first frame. Returns those that are cut.
fn as_configured(
    topology: &Topology,
    cables: &Cables,
    config: &Config,
) -> Result<Vec<usize>, BringUpError> {
    let changes = config.cable.iter().map(|keys| CableChange {
        cable: keys.called().to_owned(),
        state: keys.state,
        impair: (!keys.impair.is_empty()).then(|| ImpairmentChange {
            from: keys.from.clone(),
            clear: false,
            set: keys.impair.clone(),
        }),
    });
    let step = CableBatch {
        changes: changes.collect(),
    };
    let (_, states) = CheckedBatch::check(topology, cables, &step)?.apply(cables)?;
    let cut = states
        .into_iter()
        .filter(|(_, state)| *state == CableState::Down);
    Ok(cut.map(|(index, _)| index).collect())
}

fn clean_up_before(
    running: &mut Running,
    paths: &StatePaths,
    progress: &Progress,
) -> Result<(), BringUpError> {
    let lock = running.lock.insert(Lock::acquire(paths)?);
    if let Some(cleaned) = execute::clean(lock)? {
        progress.note(&format!(
            "  took away what the fabric with pid {} had left",
            cleaned.pid
        ));
    }
    Ok(())
}

/// Plugs every cable in, and records what passes if that is wanted.
fn plug(
    options: &Options,
    running: &Running,
    paths: &StatePaths,
    owner: &Person,
    host_taps: HostTaps,
    bell: impl Fn() + Clone + Send + Sync + 'static,
) -> Result<(Cables, Option<Recorder>), BringUpError> {
    write_down(&running.applied, &paths.vhost)?;
    if !options.switches.is_empty() {
        write_down(&running.applied, &paths.vms)?;
    }
    let Options {
        config,
        topology,
        switches,
        ..
    } = options;
    let sockets = Sockets::new(config, topology, switches, paths, owner);
    sockets.make_folders()?;
    let planned = sockets.open(host_taps)?;
    let cables = Cables::plug(planned, &options.panel, CapabilitySet::empty(), bell)?;
    let wanted = options.recorder.as_ref();
    let recorder = wanted.map(|wanted| record(wanted, topology, &cables, running, paths));
    match recorder.transpose() {
        Ok(recorder) => Ok((cables, recorder)),
        Err(error) => {
            cables.stop();
            Err(error)
        }
    }
}

/// Records every cable from now on.
fn record(
    wanted: &RecorderOptions,
    topology: &Topology,
    cables: &Cables,
    running: &Running,
    paths: &StatePaths,
) -> Result<Recorder, BringUpError> {
    write_down(&running.applied, &paths.recorder)?;
    let folder = std::path::absolute(&paths.recorder).unwrap_or_else(|_| paths.recorder.clone());
    recorded_names(topology, |names| {
        Ok(Recorder::start(cables, wanted.clone(), names, &folder)?)
    })
}

/// What the recorder must know of a topology's cables.
pub(super) fn recorded_names<T>(topology: &Topology, act: impl FnOnce(&Named<'_>) -> T) -> T {
    let is_switch = |end: &End| matches!(end.owner, EndOwner::Switch { .. });
    act(&Named {
        alias: &|index, side| topology.cables[index].end(side).alias.clone(),
        between_switches: &|index| {
            let cable = &topology.cables[index];
            is_switch(&cable.a) && is_switch(&cable.b)
        },
    })
}

/// Listens at `socket`, for its owner alone from the first moment on. The caller holds the
/// lock beside it.
///
/// # Errors
/// When the folder is missing or cannot be written to.
pub fn listen(socket: &Path, owner: &Person) -> Result<UnixListener, BringUpError> {
    let failed = |source| BringUpError::Listen {
        socket: socket.into(),
        source,
    };
    // Left by one that was killed: whoever holds the lock owns the place.
    let _ = std::fs::remove_file(socket);
    let listener = sockets::listen(socket, (owner.uid, owner.gid)).map_err(failed)?;
    listener.set_nonblocking(true).map_err(failed)?;
    UnixListener::from_std(listener).map_err(failed)
}
