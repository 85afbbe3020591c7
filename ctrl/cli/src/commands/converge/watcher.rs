//! A capture on all cables, of which only what matters is kept: [`Watcher`].

use std::collections::HashMap;
use std::time::Duration;

use anyhow::bail;
use dataplane::clock;
use tokio::io::AsyncRead;
use tokio::time::timeout;

use super::sight::{Ends, Lane, Sighting, What, sight};
use crate::commands::capture::compile;
use crate::commands::capture::source::Source;
use api::capture::Message;
use api::{CaptureRequest, CaptureStart, Client};

/// Bytes of each frame: enough of an UPDATE to see what it is about.
const SNAP: u32 = 1024;

/// Between two looks whether to go on, while nothing comes.
const LOOK: Duration = Duration::from_millis(50);

/// Sightings that are kept, at most: a flow of a million packets a second is none to be watched.
const MOST: usize = 8_000_000;

/// What passes the cables.
pub(super) struct Watcher<S> {
    source: Source<S>,
    start: CaptureStart,
    lanes: Vec<Lane>,
    ends: Option<Ends>,
    sightings: Vec<Sighting>,
    missed: u64,
    /// When the last UPDATE was seen, and the first and the last packet of the flow.
    last_update: Option<u64>,
    flow: Option<[u64; 2]>,
    /// When each lane last carried a message of a session that stands.
    stands: Vec<u64>,
}

/// Captures on every cable of a fabric.
pub(super) async fn watch(
    client: &Client,
    ends: Option<Ends>,
) -> anyhow::Result<Watcher<impl AsyncRead + Unpin + use<>>> {
    let request = CaptureRequest {
        filter: compile(&expression(ends))?,
        snap: SNAP,
        ..CaptureRequest::default()
    };
    let mut source = Source::new(client.capture(&request).await?);
    let start = source.first_line().await?;
    let aliases: HashMap<_, _> = start
        .interfaces
        .iter()
        .map(|port| (port.name.as_str(), port.alias.clone()))
        .collect();
    let lane = |port: &api::CaptureInterface| Lane {
        from: port.alias.clone(),
        to: aliases
            .get(port.peer.as_str())
            .unwrap_or(&port.peer)
            .clone(),
        cable: port.cable.clone(),
    };
    let lanes: Vec<_> = start.interfaces.iter().map(lane).collect();
    Ok(Watcher {
        source,
        stands: vec![0; lanes.len()],
        lanes,
        start,
        ends,
        sightings: Vec::new(),
        missed: 0,
        last_update: None,
        flow: None,
    })
}

fn expression(ends: Option<Ends>) -> String {
    let mut expression = "tcp port 179 or udp port 3784 or udp port 4784".to_owned();
    if let Some(Ends {
        source,
        destination,
    }) = ends
    {
        let flow = format!("host {source} and host {destination}");
        // What follows "vlan" is meant behind the tag.
        expression += &format!(" or ({flow}) or (vlan and {flow})");
    }
    expression
}

impl<S> Watcher<S> {
    pub(super) fn lanes(&self) -> &[Lane] {
        &self.lanes
    }

    pub(super) fn sightings(&self) -> &[Sighting] {
        &self.sightings
    }

    /// Frames of which there is no copy.
    pub(super) fn missed(&self) -> u64 {
        self.missed
    }

    /// What to add to the fabric's clock for the time since 1970, ns.
    pub(super) fn wall_offset(&self) -> u64 {
        self.start.wall_offset
    }

    /// When the last UPDATE was seen.
    pub(super) fn last_update(&self) -> Option<u64> {
        self.last_update
    }

    /// Whether both ends of a cable's session have said since then that it stands.
    pub(super) fn stands(&self, cable: &str, since: u64) -> bool {
        let lanes = self.lanes.iter().zip(&self.stands);
        let mut ours = lanes.filter(|(lane, _)| lane.cable == cable);
        ours.all(|(_, time)| *time >= since)
    }

    /// For how long the flow has been seen.
    pub(super) fn flow_seen(&self) -> Duration {
        self.flow.map_or(Duration::ZERO, |[first, last]| {
            Duration::from_nanos(last.saturating_sub(first))
        })
    }
}

impl<S: AsyncRead + Unpin> Watcher<S> {
    /// Looks on until `enough`, which is asked again and again with the time; `false` when the
    /// time was over before.
    pub(super) async fn until(
        &mut self,
        limit: Duration,
        enough: impl Fn(&Self, u64) -> bool,
    ) -> anyhow::Result<bool> {
        let end = clock::now() + limit.as_nanos() as u64;
        loop {
            let now = clock::now();
            if enough(self, now) {
                return Ok(true);
            }
            if now >= end {
                return Ok(false);
            }
            match timeout(LOOK, self.source.fill()).await {
                Ok(Ok(true)) => self.take()?,
                Ok(Ok(false)) => bail!("the fabric has ended"),
                Ok(Err(error)) => return Err(error),
                Err(_) => {}
            }
        }
    }

    fn take(&mut self) -> anyhow::Result<()> {
        let Watcher {
            source,
            sightings,
            missed,
            last_update,
            flow,
            ends,
            stands,
            ..
        } = self;
        source.each(|message| match message {
            Message::Frame {
                interface,
                record,
                bytes,
            } => {
                for sighting in sight(interface as usize, &record, bytes, *ends) {
                    let time = sighting.time;
                    match sighting.what {
                        What::Updates { .. } => *last_update = Some(time),
                        What::Flow { .. } => flow.get_or_insert([time; 2])[1] = time,
                        _ => {}
                    }
                    if matches!(sighting.what, What::Updates { .. } | What::Keepalive)
                        && !sighting.lost
                    {
                        stands[sighting.lane] = time;
                    }
                    sightings.push(sighting);
                }
            }
            Message::Statistics(counts) => *missed = counts.iter().map(|count| count.lost).sum(),
        })?;
        if sightings.len() > MOST {
            bail!("the flow has too many packets to be followed: name one with fewer");
        }
        Ok(())
    }
}
