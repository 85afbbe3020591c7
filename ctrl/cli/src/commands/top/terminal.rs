//! The terminal while `top` has it: [`Screen`] gives it back on every way out.

use std::io::{self, IsTerminal, Stdout, Write};
use std::panic;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use crossterm::cursor::{Hide, Show};
use crossterm::execute;
use crossterm::terminal::{
    EnterAlternateScreen, LeaveAlternateScreen, disable_raw_mode, enable_raw_mode,
};
use ratatui::Terminal;
use ratatui::backend::CrosstermBackend;

use super::app::App;
use super::draw::{Palette, draw};

/// Whether the terminal is to be given back.
static TAKEN: AtomicBool = AtomicBool::new(false);

/// The terminal in raw mode, on its other screen. It is as it was before once this is dropped, also
/// when a panic does that.
pub(super) struct Screen {
    terminal: Terminal<CrosstermBackend<Stdout>>,
    palette: Palette,
}

impl Screen {
    /// # Errors
    /// When the terminal does not take the commands.
    pub(super) fn take() -> io::Result<Self> {
        give_back_before_a_panic_is_said();
        enable_raw_mode()?;
        TAKEN.store(true, Ordering::Relaxed);
        // From here on dropping it gives the terminal back.
        let screen = Screen {
            terminal: Terminal::new(CrosstermBackend::new(io::stdout()))?,
            palette: Palette::of_environment(),
        };
        execute!(io::stdout(), EnterAlternateScreen, Hide)?;
        Ok(screen)
    }

    /// # Errors
    /// When the terminal has gone.
    pub(super) fn show(&mut self, app: &mut App) -> io::Result<()> {
        let palette = self.palette;
        self.terminal.draw(|frame| draw(frame, app, palette))?;
        Ok(())
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        give_back(&mut io::stdout());
    }
}

/// Gives the terminal back, once.
fn give_back(out: &mut impl Write) {
    if TAKEN.swap(false, Ordering::Relaxed) {
        // After a hang-up there is no terminal any more.
        let _ = execute!(out, Show, LeaveAlternateScreen);
        let _ = disable_raw_mode();
    }
}

/// What a panic of this thread says must stay on the screen that the user sees afterwards.
fn give_back_before_a_panic_is_said() {
    let say = panic::take_hook();
    let own = thread::current().id();
    panic::set_hook(Box::new(move |panic| {
        if thread::current().id() == own {
            give_back(&mut io::stdout());
        }
        say(panic);
    }));
}

/// # Errors
/// When standard input or output is no terminal.
pub(super) fn need_terminal() -> anyhow::Result<()> {
    anyhow::ensure!(
        io::stdin().is_terminal() && io::stdout().is_terminal(),
        "top needs a terminal: `ikv-fabric cables --watch` prints the rates of cables anywhere"
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_terminal_is_given_back_once_also_before_a_panic_is_said() {
        TAKEN.store(true, Ordering::Relaxed);
        let (mut first, mut second) = (Vec::new(), Vec::new());
        give_back(&mut first);
        give_back(&mut second);
        // xterm's private modes 25 (cursor) and 1049 (alternate screen).
        assert_eq!(first, b"\x1b[?25h\x1b[?1049l");
        assert_eq!(second, b"");

        give_back_before_a_panic_is_said();
        TAKEN.store(true, Ordering::Relaxed);
        let panicked = panic::catch_unwind(|| panic!("the test panics on purpose"));
        // The harness's own hook again.
        drop(panic::take_hook());
        assert!(panicked.is_err());
        assert!(!TAKEN.load(Ordering::Relaxed), "the hook has given it back");
    }
}
