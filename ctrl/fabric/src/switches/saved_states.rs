//! Creates missing saved states, from which switches start.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;

use crate::progress::Progress;
use model::config::Config;
use vm::accel::Accel;
use vm::image::ImagePaths;
use vm::states::States;
use vm::{Launcher, VmSpec};

/// Whether switches start from saved states. Under KVM, booting is too fast for a restore to pay
/// off.
pub(crate) fn wanted(config: &Config, accel: Accel) -> bool {
    config.vm.warm && accel == Accel::Tcg
}

/// The saved states, in `folder`, for this image and this QEMU.
pub(crate) fn states(folder: PathBuf, image: &ImagePaths, launcher: &Launcher) -> Arc<States> {
    let made_with = format!("{} {}", launcher.version(), identity(&image.root));
    Arc::new(States::new(folder, made_with))
}

/// Distinguishes this build of the image from others at the same path. Empty if the image cannot be
/// read: then no VM starts anyway.
fn identity(root: &Path) -> String {
    root.metadata().map_or(String::new(), |meta| {
        let (seconds, nanoseconds) = (meta.mtime(), meta.mtime_nsec());
        format!("{} {seconds}.{nanoseconds}", meta.size())
    })
}

/// Creates the missing states of `specs`, all at the same time. Each is named after the first
/// switch that needs it; `folder` holds its files and sockets meanwhile. If one cannot be created,
/// its switches boot.
pub(crate) async fn make_missing(
    launcher: &Launcher,
    specs: &[&VmSpec],
    folder: &Path,
    progress: &Progress,
) {
    let missing = launcher.without_state(specs.iter().copied());
    if missing.is_empty() {
        return;
    }
    let mut stage = progress.stage("saved states");
    let named = |index: usize| format!("of {}", specs[index].name);
    let mut waited_for: Vec<_> = missing.iter().map(|(_, index)| named(*index)).collect();
    stage.update(&format!("making those {}", waited_for.join(", ")));
    let mut work: FuturesUnordered<_> = missing
        .iter()
        .map(|(key, index)| {
            let spec = specs[*index];
            // A short name, because the length of a socket's path is limited.
            let run_dir = folder.join(format!("~{}", spec.name));
            async move { (*index, launcher.save_state(spec, key, &run_dir).await) }
        })
        .collect();
    let (mut made, mut bytes) = (0, 0);
    while let Some((index, outcome)) = work.next().await {
        let name = named(index);
        waited_for.retain(|waited| *waited != name);
        match outcome {
            Ok(size) => {
                (made, bytes) = (made + 1, bytes + size);
                let so_far = format!("{name}: {} MiB", size >> 20);
                stage.update(&match waited_for.len() {
                    0 => so_far,
                    _ => format!("{so_far}; still making those {}", waited_for.join(", ")),
                });
            }
            Err(error) => progress.note(&format!(
                "  ! no saved state {name}: {error}\n    switches of its shape boot normally; the \
                 next run tries again, unless with --cold"
            )),
        }
    }
    launcher.tidy_states(specs.iter().copied());
    if made > 0 {
        stage.done(&format!("{made} made, {} MiB", bytes >> 20));
    }
}
