//! Whether FRR took its configuration: asked once for each image, when a fabric is ready on it for the
//! first time. One that was refused a statement is not ready any more.
//!
//! FRR's daemons log a statement that they do not know and go on without it, and from one version to
//! the next a statement may move to another daemon. So a fabric could come up with sessions and
//! routes and yet behave otherwise than configured. Each image has one version of FRR, so that a file in
//! its folder, made once all switches have passed, spares later starts the question.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use tokio::time::timeout;

use crate::files;
use crate::live::Live;
use crate::state::FabricState;
use model::printable;
use vm::agent::{ExitStatus, Limits};
use vm::image::WantedImage;

/// The file in an image's folder.
const MARK: &str = "frr-configuration-accepted";

/// How long vtysh may take, and the most that it may print. A leaf of 255 servers prints 60 KiB.
const SHOW: Limits = Limits {
    time: Duration::from_secs(20),
    output: 1 << 20,
};

/// The most lines that are named for one switch.
const MOST_LINES: usize = 5;

/// How long a change can go unnoticed if its signal was missed.
const LOOK: Duration = Duration::from_secs(1);

/// Asks once the fabric is ready: nine switches take half a minute to answer under TCG.
pub(crate) async fn follow(live: Arc<Live>) {
    while !live.acceptance.answer().known {
        if live.is_ready() {
            for refused in live.acceptance.ask(&live.state()).await {
                live.notices.add(refused);
            }
        }
        let _ = timeout(LOOK, live.notices.changed()).await;
    }
    std::future::pending::<()>().await;
}

/// What FRR did not take, as far as it was asked.
#[derive(Debug, Default)]
pub(crate) struct Acceptance(Mutex<Answer>);

#[derive(Debug, Default)]
struct Answer {
    /// Nobody has to ask any more.
    known: bool,
    refused: Vec<String>,
}

impl Acceptance {
    fn answer(&self) -> MutexGuard<'_, Answer> {
        self.0.lock().expect("no holder of this lock can panic")
    }

    /// A sentence for each switch whose FRR did not take all of its configuration.
    pub(crate) fn refused(&self) -> Vec<String> {
        self.answer().refused.clone()
    }

    /// Asks all switches, unless that was done on this image. Returns a sentence for each refusal.
    async fn ask(&self, state: &FabricState) -> Vec<String> {
        let mark = mark(state);
        if mark.as_ref().is_some_and(|mark| mark.exists()) {
            self.answer().known = true;
            return Vec::new();
        }
        let mut refused = Vec::new();
        for (&index, switch) in &state.switches {
            let command = ["vtysh", "-c", "show running-config"].map(Into::into);
            let asked = switch.vm().agent().exec(&command, b"", SHOW).await;
            let Some(running) = asked
                .ok()
                .filter(|answer| answer.status == ExitStatus::Code(0))
            else {
                // It has just lost its power, perhaps: asked again when the fabric is well once more.
                return Vec::new();
            };
            let topology = &state.plan.topology;
            let conf = topology.switch_conf(&topology.switches[index]).ok();
            let running = String::from_utf8_lossy(&running.stdout);
            // It could be rendered when the switch was started.
            let lacking = conf.and_then(|conf| frr_conf::not_accepted(&conf, &running).ok());
            refused.extend(sentence(switch.name(), &lacking.unwrap_or_default()));
        }
        // A part of the fabric proves nothing about the switches that do not run.
        let whole = state.switches.len() == state.plan.topology.switches.len();
        if let Some(mark) = mark.filter(|_| whole && refused.is_empty())
            && let Err(error) = files::write(&mark, "")
        {
            // Another user's image: the next fabric asks again.
            tracing::debug!(%error, "no mark beside the image");
        }
        *self.answer() = Answer {
            known: true,
            refused: refused.clone(),
        };
        refused
    }
}

fn mark(state: &FabricState) -> Option<PathBuf> {
    let image = WantedImage::new(&state.plan.config.image).ok()?.built()?;
    Some(image.root.parent()?.join(MARK))
}

fn sentence(switch: &str, lacking: &[String]) -> Option<String> {
    if lacking.is_empty() {
        return None;
    }
    let mut named: Vec<String> = lacking
        .iter()
        .take(MOST_LINES)
        .map(|line| format!("\"{}\"", printable::head(line.as_bytes(), 200)))
        .collect();
    if lacking.len() > MOST_LINES {
        named.push(format!("{} more", lacking.len() - MOST_LINES));
    }
    Some(format!(
        "{switch}: the image's FRR did not take {} of its configuration; this version of ikv-fabric \
         does not know that FRR: set image.release to another release of Debian, and report it",
        named.join(", ")
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sentence_names_the_first_lines() {
        assert_eq!(sentence("leaf1", &[]), None);
        let lines: Vec<String> = (0..7).map(|n| format!("line {n}")).collect();
        let said = sentence("leaf1", &lines).unwrap();
        assert!(
            said.starts_with("leaf1: the image's FRR did not take \"line 0\", "),
            "{said}"
        );
        assert!(
            said.contains("\"line 4\", 2 more of its configuration"),
            "{said}"
        );
    }
}
