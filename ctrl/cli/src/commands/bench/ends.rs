//! Finds the ends of a running fabric's cable and how a benchmark can plug in there.

use std::fs;
use std::io;
use std::os::unix::fs::FileTypeExt;
use std::os::unix::net::UnixStream;
use std::path::Path;

use anyhow::{Context as _, bail};
use bench::CableEnd;
use bench::cpu_time::CpuMeter;
use bench::testbed::Testbed;

use rustix::net::{AddressFamily, SocketType, netdevice::name_to_index};

use api::Client;
use model::plugging::PlugKind;

use host::lock::StatePaths;

/// What to do when an end is in use.
const WAY_OUT: &str = "a benchmark needs both ends: measure a cable of `ikv-fabric run --switches none` or of `ikv-fabric patch`, or a fresh one (`ikv-fabric bench` alone)";

/// Returns the name and the ends of a cable of a running fabric. Both ends must be free. `nic`
/// chooses where an end has both a vhost-user socket and a tap.
///
/// # Errors
/// When the fabric does not answer, or another program is plugged in at an end.
pub(super) async fn of_running(
    client: &Client,
    cable: &str,
    nic: PlugKind,
) -> anyhow::Result<(String, Testbed)> {
    let cables = client.cables(&[cable.to_owned()]).await?;
    let [cable] = cables.as_slice() else {
        bail!(
            "\"{cable}\" names {} cables; a benchmark takes one",
            cables.len()
        );
    };
    let fabric = pid_of(client.socket())?;
    let paths = StatePaths::beside(client.socket());
    let [lane, _] = &cable.lanes;
    let end = |name: &str| {
        end_called(name, fabric, &paths, nic)
            .with_context(|| format!("cannot measure {}", cable.name))
    };
    let ends = [end(&lane.from)?, end(&lane.to)?];
    Ok((
        cable.name.clone(),
        Testbed {
            ends,
            cpu: Some(CpuMeter::Process(fabric)),
        },
    ))
}

/// The process that listens on the control socket.
fn pid_of(socket: &Path) -> anyhow::Result<u32> {
    let socket = UnixStream::connect(socket)?;
    let peer = rustix::net::sockopt::socket_peercred(&socket)?;
    Ok(peer.pid.as_raw_nonzero().get().cast_unsigned())
}

/// What a benchmark plugs into at the cable's end called `name`.
fn end_called(
    name: &str,
    fabric: u32,
    paths: &StatePaths,
    nic: PlugKind,
) -> anyhow::Result<CableEnd> {
    let is_socket =
        |path: &Path| fs::metadata(path).is_ok_and(|found| found.file_type().is_socket());
    // The name of a patch's vhost-user port is its path.
    if is_socket(Path::new(name)) {
        return Ok(CableEnd::VhostUser(name.into()));
    }
    if let Some(holder) = process_with_tap(name) {
        // The fabric holds the tap: its network device is the cable's end.
        if holder.pid == fabric {
            return Ok(CableEnd::Netdev(name.into()));
        }
        bail!(
            "its end {name} is held by {} (process {}); {WAY_OUT}",
            holder.program,
            holder.pid
        );
    }
    let socket = paths.vhost_socket(name);
    if nic == PlugKind::VhostUser && is_socket(&socket) {
        return Ok(CableEnd::VhostUser(socket));
    }
    if !is_device(name)? {
        bail!("its end {name} is a switch VM's, or in another network namespace; {WAY_OUT}");
    }
    Ok(CableEnd::Tap(name.into()))
}

fn is_device(name: &str) -> io::Result<bool> {
    let any = rustix::net::socket(AddressFamily::INET, SocketType::DGRAM, None)?;
    Ok(name_to_index(any, name).is_ok())
}

/// A process that has a tap open.
struct TapHolder {
    pid: u32,
    program: String,
}

/// The process that has the tap open; `None` also if this user may not see it.
fn process_with_tap(tap: &str) -> Option<TapHolder> {
    let processes = fs::read_dir("/proc").ok()?;
    let pids = processes
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    for pid in pids {
        let Ok(descriptors) = fs::read_dir(format!("/proc/{pid}/fdinfo")) else {
            continue;
        };
        let holds = descriptors.flatten().any(|entry| {
            fs::read_to_string(entry.path()).is_ok_and(|text| is_tap_called(&text, tap))
        });
        if holds {
            let program = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
            return Some(TapHolder {
                pid,
                program: program.trim().to_owned(),
            });
        }
    }
    None
}

/// Whether this is the fdinfo (proc_pid_fdinfo(5)) of a descriptor of the tap.
fn is_tap_called(fdinfo: &str, tap: &str) -> bool {
    fdinfo.lines().any(|line| {
        line.strip_prefix("iff:")
            .is_some_and(|name| name.trim() == tap)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn taps_are_known_by_their_fdinfo() {
        let tap = "pos:\t0\nflags:\t0104002\nmnt_id:\t13\nino:\t27\niff:\tikvm1-3-1\n";
        assert!(is_tap_called(tap, "ikvm1-3-1"));
        assert!(!is_tap_called(tap, "ikvm1-3"));
        assert!(!is_tap_called("pos:\t0\n", ""));
    }
}
