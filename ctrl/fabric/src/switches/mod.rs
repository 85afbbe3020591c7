//! The switches of a running fabric: VMs, consoles, displays and BMCs.

pub(crate) mod bmcs;
mod console;
pub(crate) mod displays;
pub(crate) mod factory;
mod power;
pub(crate) mod saved_states;
pub(crate) mod seeds;
pub(crate) mod sessions;
pub(crate) mod switch;

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use tokio::sync::Semaphore;

use crate::live::Live;
use crate::supervision::{say_ended, supervised};
use api::{ApiError, ConsoleStream, EventKind, ExecAnswer, ExecRequest, SshAccess};
use bmcs::Bmcs;
use displays::Display;
use factory::SwitchFactory;
use model::config::Config;
use model::power::PowerAction;
use power::{CarrierReport, Power};
use switch::Switch;
use vm::VmState;
use vm::agent::{AgentError, Limits, MAX_OUTPUT};

/// The time limit of one `exec` command. Longer ones need `ssh`.
const EXEC_LIMIT: Duration = Duration::from_secs(600);

/// How many switches are asked for their sessions at the same time.
const QUESTIONS: usize = 2;

/// What the switches of a fabric share, and answers to requests about them.
pub(crate) struct Switches {
    /// Empty until the first switch is created; with `--switches none` it stays empty.
    factory: OnceLock<Arc<SwitchFactory>>,
    bmcs: OnceLock<Bmcs>,
    /// The password for VNC clients, if one is needed.
    display_password: Option<String>,
    questions: Arc<Semaphore>,
}

impl Switches {
    pub(crate) fn new(config: &Config) -> Self {
        Switches {
            factory: OnceLock::new(),
            bmcs: OnceLock::new(),
            display_password: displays::password(config),
            questions: Arc::new(Semaphore::new(QUESTIONS)),
        }
    }

    pub(crate) fn factory(&self) -> Option<&Arc<SwitchFactory>> {
        self.factory.get()
    }

    /// Sets the factory that creates all switches from now on.
    pub(crate) fn make_with(&self, factory: SwitchFactory) -> &SwitchFactory {
        self.factory.get_or_init(|| Arc::new(factory))
    }

    /// `None` if the fabric has no BMCs.
    pub(crate) fn bmcs(&self) -> Option<&Bmcs> {
        self.bmcs.get()
    }

    /// Sets the BMCs of the switches.
    pub(crate) fn add_bmcs(&self, bmcs: Bmcs) -> &Bmcs {
        self.bmcs.get_or_init(|| bmcs)
    }

    /// The tasks that follow a switch until its VM is stopped: one follows its sessions, one its
    /// VM.
    pub(crate) fn followers(
        &self,
        live: &Arc<Live>,
        switch: &Arc<Switch>,
    ) -> [BoxFuture<'static, ()>; 2] {
        let questions = self.questions.clone();
        let (notified, followed) = (live.clone(), switch.clone());
        let sessions = async move { followed.follow(&questions, &notified).await };
        let vm = follow_vm(live.clone(), switch.clone());
        [
            supervised(live.clone(), "follows a switch's sessions", sessions).boxed(),
            supervised(live.clone(), "follows a switch's VM", vm).boxed(),
        ]
    }

    /// The task that serves a display until its switch is stopped.
    pub(crate) fn display_server(
        &self,
        live: &Arc<Live>,
        display: Display,
    ) -> BoxFuture<'static, ()> {
        let served = displays::serve(live.clone(), display, self.display_password.clone());
        supervised(live.clone(), "serves a switch's display", served).boxed()
    }

    pub(crate) fn ssh(&self) -> Result<SshAccess, ApiError> {
        let factory = self.factory().ok_or_else(|| {
            ApiError::conflict("this fabric has no switches: it was started with --switches none")
        })?;
        Ok(SshAccess {
            config: factory.ssh_config().display().to_string(),
        })
    }
}

impl Switch {
    /// Runs a command on the switch and waits for its end.
    ///
    /// # Errors
    /// When the input is not base64, or the guest agent does not answer within its time limit.
    pub(crate) async fn exec(&self, exec: ExecRequest) -> Result<ExecAnswer, ApiError> {
        let input = BASE64
            .decode(&exec.stdin)
            .map_err(|error| ApiError::conflict(format!("stdin is not base64: {error}")))?;
        let limits = Limits {
            time: EXEC_LIMIT,
            output: MAX_OUTPUT,
        };
        let agent = self.vm().agent();
        let output = match agent.exec_for_a_caller(exec.argv, input, limits).await {
            Ok(output) => output,
            Err(error) => {
                let sentence = format!("{}: {error}", self.name());
                // As a shell has them (POSIX, 2.8.2).
                return match error {
                    AgentError::NoSuchProgram(_) => Ok(not_started(127, &sentence)),
                    AgentError::NotAProgram(_) => Ok(not_started(126, &sentence)),
                    _ => Err(ApiError::failed(sentence)),
                };
            }
        };
        Ok(ExecAnswer {
            status: output.status.shell_code(),
            stdout: BASE64.encode(output.stdout),
            stderr: BASE64.encode(output.stderr),
            truncated: output.truncated,
        })
    }

    /// Switches it on or off, or resets it.
    ///
    /// # Errors
    /// When its present state does not allow the action.
    pub(crate) async fn power(&self, action: PowerAction) -> Result<(), ApiError> {
        let powered = self.vm().power(action).await;
        powered.map_err(|error| ApiError::conflict(format!("{}: {error}", self.name())))
    }

    /// Attaches a client to its serial console.
    pub(crate) fn console(&self) -> Box<dyn ConsoleStream> {
        Box::new(console::console_stream(self.vm()))
    }
}

/// The answer for a command that could not be started.
fn not_started(status: i32, sentence: &str) -> ExecAnswer {
    ExecAnswer {
        status,
        stdout: String::new(),
        stderr: BASE64.encode(format!("{sentence}\n")),
        truncated: false,
    }
}

/// Reports to the ends of a switch's cables whether they have carrier, each time it has started or ended,
/// and the user of its failures, until its VM is stopped.
async fn follow_vm(live: Arc<Live>, switch: Arc<Switch>) {
    let mut status = switch.vm().watch();
    let mut power = Power::default();
    let mut bad_state = None;
    loop {
        let now = status.borrow_and_update().clone();
        switch.note_state();
        if now.state != VmState::Running {
            // At once, even while a question to it is still open.
            switch.forget();
        }
        // One that is stopped goes away together with its cables.
        let reports = match status.has_changed() {
            Ok(_) => power.look(&now),
            Err(_) => Vec::new(),
        };
        for report in reports {
            match report {
                CarrierReport::OthersLose => live.report_power_of(switch.name(), false).await,
                CarrierReport::OwnCuts => live.report_cuts_to(switch.name()).await,
                CarrierReport::OthersRegain => live.report_power_of(switch.name(), true).await,
            }
        }
        if now.bad_state != bad_state {
            if let Some(reason) = &now.bad_state {
                let notice = bad_state_notice(switch.name(), reason);
                live.notices.say(EventKind::Notice, switch.name(), notice);
            }
            bad_state = now.bad_state;
        }
        if status.changed().await.is_err() {
            if switch.vm().was_abandoned() {
                let what = format!("supervises the VM of {}", switch.name());
                say_ended(&live, &what);
            }
            return;
        }
    }
}

fn bad_state_notice(switch: &str, reason: &str) -> String {
    format!(
        "{switch} does not start from its saved state ({}): it boots normally, as will all \
         others of its shape; the state was removed and is made again at the next run",
        reason.lines().next().unwrap_or_default()
    )
}
