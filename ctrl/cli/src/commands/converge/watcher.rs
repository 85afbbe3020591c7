//! [`Watcher`] captures on all cables and keeps only the observations.

use std::collections::HashMap;
use std::time::Duration;

use anyhow::bail;
use dataplane::clock;
use tokio::io::AsyncRead;
use tokio::time::timeout;

use super::observation::{Ends, Event, Lane, Observation, observe};
use crate::commands::capture::compile;
use crate::commands::capture::source::Source;
use api::capture::Message;
use api::{CaptureRequest, CaptureStart, Client};

/// The snap length in bytes: enough of an UPDATE for its first prefixes.
const SNAP: u32 = 1024;

/// How often to check whether to go on while no frames come.
const CHECK_INTERVAL: Duration = Duration::from_millis(50);

/// The most observations that are kept, to bound memory. A flow of a million packets a second
/// exceeds it.
const MOST_OBSERVATIONS: usize = 8_000_000;

/// Observes the frames on the captured cables.
pub(super) struct Watcher<S> {
    source: Source<S>,
    pub(super) start: CaptureStart,
    pub(super) lanes: Vec<Lane>,
    ends: Option<Ends>,
    pub(super) observations: Vec<Observation>,
    /// The number of frames that the capture missed.
    pub(super) missed: u64,
    /// The time of the last UPDATE, in ns of the fabric's clock.
    pub(super) last_update: Option<u64>,
    /// The times of the first and the last packet of the flow.
    flow: Option<[u64; 2]>,
    /// When each lane last carried a message of an established session.
    established: Vec<u64>,
}

/// Begins to capture on every cable of a fabric, only BGP, BFD and the flow between `ends`.
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
        established: vec![0; lanes.len()],
        lanes,
        start,
        ends,
        observations: Vec::new(),
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
        // pcap-filter(7): `vlan` makes what follows it apply behind the tag.
        expression += &format!(" or ({flow}) or (vlan and {flow})");
    }
    expression
}

impl<S> Watcher<S> {
    /// Whether both ends of a cable's session have sent a message since `since`, so that the session
    /// is established.
    pub(super) fn established(&self, cable: &str, since: u64) -> bool {
        let lanes = self.lanes.iter().zip(&self.established);
        let mut ours = lanes.filter(|(lane, _)| lane.cable == cable);
        ours.all(|(_, time)| *time >= since)
    }

    /// For how long the flow has been observed.
    pub(super) fn flow_seen(&self) -> Duration {
        self.flow.map_or(Duration::ZERO, |[first, last]| {
            Duration::from_nanos(last.saturating_sub(first))
        })
    }
}

impl<S: AsyncRead + Unpin> Watcher<S> {
    /// Observes until `enough`, which is called repeatedly with the time in ns of the fabric's clock.
    /// Returns `false` if `limit` passes before.
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
            match timeout(CHECK_INTERVAL, self.source.fill()).await {
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
            observations,
            missed,
            last_update,
            flow,
            ends,
            established,
            ..
        } = self;
        source.each(|message| match message {
            Message::Frame {
                interface,
                record,
                bytes,
            } => {
                for observation in observe(interface as usize, &record, bytes, *ends) {
                    let time = observation.time;
                    match observation.event {
                        Event::Updates { .. } => *last_update = Some(time),
                        Event::Flow { .. } => flow.get_or_insert([time; 2])[1] = time,
                        _ => {}
                    }
                    if matches!(observation.event, Event::Updates { .. } | Event::Keepalive)
                        && !observation.lost
                    {
                        established[observation.lane] = time;
                    }
                    observations.push(observation);
                }
            }
            Message::Statistics(counts) => *missed = counts.iter().map(|count| count.lost).sum(),
        })?;
        if observations.len() > MOST_OBSERVATIONS {
            bail!("the flow has too many packets to follow: choose one with fewer");
        }
        Ok(())
    }
}
