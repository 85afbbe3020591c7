//! Captures: a tap on each lane, and for each capture one thread that drains them all. What its
//! client does not read in time is lost to the capture, never to the fabric.

pub(crate) mod merge;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use dataplane::bpf::{Instruction, Program};
use dataplane::capture::{Record, TapSpec};
use dataplane::{Capture, MAX_FRAME, clock};
use futures_util::future::try_join_all;
use tokio::sync::mpsc;

use crate::cables::Cables;
use crate::cables::names::CableNames;
use crate::rights;
use api::ApiError;
use api::capture::{
    CaptureCount, CaptureInterface, CaptureRequest, CaptureStart, CaptureStream, MOST_INTERFACES,
    Message,
};
use dataplane::Side;
use merge::Merge;

/// Bytes of a message chunk, and how many may wait for the client.
pub(crate) const CHUNK: usize = 256 << 10;
const CHUNKS: usize = 8;

/// Memory of all rings of a capture together, and of one: a ring takes up what comes while the
/// draining thread is kept from its CPU.
const RINGS: usize = 512 << 20;
const RING: std::ops::RangeInclusive<usize> = 1 << 20..=64 << 20;

/// Pause between two looks at the rings: it grows from the first to the second while no frame
/// comes.
const LOOK_AGAIN: [Duration; 2] = [Duration::from_millis(1), Duration::from_millis(10)];

/// Between two statistics, in ns.
const STATISTICS: u64 = 1_000_000_000;

/// The lanes that a request means, each by its cable and the side where its frames enter: both
/// lanes of every named cable (of all `known` cables, if none is named), or only the one that
/// begins at `port`.
fn choose(
    known: usize,
    cables: impl Iterator<Item = Result<usize, ApiError>>,
    port: Option<Result<(usize, Side), ApiError>>,
) -> Result<Vec<(usize, Side)>, ApiError> {
    let mut named = Vec::new();
    for cable in cables {
        let cable = cable?;
        if !named.contains(&cable) {
            named.push(cable);
        }
    }
    if named.is_empty() {
        named = (0..known).collect();
    }
    match port.transpose()? {
        Some((cable, side)) if named.contains(&cable) => Ok(vec![(cable, side)]),
        Some(_) => Err(ApiError::conflict(
            "the port named by --from belongs to none of these cables: name its own cable",
        )),
        None => Ok(named
            .into_iter()
            .flat_map(|cable| [(cable, Side::A), (cable, Side::B)])
            .collect()),
    }
}

/// Taps the lanes that are asked for and starts to drain them.
pub(crate) async fn start(
    cables: &Cables,
    names: &impl CableNames,
    request: &CaptureRequest,
) -> Result<CaptureStream, ApiError> {
    let named = request.cables.iter().map(|name| names.cable(name));
    let port = request.from.as_deref().map(|name| names.end(name));
    let lanes = choose(cables.len(), named, port)?;
    if lanes.len() > MOST_INTERFACES {
        return Err(ApiError::conflict(format!(
            "a capture takes {} cables at most: name those that matter",
            MOST_INTERFACES / 2
        )));
    }
    let spec = TapSpec {
        filter: program(&request.filter)?,
        snap: match request.snap {
            0 => u32::MAX,
            snap => snap,
        },
        wire: request.wire,
        bytes: (RINGS / lanes.len().max(1)).clamp(*RING.start(), *RING.end()),
    };
    let interface = |(index, side): &_| interface(cables, names, (*index, *side), request.wire);
    let start = CaptureStart {
        interfaces: lanes.iter().map(interface).collect(),
        wall_offset: cables.wall_offset(),
        began: clock::now(),
        wire: request.wire,
    };
    let tap = |(index, side): &_| cables.tap(*index, *side, spec.clone());
    let taps = try_join_all(lanes.iter().map(tap).collect::<Vec<_>>())
        .await
        .map_err(ApiError::failed)?;
    let (sender, chunks) = mpsc::channel(CHUNKS);
    let stop = Arc::new(AtomicBool::new(false));
    let session = Session {
        merge: Merge::new(taps.len()),
        delivered: vec![0; taps.len()],
        taps,
        chunks: sender,
        stop: stop.clone(),
        counted: clock::now(),
    };
    rights::thread("capture", move || session.run()).map_err(ApiError::failed)?;
    Ok(CaptureStream {
        start,
        chunks,
        stop,
    })
}

/// Checks a filter as a client sends it: code, jt, jf and k of each instruction. Empty: `None`.
pub(crate) fn program(filter: &[(u16, u8, u8, u32)]) -> Result<Option<Program>, ApiError> {
    if filter.is_empty() {
        return Ok(None);
    }
    let instructions = filter
        .iter()
        .map(|&(code, jt, jf, k)| Instruction { code, jt, jf, k });
    let refused = |error| ApiError::conflict(format!("the filter is refused: {error}"));
    Program::new(instructions.collect())
        .map(Some)
        .map_err(refused)
}

/// The port where the frames of a lane are seen: where they enter, or with `wire` where they leave.
/// The lane is that of a cable which begins at a side.
pub(crate) fn interface(
    cables: &Cables,
    names: &impl CableNames,
    (index, side): (usize, Side),
    wire: bool,
) -> CaptureInterface {
    let other = match side {
        Side::A => Side::B,
        Side::B => Side::A,
    };
    let (here, there) = if wire { (other, side) } else { (side, other) };
    let ends = cables.end_names(index);
    CaptureInterface {
        name: ends[here as usize].to_owned(),
        alias: names.alias(index, here),
        peer: ends[there as usize].to_owned(),
        cable: cables.name(index).to_owned(),
    }
}

/// A capture under way, on its own thread.
struct Session {
    taps: Vec<Capture>,
    merge: Merge,
    /// Frames read from each lane.
    delivered: Vec<u64>,
    chunks: mpsc::Sender<Vec<u8>>,
    stop: Arc<AtomicBool>,
    /// When the statistics were sent last, on the dataplane's clock.
    counted: u64,
}

impl Session {
    fn run(mut self) {
        let [shortest, longest] = LOOK_AGAIN;
        let mut pause = shortest;
        loop {
            if self.stop.load(Ordering::Relaxed) {
                // The client may have gone: then nothing is left to do.
                let _ = self.finish();
                return;
            }
            let now = clock::now();
            let (read, _) = self.read();
            if self.send(now, false).is_err() {
                return;
            }
            pause = if read > 0 {
                shortest
            } else {
                (pause * 2).min(longest)
            };
            // While more comes than is sent, it is copied without a pause.
            if read == 0 || !self.merge.is_full() {
                std::thread::sleep(pause);
            }
        }
    }

    /// Ends the taps and hands over everything that was seen until then: a frame that its
    /// receiver has got is among it.
    fn finish(&mut self) -> Result<(), Gone> {
        // Every worker is asked before the first is waited for.
        let ends: Vec<_> = self.taps.iter_mut().map(Capture::end).collect();
        for end in ends {
            let _ = end.wait();
        }
        loop {
            let (_, all) = self.read();
            self.send(u64::MAX, all)?;
            if all {
                return Ok(());
            }
        }
    }

    /// Empties the rings; returns how many frames were in them, and whether that was every ring.
    fn read(&mut self) -> (usize, bool) {
        let mut all = 0;
        for (lane, tap) in self.taps.iter_mut().enumerate() {
            if self.merge.is_full() {
                return (all, false);
            }
            let merge = &mut self.merge;
            let read = tap
                .reader()
                .read(|record, bytes| merge.push(lane, record, bytes));
            self.delivered[lane] += read as u64;
            all += read;
        }
        (all, true)
    }

    /// Hands over what is due, and the statistics when it is time for them.
    fn send(&mut self, due: u64, last: bool) -> Result<(), Gone> {
        loop {
            let mut chunk = Vec::new();
            if !self.merge.is_empty() {
                // And what the last frame has more.
                chunk.reserve(CHUNK + MAX_FRAME + Record::LEN);
            }
            let more = self.merge.emit(due, CHUNK, &mut chunk);
            let statistics = !more && (last || clock::now() - self.counted >= STATISTICS);
            if statistics {
                self.counted = clock::now();
                Message::Statistics(self.counts()).write(&mut chunk);
            }
            if !chunk.is_empty() {
                // Waits while the client is slow: meanwhile the rings fill, and lose copies.
                self.chunks.blocking_send(chunk).map_err(|_| Gone)?;
            }
            if !more {
                break;
            }
        }
        if self.chunks.is_closed() {
            Err(Gone)
        } else {
            Ok(())
        }
    }

    fn counts(&mut self) -> Vec<CaptureCount> {
        let lanes = self.taps.iter_mut().zip(&self.delivered);
        lanes
            .map(|(tap, delivered)| {
                let lost = tap.reader().lost();
                let received = delivered + lost;
                CaptureCount { received, lost }
            })
            .collect()
    }
}

/// The client has gone.
struct Gone;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_filter_is_looked_at_before_a_lane_is_tapped() {
        assert_eq!(program(&[]).unwrap(), None);
        let all = program(&[(0x06, 0, 0, u32::MAX)]).unwrap();
        assert_eq!(all.map(|program| program.instructions().len()), Some(1));
        let jumps_away = program(&[(0x05, 0, 0, 9), (0x06, 0, 0, 0)]);
        let said = jumps_away.unwrap_err().to_string();
        assert!(said.starts_with("the filter is refused: "), "{said}");
    }

    #[test]
    fn lanes_are_chosen_by_cable_and_port() {
        let ok = |cables: &[usize]| cables.iter().map(|cable| Ok(*cable)).collect::<Vec<_>>();
        let chosen = choose(3, ok(&[1, 1]).into_iter(), None).unwrap();
        assert_eq!(chosen, [(1, Side::A), (1, Side::B)]);
        assert_eq!(choose(3, ok(&[]).into_iter(), None).unwrap().len(), 6);
        let port = Some(Ok((2, Side::B)));
        assert_eq!(
            choose(3, ok(&[]).into_iter(), port).unwrap(),
            [(2, Side::B)]
        );
        let foreign = Some(Ok((2, Side::B)));
        assert!(choose(3, ok(&[1]).into_iter(), foreign).is_err());
    }
}
