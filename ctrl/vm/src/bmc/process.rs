//! Starts an `ipmi_sim`, connects it to its switch, and restarts it when it ends.

use std::io;
use std::net::{Ipv4Addr, TcpListener};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream as StdStream;
use std::process::{ExitStatus, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::net::{TcpStream, UnixStream};
use tokio::process::{Child, Command};
use tokio::sync::{Notify, watch};
use tokio::time::{sleep, timeout};

use super::bus::Bus;
use super::files::{self, COMMANDS, LAN_CONF};
use super::spec::{BmcSpec, BmcState};
use super::{chassis, peer};
use crate::child::{MARK, SETPRIV, identity};
use crate::handle::Vm;
use crate::jail::PRLIMIT;
use crate::stderr::Stderr;

const IPMI_SIM: &str = "ipmi_sim";

/// The first and the longest pause before a restart; it doubles in between.
const PAUSE: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(10));

/// After a run of this length, the pause starts over at its first value.
const STABLE: Duration = Duration::from_secs(30);

/// How long it may take to come up. It takes 20 ms on an idle machine.
const COME_UP: Duration = Duration::from_secs(20);

/// How long the kernel may take to report the end of a process whose sockets are closed.
const LAST_MOMENT: Duration = Duration::from_millis(100);

/// The pause between two attempts to connect to it.
const LOOK_AGAIN: Duration = Duration::from_millis(10);

pub(super) struct Supervisor {
    spec: BmcSpec,
    vm: Vm,
    state: watch::Sender<BmcState>,
    bus: Bus,
    child: Option<Child>,
}

impl Supervisor {
    pub(super) fn new(spec: BmcSpec, vm: Vm, state: watch::Sender<BmcState>) -> Self {
        Self {
            spec,
            vm,
            state,
            bus: Bus::default(),
            child: None,
        }
    }

    pub(super) async fn run(mut self, stop: Arc<Notify>) {
        tokio::select! {
            () = self.keep_running() => {}
            () = stop.notified() => {}
        }
        self.end().await;
    }

    async fn keep_running(&mut self) {
        let mut pause = PAUSE.0;
        loop {
            let began = Instant::now();
            let why = self.run_once().await;
            self.end().await;
            if began.elapsed() >= STABLE {
                pause = PAUSE.0;
            }
            // The fabric reports this once; here it would be repeated at each restart.
            tracing::debug!(switch = self.spec.name, why, "its BMC ended");
            self.state.send_replace(BmcState::Down(why));
            sleep(pause).await;
            pause = (2 * pause).min(PAUSE.1);
            self.state.send_replace(BmcState::Starting);
        }
    }

    /// Runs an `ipmi_sim` from its start to its end. Returns the reason for the end.
    async fn run_once(&mut self) -> String {
        let (ours, theirs) = match StdStream::pair() {
            Ok(pair) => pair,
            Err(error) => return error.to_string(),
        };
        let line = match free_port() {
            Ok(line) => line,
            Err(error) => return format!("no port of {} is free: {error}", Ipv4Addr::LOCALHOST),
        };
        if let Err(error) = files::set_line(&self.spec, line) {
            return format!("{}: {error}", self.spec.folder.display());
        }
        let mut child = match command(&self.spec, theirs.into()).spawn() {
            Ok(child) => child,
            Err(error) => {
                return format!("{SETPRIV} cannot be run: {error}; install util-linux");
            }
        };
        let mut stderr = Stderr::follow(child.stderr.take().expect("stderr is piped by command()"));
        let child = self.child.insert(child);
        let (spec, vm, state, bus) = (&self.spec, &self.vm, &self.state, &mut self.bus);
        let serve = async {
            let socket = ours
                .set_nonblocking(true)
                .and_then(|()| UnixStream::from_std(ours));
            match socket {
                Ok(socket) => chassis::serve(socket, vm).await,
                Err(error) => error,
            }
        };
        let carry = async {
            match timeout(COME_UP, connect(line, spec.uid)).await {
                Ok(Ok(bmc)) => {
                    state.send_replace(BmcState::Running);
                    bus.carry(bmc, vm.bmc_line(), vm).await
                }
                Ok(Err(error)) => error,
                Err(_) => io::Error::new(io::ErrorKind::TimedOut, "it does not come up"),
            }
        };
        let why = tokio::select! {
            // Its exit status explains an end best, so it is checked first.
            biased;
            status = child.wait() => ended(status),
            error = serve => format!("its chassis: {error}"),
            error = carry => format!("its line to the switch: {error}"),
        };
        // Its sockets close a moment before the kernel reports its end.
        let why = timeout(LAST_MOMENT, child.wait()).await.map_or(why, ended);
        self.end().await;
        let words = stderr.last_words().await;
        format!("{why}: {words}").trim_end_matches(": ").to_owned()
    }

    /// Kills the process, if it runs. It has no state that could be lost.
    async fn end(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill().await;
        }
    }
}

fn ended(status: io::Result<ExitStatus>) -> String {
    match status {
        Ok(status) => format!("{IPMI_SIM} ended with {status}"),
        Err(error) => format!("cannot wait for {IPMI_SIM}: {error}"),
    }
}

/// A free TCP port of 127.0.0.1. If another process takes it before `ipmi_sim` does, `ipmi_sim`
/// ends, and the next attempt uses another port.
fn free_port() -> io::Result<u16> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    Ok(listener.local_addr()?.port())
}

/// Connects to the `ipmi_sim` at that port. Refuses a process whose uid is not `wanted`.
async fn connect(port: u16, wanted: u32) -> io::Result<TcpStream> {
    let stream = loop {
        match TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await {
            Ok(stream) => break stream,
            Err(_) => sleep(LOOK_AGAIN).await,
        }
    };
    stream.set_nodelay(true)?;
    loop {
        match peer::uid(&stream)? {
            Some(uid) if uid == wanted => return Ok(stream),
            Some(uid) => {
                return Err(io::Error::other(format!(
                    "a process of uid {uid} waits at 127.0.0.1:{port} in its place"
                )));
            }
            None => sleep(LOOK_AGAIN).await,
        }
    }
}

/// `ipmi_sim`, started by setpriv(1), which sets the parent-death signal after the uid, because a
/// change of uid clears the signal.
fn command(spec: &BmcSpec, chassis: OwnedFd) -> Command {
    let mut command = Command::new(SETPRIV);
    command
        .args(identity(spec.uid, None))
        .args(["--no-new-privs", "--bounding-set=-all", "--inh-caps=-all"])
        .args(["--pdeathsig", "KILL", "--"])
        // Its chassis program needs two more processes. It needs to write no files, with which it
        // could only fill the disk.
        .args([PRLIMIT, "--nofile=64", "--fsize=0"])
        // The limit counts all processes of a uid. Uid 0 is the user, who has others.
        .args((spec.uid != 0).then_some("--nproc=16"))
        .args(["--core=0", "--as=268435456", "--"])
        // -n leaves standard input and output to the chassis program. -p keeps nothing in files, so
        // that the next start restores everything that was changed by IPMI.
        .args([IPMI_SIM, "-n", "-p", "-c", LAN_CONF, "-f", COMMANDS])
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap_or_default())
        .env(MARK, &spec.folder)
        .current_dir(&spec.folder)
        .stdin(Stdio::from(chassis))
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .process_group(0)
        .kill_on_drop(true);
    command
}
