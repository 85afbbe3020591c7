//! Types the commands of a page.

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::{Command, Page};
use crate::panel::as_from_a_plain_shell;
use crate::patience::output_within;
use crate::{Answer, Netns, executable_by_all};

/// Somebody at a shell of a fabric's host, in a folder of their own.
#[derive(Debug)]
pub struct Typist<'h> {
    netns: &'h Netns,
    socket: PathBuf,
    folder: PathBuf,
    path: String,
}

impl<'h> Typist<'h> {
    /// For the fabric at `socket` in the namespace `netns`. Makes folders below `folder`.
    ///
    /// # Panics
    /// When a folder cannot be made.
    pub fn new(netns: &'h Netns, socket: &Path, folder: &Path) -> Self {
        let [programs, typed] = ["programs", "typed"].map(|name| folder.join(name));
        for folder in [&programs, &typed] {
            std::fs::create_dir_all(folder).expect("the test's own folder");
        }
        executable_by_all(&programs);
        let path = std::env::var("PATH").unwrap_or_default();
        Typist {
            netns,
            socket: socket.into(),
            folder: typed,
            path: format!("{}:{path}", programs.display()),
        }
    }

    /// Writes the files that a page shows.
    ///
    /// # Panics
    /// When one cannot be written.
    pub fn write_files(&self, page: &Page) {
        for (name, content) in page.files() {
            std::fs::write(self.folder.join(name), content).expect("the test's own folder");
        }
    }

    /// Types a line; its fabric is that of this typist without further options.
    ///
    /// # Panics
    /// When it does not end within `limit`.
    pub fn types(&self, line: &str, limit: Duration) -> Answer {
        let mut command = self.netns.command("sh");
        as_from_a_plain_shell(&mut command);
        command
            .args(["-c", line])
            .current_dir(&self.folder)
            .env("PATH", &self.path)
            .env("HOME", &self.folder)
            .env("IKV_FABRIC_SOCKET", &self.socket);
        output_within(&mut command, limit).into()
    }

    /// Types a page's command, which must end with status 0.
    ///
    /// # Panics
    /// When it does not, with what it answered.
    pub fn must_type(&self, page: &Page, command: &Command, limit: Duration) {
        let answer = self.types(&command.text, limit);
        assert_eq!(
            answer.code,
            Some(0),
            "{}:{}: {}\n{answer:#?}",
            page.path,
            command.line,
            command.text
        );
    }
}
