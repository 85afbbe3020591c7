//! `ikv-fabric extcap install`: a script where Wireshark looks for extcaps.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Context as _;
use clap::Args;

use super::Context;
use api::default_socket;
use fabric::progress::say;

/// The name of the script in Wireshark's folder.
const NAME: &str = "ikv-fabric";

/// Installs a script where Wireshark looks for it; its list of interfaces then shows every cable.
#[derive(Debug, Args)]
pub(super) struct InstallArgs {
    /// Wireshark's folder of extcaps [default: this user's own].
    #[arg(long, value_name = "FOLDER")]
    dir: Option<PathBuf>,
}

pub(super) fn run(context: &Context, args: &InstallArgs) -> anyhow::Result<()> {
    let folder = match &args.dir {
        Some(folder) => folder.clone(),
        None => folder()?,
    };
    let program = std::env::current_exe().context("the path of this program is not known")?;
    let socket = context.client.socket();
    let socket = (socket != default_socket()).then_some(socket);
    let script = script(&program, socket);
    let path = folder.join(NAME);
    let written = fs::create_dir_all(&folder)
        .and_then(|()| fs::write(&path, script))
        .and_then(|()| fs::set_permissions(&path, fs::Permissions::from_mode(0o755)));
    written.with_context(|| format!("cannot write {}", path.display()))?;
    say(&format!(
        "installed {}: `tshark -D` and Wireshark list the cables while a fabric runs; remove it to undo this",
        path.display()
    ));
    Ok(())
}

/// Asks Wireshark for its folder of extcaps; without Wireshark, takes the one that it uses by default.
fn folder() -> anyhow::Result<PathBuf> {
    let answer = ["tshark", "wireshark"].into_iter().find_map(|program| {
        let output = Command::new(program)
            .args(["-G", "folders"])
            .output()
            .ok()?;
        output
            .status
            .success()
            .then(|| String::from_utf8_lossy(&output.stdout).into_owned())
    });
    let home = std::env::var_os("HOME").map(PathBuf::from);
    let Some(answer) = answer else {
        let home =
            home.context("found neither Wireshark nor a home folder: name a folder with --dir")?;
        return Ok(home.join(".local/lib/wireshark/extcap"));
    };
    choose(&answer).context("Wireshark reports no folder for this user: name one with --dir")
}

/// Finds the user's own folder in what `-G folders` prints. Wireshark before 4.2 prints only the
/// folder of its configuration, and looks for extcaps below that.
fn choose(folders: &str) -> Option<PathBuf> {
    let named = |wanted: &str| {
        let mut lines = folders.lines().filter_map(|line| line.split_once(':'));
        let found = lines.find(|(what, _)| what.eq_ignore_ascii_case(wanted));
        found.map(|(_, folder)| PathBuf::from(folder.trim()))
    };
    named("Personal extcap path")
        .or_else(|| named("Personal configuration").map(|folder| folder.join("extcap")))
}

/// The script that Wireshark calls. It starts this program for the fabric at `socket`.
fn script(program: &Path, socket: Option<&Path>) -> String {
    let mut command = quoted(program);
    if let Some(socket) = socket {
        let socket = std::path::absolute(socket).unwrap_or_else(|_| socket.into());
        command += &format!(" --socket {}", quoted(&socket));
    }
    format!(
        "#!/bin/sh\n# Shows the cables of ikv-fabric to Wireshark.\nexec {command} extcap \"$@\"\n"
    )
}

/// Quotes a text as one word for the shell.
fn quoted(path: &Path) -> String {
    format!("'{}'", path.display().to_string().replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_users_own_folder_comes_first() {
        let old = "Personal configuration:\t/home/a/.config/wireshark\n\
                   Extcap path:         \t/usr/lib/wireshark/extcap\n";
        let new = "Personal configuration:\t/home/a/.config/wireshark\n\
                   Personal Extcap path:\t/home/a/.local/lib/wireshark/extcap\n\
                   Global Extcap path:\t/usr/lib/wireshark/extcap\n";
        let below = PathBuf::from("/home/a/.config/wireshark/extcap");
        assert_eq!(choose(old), Some(below));
        let own = PathBuf::from("/home/a/.local/lib/wireshark/extcap");
        assert_eq!(choose(new), Some(own));
        assert_eq!(choose("Temp:\t/tmp\n"), None);
    }

    #[test]
    fn the_script_names_what_was_meant() {
        let script = script(
            Path::new("/opt/it's/ikv-fabric"),
            Some(Path::new("/run/x.sock")),
        );
        let last = script.lines().last();
        assert_eq!(
            last,
            Some(r#"exec '/opt/it'\''s/ikv-fabric' --socket '/run/x.sock' extcap "$@""#)
        );
    }
}
