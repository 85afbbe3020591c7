//! Completion of the command line by bash, zsh and fish.
//!
//! The script that a shell loads ([`script`]) starts this program again at every Tab, with the words typed so
//! far and the variable [`VARIABLE`]; [`answer`] then prints what may come next. clap's engine knows commands,
//! options and their values; [`names`] asks the running fabric.

mod names;
mod shells;

use std::io;

use clap::{Command, ValueEnum};
use clap_complete::CompleteEnv;
use clap_complete::env::{Fish, Shells};

pub(crate) use names::{cable_names, place_names, port_names, position_names, switch_names};
use shells::{Bash, Zsh};

/// Says which shell asks; the engine's own name for it, COMPLETE, may mean another program.
const VARIABLE: &str = "IKV_FABRIC_COMPLETE";

const PROGRAM: &str = "ikv-fabric";

const SHELLS: Shells<'static> = Shells(&[&Bash, &Fish, &Zsh]);

/// The shells that have a script.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Shell {
    /// GNU Bash, 4.4 or later.
    Bash,
    /// The Z shell.
    Zsh,
    /// The friendly interactive shell.
    Fish,
}

/// Answers a shell that asks; `None` if none does, and whether there was an answer. It prints no error: that
/// would appear in the middle of what the user types.
pub(crate) fn answer(program: fn() -> Command) -> Option<bool> {
    let folder = std::env::current_dir().ok();
    let completion = CompleteEnv::with_factory(program)
        .var(VARIABLE)
        .bin(PROGRAM)
        .completer(PROGRAM)
        .shells(SHELLS);
    match completion.try_complete(std::env::args_os(), folder.as_deref()) {
        Ok(false) => None,
        Ok(true) => Some(true),
        Err(_) => Some(false),
    }
}

/// The script that makes a shell complete `ikv-fabric`.
///
/// # Errors
/// Never in practice: it is written to memory.
pub(crate) fn script(shell: Shell) -> io::Result<Vec<u8>> {
    let name = match shell {
        Shell::Bash => "bash",
        Shell::Zsh => "zsh",
        Shell::Fish => "fish",
    };
    let mut script = Vec::new();
    let completer = SHELLS.completer(name);
    let completer = completer.expect("SHELLS has every shell");
    completer.write_registration(VARIABLE, PROGRAM, PROGRAM, PROGRAM, &mut script)?;
    Ok(script)
}
