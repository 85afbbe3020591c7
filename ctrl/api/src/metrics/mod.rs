//! The figures of a fabric in the text format of OpenMetrics 1.0, which Prometheus and others read:
//! [`text`], a function of what the API's other routes answer. So a value here is the one that `cables`
//! and `status` show at the same moment.
//!
//! A series that is there stays there while its cable does. Those that nearly always are 0 (a reason of
//! drops, an effect of an impairment) begin with their first frame: a fabric of 141 cables would have
//! ten thousand of them.

mod families;
mod lanes;
#[cfg(test)]
mod tests;

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, NoLabelSet, text};
use prometheus_client::registry::Registry;

use families::{Family, Kind};

use crate::{ApiError, Backend, CableReport, NodeState, Sessions, Status};

/// The media type of the text.
pub(crate) const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// The names of all samples, such as `ikv_lane_drops_total`.
pub fn metric_names() -> Vec<String> {
    families::ALL.iter().map(Family::sample_name).collect()
}

/// The figures of this fabric now.
///
/// # Errors
/// When its cables cannot be asked.
pub(crate) async fn of(backend: &impl Backend) -> Result<String, ApiError> {
    let figures = Figures {
        cables: backend.cables(&[]).await?,
        status: backend.status(),
        busy: backend.workers_busy(),
    };
    encode(figures).map_err(ApiError::failed)
}

/// What is encoded.
#[derive(Debug)]
struct Figures {
    cables: Vec<CableReport>,
    status: Status,
    /// By the workers' numbers.
    busy: Vec<Duration>,
}

fn encode(figures: Figures) -> Result<String, fmt::Error> {
    let mut registry = Registry::default();
    registry.register_collector(Box::new(Arc::new(figures)));
    let mut page = String::new();
    text::encode(&mut page, &registry)?;
    Ok(page)
}

impl Collector for Figures {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let mut page = Page(encoder);
        let Figures {
            cables,
            status,
            busy,
        } = self;
        page.family(
            families::BUILD,
            [(
                labels([("version", env!("CARGO_PKG_VERSION"))]),
                Value::Count(1),
            )],
        )?;
        page.single(families::READY, Value::of(status.ready))?;
        page.single(families::HOLD_MEMORY, Value::Count(status.hold_memory))?;
        let taken = Value::Count(status.hold_memory_taken);
        page.single(families::HOLD_MEMORY_TAKEN, taken)?;
        let busy = busy.iter().enumerate().map(|(worker, busy)| {
            let worker = Cow::Owned(worker.to_string());
            (vec![("worker", worker)], Value::Number(busy.as_secs_f64()))
        });
        page.family(families::WORKER_BUSY, busy)?;
        switches(&mut page, status)?;
        lanes::write(&mut page, cables)
    }
}

fn switches(page: &mut Page<'_>, status: &Status) -> fmt::Result {
    const STATES: [NodeState; 5] = [
        NodeState::Booting,
        NodeState::Running,
        NodeState::Restarting,
        NodeState::Off,
        NodeState::Failed,
    ];
    let states = status.nodes.iter().flat_map(|node| {
        STATES.map(|state| {
            let named = [
                ("switch", &*node.name),
                ("role", &*node.role),
                ("state", state.name()),
            ];
            (labels(named), Value::of(node.state == state))
        })
    });
    page.family(families::SWITCH_STATE, states)?;
    let sessions = |count: fn(&Sessions) -> usize| {
        status.nodes.iter().map(move |node| {
            let named = labels([("switch", &*node.name)]);
            (named, Value::Count(count(&node.bgp) as u64))
        })
    };
    page.family(families::SESSIONS, sessions(|bgp| bgp.established))?;
    page.family(families::SESSIONS_EXPECTED, sessions(|bgp| bgp.expected))
}

/// The labels of a sample.
type Labels<'a> = Vec<(&'static str, Cow<'a, str>)>;

/// A number is printed as a count if it is one: so it has no more digits than it needs.
#[derive(Debug, Clone, Copy)]
enum Value {
    Count(u64),
    Number(f64),
}

impl Value {
    fn of(holds: bool) -> Self {
        Value::Count(holds.into())
    }
}

fn labels<'a, const N: usize>(pairs: [(&'static str, &'a str); N]) -> Labels<'a> {
    let escaped = pairs.map(|(name, value)| (name, escaped(value)));
    escaped.into()
}

/// A label's value, in which the encoder escapes nothing (OpenMetrics 1.0, "Escaping"). Ports of `patch`
/// have paths as names.
fn escaped(value: &str) -> Cow<'_, str> {
    if value.contains(['\\', '"', '\n']) {
        let value = value.replace('\\', "\\\\").replace('"', "\\\"");
        Cow::Owned(value.replace('\n', "\\n"))
    } else {
        Cow::Borrowed(value)
    }
}

/// The text while it is written.
struct Page<'e>(DescriptorEncoder<'e>);

impl Page<'_> {
    fn family<'a>(
        &mut self,
        family: Family,
        samples: impl IntoIterator<Item = (Labels<'a>, Value)>,
    ) -> fmt::Result {
        let Family { name, kind, help } = family;
        let mut encoder = self.0.encode_descriptor(name, help, None, kind.into())?;
        for (labels, value) in samples {
            if kind == Kind::Info {
                encoder.encode_info(&labels)?;
                continue;
            }
            let mut sample = encoder.encode_family(&labels)?;
            match (kind, value) {
                (Kind::Counter, Value::Count(count)) => {
                    sample.encode_counter::<NoLabelSet, _, u64>(&count, None)?;
                }
                (Kind::Counter, Value::Number(number)) => {
                    sample.encode_counter::<NoLabelSet, _, u64>(&number, None)?;
                }
                (_, Value::Count(count)) => sample.encode_gauge(&count)?,
                (_, Value::Number(number)) => sample.encode_gauge(&number)?,
            }
        }
        Ok(())
    }

    /// A gauge without labels.
    fn single(&mut self, family: Family, value: Value) -> fmt::Result {
        let Family { name, kind, help } = family;
        let mut encoder = self.0.encode_descriptor(name, help, None, kind.into())?;
        match value {
            Value::Count(count) => encoder.encode_gauge(&count),
            Value::Number(number) => encoder.encode_gauge(&number),
        }
    }
}
