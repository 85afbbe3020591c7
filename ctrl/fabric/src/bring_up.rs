//! How a fabric comes up, stage by stage, and how it is taken down.
//!
//! [`Running`] owns what exists at every moment: each stage puts what it makes into it before the
//! next `await`. So a caller may drop [`bring_up()`] at any of them and call [`Running::take_down`].

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use tokio::net::UnixListener;
use tokio::sync::{Notify, mpsc};
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::accepted;
use crate::cables::Cables;
use crate::cables::batch::CheckedBatch;
use crate::cables::error::CablesError;
use crate::cables::open::CableOpener;
use crate::cables::panel::PatchPanel;
use crate::change::control::ChangeControl;
use crate::descriptors::make_room;
use crate::events::observer;
use crate::fabric::Fabric;
use crate::files::{self, Clients, make_folder};
use crate::host::Host;
use crate::live::Live;
use crate::options::{BringUpError, Options};
use crate::owner::Person;
use crate::preflight::needs::{host_input, host_words};
use crate::preflight::refuse_obstacles;
use crate::progress::Progress;
use crate::recorder::Recorder;
use crate::state::FabricState;
use crate::supervision::{endless, look_after_workers, supervised};
use crate::switches::Switches;
use crate::switches::bmcs::Bmcs;
use crate::switches::displays::{self, Display};
use crate::switches::factory::{Machine, SwitchFactory, machine};
use crate::{cable_events, jail, links, readiness, rights, upkeep, way_out};
use host::alarm::HostAlarm;
use host::execute::{self, HostChangeError, HostTaps};
use host::lock::{Lock, StatePaths};
use host::plan;
use host::rootless::{self, WORLD};
use host::watch::LinkWatch;
use model::cable_change::{CableBatch, CableChange, ImpairmentChange};
use model::config::Config;
use web::Page;

/// How long a change that is under way may take to stop. It takes longer only while it waits for a
/// stuck worker or for a guest.
const CHANGE_LIMIT: Duration = Duration::from_secs(1);

/// Owns everything that must be removed when the fabric ends.
#[derive(Default)]
pub struct Running {
    // Fields are dropped in this order: first the tasks that use the rest, last the lock.
    tasks: JoinSet<()>,
    fabric: Option<Arc<Fabric>>,
    host: Arc<Host>,
    panel: Option<PatchPanel>,
    lock: Option<Lock>,
}

/// Brings a fabric up. `running` owns everything that exists, at every moment: a caller that stops
/// waiting, or gets an error, calls [`Running::take_down`].
///
/// # Errors
/// The first stage that failed.
pub async fn bring_up(
    options: &Options,
    running: &mut Running,
    progress: &Progress,
) -> Result<Arc<Fabric>, BringUpError> {
    let paths = StatePaths::beside(&options.socket);
    let owner = Person::of(&options.plan.config)?;
    let mut stages = BringUp {
        options,
        owner,
        paths,
        progress,
        running,
    };
    stages.clean_up_before()?;
    stages.tell_of_namespaces().await;
    refuse_obstacles(&options.plan, &stages.paths, progress)?;
    let machine = stages.find_machine().await?;
    let image = machine.as_ref().map(Machine::image_root);
    let host_taps = stages.change_host()?;
    let displays = stages.open_displays()?;
    let plugged = stages.plug_cables(host_taps).await?;
    let (fabric, changes) = stages.compose(plugged.cables, plugged.recorder);
    if let Some(machine) = machine {
        stages.start_switches(&fabric, machine).await?;
        stages.start_bmcs(&fabric).await?;
    }
    if let Some(words) = displays::words(&options.plan, &stages.paths) {
        progress.note(&format!("  · {words}"));
    }
    fabric.live.report_cuts_to_devices().await;
    let watch = LinkWatch::open(fabric.live.state().devices()).map_err(BringUpError::Watch)?;
    let alarm = HostAlarm::open(upkeep::concern(&options.plan)).map_err(BringUpError::Watch)?;
    let listener = stages.listen()?;
    stages.give_up_rights(image.as_deref())?;
    let running = stages.running;
    running.follow(&fabric, (watch, changes), plugged.events);
    running.look_after_host(&fabric, alarm);
    running.serve(&fabric, listener, displays);
    if let Some(page) = &options.page {
        let served = page.serve(fabric.clone()).map_err(BringUpError::Page)?;
        let served = endless(fabric.live.clone(), "serves the page", served);
        running.tasks.spawn(served);
    }
    Ok(fabric)
}

/// The stages of bringing up a fabric. A stage puts everything that must be removed later into
/// `running`.
struct BringUp<'a> {
    options: &'a Options,
    owner: Person,
    /// As the journal records them: relative if `--socket` is.
    paths: StatePaths,
    progress: &'a Progress,
    running: &'a mut Running,
}

/// Cables that are plugged in, with their configured states and impairments. [`Running`] owns the
/// panel that carries them.
struct Plugged {
    cables: Cables,
    recorder: Option<Recorder>,
    /// Notified when the cables have events to read.
    events: Arc<Notify>,
}

impl BringUp<'_> {
    /// Takes the lock and removes what a killed fabric has left behind.
    fn clean_up_before(&mut self) -> Result<(), BringUpError> {
        let lock = self.running.lock.insert(Lock::acquire(&self.paths)?);
        if let Some(cleaned) = execute::clean(lock)? {
            self.progress.note(&format!(
                "  took away what the fabric with pid {} had left",
                cleaned.pid
            ));
        }
        Ok(())
    }

    /// For a fabric without root: says where it is, what its jail lacks, and whether it has a way out.
    async fn tell_of_namespaces(&self) {
        let Some(rootless) = rootless::entered() else {
            return;
        };
        let note = |text: &str| self.progress.note(text);
        note("  · without root: in namespaces of yours, which `ikv-fabric shell` enters");
        let plan = &self.options.plan;
        let lacks = jail::lacks(&plan.config).filter(|_| !plan.switches.is_empty());
        if let Some(lacks) = lacks {
            note(&format!("  ! {lacks}"));
        }
        match way_out::opened(rootless).await {
            Ok(()) => note(&format!("  · way out: {WORLD}, by pasta")),
            Err(why) => note(&format!("  ! no way out to the world: {why}")),
        }
    }

    /// Finds the image, QEMU and accelerator that the switches will run on. `None` if no switch
    /// will run.
    async fn find_machine(&self) -> Result<Option<Machine>, BringUpError> {
        let plan = &self.options.plan;
        if plan.switches.is_empty() {
            return Ok(None);
        }
        machine(&plan.config, self.progress).await.map(Some)
    }

    /// Creates devices, addresses, routes and nftables tables. Returns the host's own taps.
    fn change_host(&mut self) -> Result<HostTaps, BringUpError> {
        let stage = self.progress.stage("host");
        let plan = &self.options.plan;
        let steps = plan::plan(&host_input(plan, &self.owner));
        let lock = self.running.lock.as_ref().expect("the first stage took it");
        let taps = self.running.host.execute(&steps, lock)?;
        if let Some(rootless) = rootless::entered() {
            let range = plan.topology.host.range;
            rootless.shut_host(range).map_err(BringUpError::ShutHost)?;
        }
        stage.done(&host_words(&plan.topology));
        Ok(taps)
    }

    fn open_displays(&self) -> Result<Vec<Display>, BringUpError> {
        let host = &self.running.host;
        displays::open(&self.options.plan, host, &self.paths, &self.owner)
    }

    /// Starts the workers and plugs the cables in.
    async fn plug_cables(&mut self, host_taps: HostTaps) -> Result<Plugged, BringUpError> {
        let stage = self.progress.stage("cables");
        let plan = &self.options.plan;
        // What it says has been said before anything was changed.
        make_room(plan.topology.cables.len())?;
        // Folders enter the journal before they are created: if this process is killed in between,
        // `clean` still removes them.
        self.running.host.will_create(&self.paths.vhost)?;
        if !plan.switches.is_empty() {
            self.running.host.will_create(&self.paths.vms)?;
        }
        let opener = CableOpener::new(plan, &self.paths, &self.owner);
        opener.make_folders()?;
        let planned = opener.open(host_taps)?;
        let events = Arc::new(Notify::new());
        let notified = events.clone();
        let notifier = move || notified.notify_one();
        let rights = rights::for_threads(&plan.config);
        let panel = PatchPanel::start(&self.options.panel, rights, notifier)?;
        // The panel goes into `running` before the next await: if the caller stops waiting there,
        // `take_down` still stops the workers.
        let mut cables = Cables::none(self.running.panel.insert(panel).clone());
        cables.plug(planned).await?;
        let recorder = self.record(&cables).await?;
        let batch = configured(&plan.config);
        CheckedBatch::check(&plan.topology, &cables, &batch)?
            .commit(&cables)
            .await?;
        stage.done(&in_words(&cables));
        Ok(Plugged {
            cables,
            recorder,
            events,
        })
    }

    /// Records every cable from now on, if a recorder is configured.
    async fn record(&self, cables: &Cables) -> Result<Option<Recorder>, BringUpError> {
        let Some(options) = self.options.recorder.clone() else {
            return Ok(None);
        };
        let folder = &self.paths.recorder;
        self.running.host.will_create(folder)?;
        let folder = std::path::absolute(folder).unwrap_or_else(|_| folder.clone());
        let names = &self.options.plan.topology;
        Ok(Some(
            Recorder::start(cables, options, names, &folder).await?,
        ))
    }

    /// Makes the fabric of its parts; no switch runs yet.
    fn compose(
        &mut self,
        cables: Cables,
        recorder: Option<Recorder>,
    ) -> (Arc<Fabric>, mpsc::UnboundedReceiver<links::WatchedChange>) {
        let Options {
            plan,
            choice,
            socket,
            page,
            ..
        } = self.options;
        let absolute = std::path::absolute(socket).unwrap_or_else(|_| socket.clone());
        let state = FabricState::new(plan.clone(), cables, BTreeMap::new());
        let host = self.running.host.clone();
        let paths = StatePaths::beside(&absolute);
        let (watched, changes) = mpsc::unbounded_channel();
        let fabric = Arc::new(Fabric::new(
            Live::new(state, host, paths, self.owner.clone()),
            Switches::new(&plan.config),
            recorder,
            ChangeControl::new(choice.clone(), watched),
            page.as_ref().map(Page::link),
        ));
        self.running.fabric = Some(fabric.clone());
        (fabric, changes)
    }

    /// Writes each switch's disk and starts its VM.
    async fn start_switches(
        &mut self,
        fabric: &Fabric,
        machine: Machine,
    ) -> Result<(), BringUpError> {
        let plan = &self.options.plan;
        self.running.host.will_create(&self.paths.ssh)?;
        make_folder(&self.paths.ssh)?;
        let factory = SwitchFactory::new(&plan.config, &self.owner, machine, &self.paths).await?;
        let factory = fabric.switches.make_with(factory);
        let maker = factory.maker(plan).await?;
        factory.write_ssh_files(&maker)?;
        let mut specs = Vec::new();
        for index in plan.switches.iter() {
            specs.push((index, maker.prepare(index)?));
            // Writing a disk does not await: yield, so that Ctrl-C takes effect between two disks.
            tokio::task::yield_now().await;
        }
        // Before the first switch starts, because switches start from saved states.
        let wanted: Vec<_> = specs.iter().map(|(_, spec)| spec).collect();
        factory.make_states(&wanted, self.progress).await;
        let stage = self.progress.stage("switches");
        for (index, spec) in specs {
            let switch = factory.start(spec, &plan.topology, index);
            fabric.live.add_switch(index, switch);
        }
        stage.done("started");
        Ok(())
    }

    /// Starts a BMC for each switch that runs, if BMCs are configured.
    async fn start_bmcs(&mut self, fabric: &Fabric) -> Result<(), BringUpError> {
        let Some(bmcs) = Bmcs::prepare(&fabric.live, &self.paths.ipmi).await? else {
            return Ok(());
        };
        let bmcs = fabric.switches.add_bmcs(bmcs);
        let state = fabric.live.state();
        for index in state.switches.keys() {
            bmcs.start(&fabric.live, &state, *index)?;
        }
        if let Some(words) = bmcs.words() {
            self.progress.note(&format!("  · {words}"));
        }
        Ok(())
    }

    fn listen(&self) -> Result<UnixListener, BringUpError> {
        self.running.host.will_create(&self.paths.socket)?;
        listen(&self.options.socket, &self.owner)
    }

    /// Gives up all rights of root except those that a running fabric needs. `image` is the largest
    /// file of the switch image.
    fn give_up_rights(&self, image: Option<&Path>) -> Result<(), CablesError> {
        let recorder = self.options.recorder.as_ref();
        let mut files = vec![self.paths.folder.as_path()];
        files.extend(recorder.and_then(|recorder| recorder.folder.as_deref()));
        files.extend(image);
        let kept = rights::for_fabric(&self.options.plan.switches, &files);
        rights::settle(kept).map_err(CablesError::Rights)
    }
}

impl Running {
    /// Starts the tasks that follow what happens to the fabric's devices, cables and switches.
    fn follow(
        &mut self,
        fabric: &Arc<Fabric>,
        (watch, changes): (LinkWatch, mpsc::UnboundedReceiver<links::WatchedChange>),
        events: Arc<Notify>,
    ) {
        let (live, tasks) = (&fabric.live, &mut self.tasks);
        let links = links::follow(live.clone(), watch, changes);
        tasks.spawn(endless(live.clone(), "follows the devices", links));
        let cables = cable_events::follow(live.clone(), events);
        tasks.spawn(endless(live.clone(), "follows the cables", cables));
        let workers = look_after_workers(live.clone());
        tasks.spawn(endless(live.clone(), "looks after the workers", workers));
        let triggers = fabric.clone().watch_triggers();
        let what = "watches the recorder's triggers";
        tasks.spawn(supervised(live.clone(), what, triggers));
        let observed = observer::follow(fabric.clone());
        tasks.spawn(endless(live.clone(), "writes down what happens", observed));
        if let Some(rootless) = rootless::entered() {
            let way_out = way_out::watch(live.clone(), rootless);
            tasks.spawn(supervised(live.clone(), "watches the way out", way_out));
        }
        let state = live.state();
        if state.cables.panel().workers() > 1 {
            let balance = cable_events::balance(live.clone());
            let what = "evens out the workers' load";
            tasks.spawn(endless(live.clone(), what, balance));
        }
        for switch in state.switches.values() {
            for follower in fabric.switches.followers(live, switch) {
                tasks.spawn(follower);
            }
        }
        if !state.switches.is_empty() {
            let judge = readiness::judge(live.clone());
            let what = "judges whether the fabric is ready";
            tasks.spawn(endless(live.clone(), what, judge));
            let accepted = accepted::follow(live.clone());
            let what = "asks what FRR took of its configuration";
            tasks.spawn(endless(live.clone(), what, accepted));
        }
    }

    /// Starts the task that sees to it that the host stays as the fabric made it.
    fn look_after_host(&mut self, fabric: &Arc<Fabric>, alarm: HostAlarm) {
        let live = &fabric.live;
        let upkeep = upkeep::follow(live.clone(), alarm);
        self.tasks
            .spawn(endless(live.clone(), "follows the host's network", upkeep));
    }

    /// Starts the tasks that serve clients.
    fn serve(&mut self, fabric: &Arc<Fabric>, listener: UnixListener, displays: Vec<Display>) {
        let served = fabric.clone();
        let served = api::serve(listener, served);
        self.tasks
            .spawn(endless(fabric.live.clone(), "serves the API", served));
        for display in displays {
            let server = fabric.switches.display_server(&fabric.live, display);
            self.tasks.spawn(server);
        }
    }

    /// Removes everything: switches, the changes to the host, and cables.
    ///
    /// # Errors
    /// What could not be undone; `ikv-fabric clean` tries again.
    pub async fn take_down(mut self) -> Result<(), HostChangeError> {
        if let Some(fabric) = &self.fabric {
            self.end_change(fabric).await;
        }
        self.tasks.shutdown().await;
        if let Some(fabric) = &self.fabric {
            fabric.live.set_ready(false);
            // BMCs before switches: a BMC can start a switch again.
            if let Some(bmcs) = fabric.switches.bmcs() {
                bmcs.stop_all().await;
            }
            let state = fabric.live.state();
            join_all(state.switches.values().map(|switch| switch.vm().stop())).await;
        }
        // Devices before cables: the kernel removes all devices at once quickly, but closing their
        // descriptors one by one is slow.
        let undone = self.host.undo().await;
        if let Some(panel) = &self.panel {
            panel.stop().await;
        }
        if let Some(rootless) = rootless::entered() {
            rootless.close_way_out();
        }
        // After a failure the lock and its journal stay, so that `ikv-fabric clean` knows what is
        // left.
        if undone.is_ok()
            && let Some(lock) = self.lock.take()
            && let Err(error) = lock.release()
        {
            tracing::warn!(%error);
        }
        undone
    }

    /// Stops a change that is under way and admits no others.
    async fn end_change(&self, fabric: &Fabric) {
        if timeout(CHANGE_LIMIT, fabric.change.end()).await.is_ok() {
            return;
        }
        // The change may be waiting for a stuck worker. Stopping the panel ends that wait.
        if let Some(panel) = &self.panel {
            panel.stop().await;
        }
        fabric.change.end().await;
    }
}

fn in_words(cables: &Cables) -> String {
    let workers = match cables.panel().workers() {
        1 => "1 worker".into(),
        several => format!("{several} workers"),
    };
    format!(
        "{} cables, {} ends, {workers}",
        cables.len(),
        2 * cables.len()
    )
}

/// The cables' configured states and impairments, applied before the first frame.
fn configured(config: &Config) -> CableBatch {
    let changes = config.cable.iter().map(|keys| CableChange {
        cable: keys.called().to_owned(),
        state: keys.state,
        impair: (!keys.impair.is_empty()).then(|| ImpairmentChange {
            from: keys.from.clone(),
            clear: false,
            set: keys.impair.clone(),
        }),
    });
    CableBatch {
        changes: changes.collect(),
    }
}

/// Listens at `socket`, which only its owner may use from the first moment on. The caller holds the
/// lock beside it.
///
/// # Errors
/// When the folder is missing or cannot be written to.
pub fn listen(socket: &Path, owner: &Person) -> Result<UnixListener, BringUpError> {
    let failed = |source| BringUpError::Listen {
        socket: PathBuf::from(socket),
        source,
    };
    // A killed fabric may have left its socket here. The caller holds the lock, so no live fabric
    // uses it.
    files::remove(socket);
    let listener = files::listen(socket, Clients::owner(owner)).map_err(failed)?;
    listener.set_nonblocking(true).map_err(failed)?;
    UnixListener::from_std(listener).map_err(failed)
}
