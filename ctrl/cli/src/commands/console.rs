//! `ikv-fabric console`: attaches the terminal to a switch's serial console.

use std::io::IsTerminal;
use std::process::ExitCode;

use clap::Args;
use rustix::termios::{OptionalActions, Termios, tcgetattr, tcsetattr};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::Context;
use crate::completion::switch_names;
use fabric::progress::say;

/// Ctrl-], which leaves the console as it does in telnet and virsh.
const DETACH: u8 = 0x1d;

/// Attaches to a switch's serial console: a root shell that needs no network. Ctrl-] leaves.
#[derive(Debug, Args)]
pub(crate) struct ConsoleArgs {
    /// A switch, such as leaf1.
    #[arg(add = switch_names())]
    node: String,
}

/// # Errors
/// When no fabric answers or the name is unknown.
pub(crate) async fn run(context: &Context, args: &ConsoleArgs) -> anyhow::Result<ExitCode> {
    let console = context.client.console(&args.node).await?;
    let (mut from_vm, mut to_vm) = tokio::io::split(console);
    say(&format!(
        "Attached to {}'s serial console; Ctrl-] leaves, Enter shows the prompt.",
        args.node
    ));
    let terminal = RawTerminal::enter();
    let mut keys = keyboard();
    let mut out = tokio::io::stdout();
    let mut screen = vec![0; 4096];
    loop {
        tokio::select! {
            typed = keys.recv() => {
                let Some(typed) = typed else { break };
                // What was typed before Ctrl-] still belongs to the switch.
                let typed = typed.split(|byte| *byte == DETACH).collect::<Vec<_>>();
                to_vm.write_all(typed[0]).await?;
                if typed.len() > 1 {
                    break;
                }
            }
            read = from_vm.read(&mut screen) => {
                let read = read?;
                if read == 0 {
                    // The message is to appear on a terminal that is no longer in raw mode.
                    drop(terminal);
                    say("\r\nThe switch's console was closed; `ikv-fabric status` shows why.");
                    return Ok(ExitCode::FAILURE);
                }
                out.write_all(&screen[..read]).await?;
                out.flush().await?;
            }
        }
    }
    drop(terminal);
    say("\r\nDetached.");
    Ok(ExitCode::SUCCESS)
}

/// Reads what the user types in a thread of its own: a terminal cannot be read asynchronously, and
/// with tokio's blocking pool the runtime would wait at the end for a read that does not return.
fn keyboard() -> tokio::sync::mpsc::Receiver<Vec<u8>> {
    let (sender, keys) = tokio::sync::mpsc::channel(16);
    std::thread::spawn(move || {
        let mut typed = [0; 1024];
        while let Ok(read @ 1..) = std::io::Read::read(&mut std::io::stdin(), &mut typed) {
            if sender.blocking_send(typed[..read].to_vec()).is_err() {
                break;
            }
        }
    });
    keys
}

/// Keeps the terminal in raw mode, so that every key reaches the switch; restores it when dropped.
struct RawTerminal(Option<Termios>);

impl RawTerminal {
    fn enter() -> Self {
        let stdin = std::io::stdin();
        let before = stdin
            .is_terminal()
            .then(|| tcgetattr(&stdin).ok())
            .flatten();
        if let Some(before) = &before {
            let mut raw = before.clone();
            raw.make_raw();
            let _ = tcsetattr(&stdin, OptionalActions::Now, &raw);
        }
        RawTerminal(before)
    }
}

impl Drop for RawTerminal {
    fn drop(&mut self) {
        if let Some(before) = &self.0 {
            let _ = tcsetattr(std::io::stdin(), OptionalActions::Now, before);
        }
    }
}
