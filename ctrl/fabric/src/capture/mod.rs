//! Captures: each has a tap on every lane and one thread that drains all of its taps. If its client
//! reads too slowly, the capture loses frames; the fabric never does.

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

/// Size of a message chunk in bytes, and how many chunks may wait for the client.
pub(crate) const CHUNK: usize = 256 << 10;
const CHUNKS: usize = 8;

/// Memory of all rings of a capture together, and of one ring, in bytes. A ring buffers frames
/// while the draining thread has to wait for its CPU.
const RINGS: usize = 512 << 20;
const RING: std::ops::RangeInclusive<usize> = 1 << 20..=64 << 20;

/// Pauses between two looks at the rings: the shortest, and the longest, to which it grows while no
/// frame comes.
const LOOK_AGAIN: [Duration; 2] = [Duration::from_millis(1), Duration::from_millis(10)];

/// Interval between two statistics messages, in ns.
const STATISTICS: u64 = 1_000_000_000;

/// The lanes that a request selects, each by its cable and the side where its frames enter: both
/// lanes of every named cable (of all `known` cables if none is named), or only the lane that
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

/// Taps the selected lanes and starts to drain them.
pub(crate) async fn start(
    cables: &Cables,
    names: &impl CableNames,
    request: &CaptureRequest,
) -> Result<CaptureStream, ApiError> {
    let named = names.all_named(&request.cables)?.into_iter().map(Ok);
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
        // The rings share a fixed amount of memory, however many lanes are captured.
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
    // A thread of its own, because it blocks on a slow client.
    rights::thread("capture", move || session.run()).map_err(ApiError::failed)?;
    Ok(CaptureStream {
        start,
        chunks,
        stop,
    })
}

/// Checks a filter as a client sends it: code, jt, jf and k of each instruction. An empty filter is
/// `None`.
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

/// The port where the frames of a lane are captured: where they enter it or, with `wire`, where
/// they leave it. The lane is given by its cable and the side where it begins.
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

/// A running capture, on a thread of its own.
struct Session {
    taps: Vec<Capture>,
    merge: Merge,
    /// Number of frames read from each lane.
    delivered: Vec<u64>,
    chunks: mpsc::Sender<Vec<u8>>,
    stop: Arc<AtomicBool>,
    /// When statistics were last sent, on the dataplane's clock, in ns.
    counted: u64,
}

impl Session {
    fn run(mut self) {
        let [shortest, longest] = LOOK_AGAIN;
        let mut pause = shortest;
        loop {
            if self.stop.load(Ordering::Relaxed) {
                // Fails only if the client has disconnected, and then it needs nothing more.
                let _ = self.finish();
                return;
            }
            // The time is read before the rings: a frame that arrives while they are read must not
            // count as overdue.
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
            // While frames come faster than they are sent, copy without a pause.
            if read == 0 || !self.merge.is_full() {
                std::thread::sleep(pause);
            }
        }
    }

    /// Ends the taps and hands over everything seen until then, including every frame that its
    /// receiver has already got.
    fn finish(&mut self) -> Result<(), Gone> {
        // Asks every worker before waiting for the first, so that the taps end at about the same
        // time.
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

    /// Empties the rings. Returns how many frames they held, and whether every ring was emptied.
    fn read(&mut self) -> (usize, bool) {
        let mut all = 0;
        for (lane, tap) in self.taps.iter_mut().enumerate() {
            // What does not fit stays in the rings, whose size limits the memory.
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

    /// Hands over the frames that are due, and statistics if they are due.
    fn send(&mut self, due: u64, last: bool) -> Result<(), Gone> {
        loop {
            let mut chunk = Vec::new();
            if !self.merge.is_empty() {
                // The last frame may exceed the chunk's size: reserve room for one.
                chunk.reserve(CHUNK + MAX_FRAME + Record::LEN);
            }
            let more = self.merge.emit(due, CHUNK, &mut chunk);
            let statistics = !more && (last || clock::now() - self.counted >= STATISTICS);
            if statistics {
                self.counted = clock::now();
                Message::Statistics(self.counts()).write(&mut chunk);
            }
            if !chunk.is_empty() {
                // Blocks while the client is slow. Meanwhile the rings fill up and drop frames.
                self.chunks.blocking_send(chunk).map_err(|_| Gone)?;
            }
            if !more {
                break;
            }
        }
        // A client may disconnect while no frame comes, when nothing is sent that would fail.
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

/// The client has disconnected.
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
