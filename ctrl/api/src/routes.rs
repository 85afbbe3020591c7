//! Every request that the API answers: [the table](self#constants) that server and client share.
//!
//! A path is written here and nowhere else.

use std::borrow::Cow;
use std::marker::PhantomData;

use hyper::Method;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

use model::cable_change::{CableBatch, ImpairmentChange};
use model::plugging::PlugOptions;
use model::topology::TopologyJson;

use crate::openapi::{Answer, Success, text, upgraded};
use crate::{
    ApplyAnswer, ApplyRequest, CableBatchDone, CableChanged, CableReport, CableStateRequest,
    CaptureFileRequest, CaptureRequest, DumpRequest, EventsRequest, ExecAnswer, ExecRequest,
    IpmiAccess, LaneImpairment, NodeStatus, PageLink, Positions, PositionsRequest, PowerRequest,
    RecorderStatus, SshAccess, Status, Stopping, TriggersRequest,
};

/// One kind of request: its method, its path, and the types of what is asked and answered.
///
/// A `GET` carries the fields of `Input` in the query, a `PUT` or `POST` carries them as JSON in
/// the body. `Answer` comes back as JSON, but for [`ServerSentEvents`] and [`OpenMetrics`]; or, if it is a
/// [`Protocol`], it is what the connection speaks after it was upgraded.
#[derive(Debug)]
pub struct Route<Input, Answer> {
    pub(crate) method: Method,
    /// As axum writes it; it has at most one segment in braces.
    pub(crate) template: &'static str,
    types: PhantomData<fn(Input) -> Answer>,
}

impl<Input, Answer> Route<Input, Answer> {
    const fn new(method: Method, template: &'static str) -> Self {
        Route {
            method,
            template,
            types: PhantomData,
        }
    }

    /// `GET`, `PUT` or `POST`.
    pub fn method(&self) -> &str {
        self.method.as_str()
    }

    /// The path with `name` in place of the segment in braces; `name` means nothing to a route
    /// that has no such segment. It is taken as it is: percent-encoding it is up to the caller.
    pub fn path(&self, name: &str) -> String {
        match self.template.split_once('{') {
            Some((before, rest)) => {
                let after = rest.split_once('}').map_or("", |(_, after)| after);
                [before, name, after].concat()
            }
            None => self.template.to_owned(),
        }
    }
}

/// What a connection speaks once it was upgraded.
pub trait Protocol {
    /// In the header `Upgrade`.
    const NAME: &'static str;
}

/// The bytes of a serial console, both ways, as they are.
#[derive(Debug)]
pub enum ConsoleBytes {}

impl Protocol for ConsoleBytes {
    const NAME: &'static str = "ikv-console";
}

impl Answer for ConsoleBytes {
    fn success(_: &mut SchemaGenerator) -> Success {
        upgraded::<Self>("The bytes of the console, both ways, as they are.")
    }
}

/// The stream that [`crate::capture`] describes.
#[derive(Debug)]
pub enum CapturedFrames {}

impl Protocol for CapturedFrames {
    const NAME: &'static str = "ikv-capture";
}

impl Answer for CapturedFrames {
    fn success(_: &mut SchemaGenerator) -> Success {
        upgraded::<Self>(
            "A line of JSON with the names of the ports (`interfaces`), then messages, in little-endian \
             order: their length without these four bytes (u32), the index of the port (u32), the \
             record of the frame and its bytes; at the end the index 0xffffffff with frames received \
             and lost (u64 each) for each port. `ikv-fabric capture -w` writes it as pcapng.",
        )
    }
}

/// The answer of [`EVENTS`]: the stream that [`crate::events`] describes, `text/event-stream`.
#[derive(Debug)]
pub enum ServerSentEvents {}

impl Answer for ServerSentEvents {
    fn success(_: &mut SchemaGenerator) -> Success {
        text(
            "text/event-stream",
            "Server-sent events. `data` is one line of JSON: `id`, `time` (RFC 3339, UTC), `kind` and, where \
             a kind has several, `state`, `subject` and `text`. Fifteen seconds without one bring a comment. \
             A reader that is too slow gets a last event `lagged`, with `missed` and the id `since` to go \
             on from.",
        )
    }
}

/// The answer of [`METRICS`]: the text format of OpenMetrics 1.0.
#[derive(Debug)]
pub enum OpenMetrics {}

impl Answer for OpenMetrics {
    fn success(_: &mut SchemaGenerator) -> Success {
        text(
            "application/openmetrics-text",
            "The figures of lanes, switches and workers in the text format of OpenMetrics 1.0.",
        )
    }
}

/// The answer of [`CAPTURE_FILE`]: a pcapng file, as `capture -w` writes it.
#[derive(Debug)]
pub enum PcapngFile {}

impl Answer for PcapngFile {
    fn success(_: &mut SchemaGenerator) -> Success {
        text(
            "application/x-pcapng",
            "A pcapng file, sent while it is captured.",
        )
    }
}

/// The input of a route that needs none.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Nothing {}

/// In the query of [`CABLES`]: the key `name`, any number of times.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "Vec<(String, String)>", into = "Vec<(String, String)>")]
pub struct CableNames(
    /// Names or aliases of cables, or of their ends; empty means all cables.
    pub Vec<String>,
);

impl JsonSchema for CableNames {
    fn schema_name() -> Cow<'static, str> {
        "CableNames".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "object",
            "properties": {
                "name": {
                    "description": "Names or aliases of cables, or of their ends; without one, all cables.",
                    "type": "array",
                    "items": { "type": "string" },
                },
            },
        })
    }
}

impl From<Vec<(String, String)>> for CableNames {
    fn from(query: Vec<(String, String)>) -> Self {
        let named = query.into_iter().filter(|(key, _)| key == "name");
        CableNames(named.map(|(_, name)| name).collect())
    }
}

impl From<CableNames> for Vec<(String, String)> {
    fn from(CableNames(names): CableNames) -> Self {
        let pair = |name| ("name".to_owned(), name);
        names.into_iter().map(pair).collect()
    }
}

/// A route as [`crate::openapi`] describes it.
pub(crate) struct Described {
    /// The name of its constant.
    pub(crate) name: &'static str,
    pub(crate) method: Method,
    pub(crate) template: &'static str,
    /// Its doc comment, a line of it at a time.
    pub(crate) about: &'static [&'static str],
    /// The input's own schema.
    pub(crate) query: fn(&mut SchemaGenerator) -> Schema,
    /// The input's schema, or where it is.
    pub(crate) body: fn(&mut SchemaGenerator) -> Schema,
    /// What comes when the request is not refused.
    pub(crate) answer: fn(&mut SchemaGenerator) -> Success,
}

macro_rules! routes {
    ($(
        $(#[doc = $doc:literal])*
        $name:ident = $method:ident $template:literal, $input:ty => $answer:ty;
    )*) => {
        $(
            $(#[doc = $doc])*
            pub const $name: Route<$input, $answer> = Route::new(Method::$method, $template);
        )*

        /// Every route.
        pub(crate) const ALL: &[Described] = &[$(Described {
            name: stringify!($name),
            method: Method::$method,
            template: $template,
            about: &[$($doc),*],
            query: <$input as JsonSchema>::json_schema,
            body: SchemaGenerator::subschema_for::<$input>,
            answer: <$answer as Answer>::success,
        }),*];
    };
}

routes! {
    /// This description of the API, in the terms of OpenAPI 3.1.
    OPENAPI = GET "/v1/openapi.json", Nothing => serde_json::Value;

    /// Whether the fabric is ready, and what each switch does.
    STATUS = GET "/v1/status", Nothing => Status;
    /// What `topology --json` prints.
    TOPOLOGY = GET "/v1/topology", Nothing => TopologyJson;

    /// Cables and their counters.
    CABLES = GET "/v1/cables", CableNames => Vec<CableReport>;
    /// Cuts or mends a cable, or makes it swallow frames.
    CABLE_STATE = PUT "/v1/cables/{cable}/state", CableStateRequest => CableChanged;
    /// Changes what a cable does to its frames; answers with both its lanes.
    IMPAIRMENT = PUT "/v1/cables/{cable}/impairment", ImpairmentChange => [LaneImpairment; 2];
    /// Every lane that has an impairment.
    IMPAIRMENTS = GET "/v1/impairments", Nothing => Vec<LaneImpairment>;
    /// Makes several changes to cables at one instant, or none of them.
    CABLE_BATCH = POST "/v1/step", CableBatch => CableBatchDone;

    /// Gives the fabric another configuration. It answers when that is done; it goes on even if
    /// the client has gone.
    APPLY = POST "/v1/apply", ApplyRequest => ApplyAnswer;

    /// Ends the fabric, as Ctrl-C does where it runs. Only its owner and root may ask for it.
    STOP = POST "/v1/stop", Nothing => Stopping;

    /// Where servers plug in, and which of these positions are taken.
    POSITIONS = GET "/v1/places", PositionsRequest => Positions;
    /// What plugs a VM in at a position: options of QEMU or Cloud Hypervisor, one argument each, or elements
    /// of a libvirt domain.
    VM_ARGS = GET "/v1/vm-args/{position}", PlugOptions => Vec<String>;

    /// How the switches are reached by SSH.
    SSH = GET "/v1/ssh", Nothing => SshAccess;
    /// How the switches' BMCs are reached, and what each of them does.
    IPMI = GET "/v1/ipmi", Nothing => IpmiAccess;
    /// Runs a command on a switch.
    EXEC = POST "/v1/nodes/{node}/exec", ExecRequest => ExecAnswer;
    /// Switches a switch on or off, or resets it.
    POWER = PUT "/v1/nodes/{node}/power", PowerRequest => NodeStatus;
    /// The serial console of a switch.
    CONSOLE = GET "/v1/nodes/{node}/console", Nothing => ConsoleBytes;

    /// Frames from now on.
    CAPTURE = POST "/v1/capture", CaptureRequest => CapturedFrames;
    /// Frames of a cable from now on as a file, for clients that know plain HTTP only, such as browsers.
    CAPTURE_FILE = GET "/v1/cables/{cable}/capture", CaptureFileRequest => PcapngFile;

    /// The link of the fabric's page.
    PAGE = GET "/v1/page", Nothing => PageLink;

    /// What happened, and what happens from now on.
    EVENTS = GET "/v1/events", EventsRequest => ServerSentEvents;
    /// Figures for a monitoring system.
    METRICS = GET "/metrics", Nothing => OpenMetrics;

    /// The flight recorder: its memory, its triggers and the dumps that it has kept.
    RECORDER = GET "/v1/recorder", Nothing => RecorderStatus;
    /// What the flight recorder holds now.
    RECORDER_DUMP = POST "/v1/recorder/dump", DumpRequest => CapturedFrames;
    /// A dump that the flight recorder has kept.
    KEPT_DUMP = GET "/v1/recorder/dumps/{dump}", Nothing => CapturedFrames;
    /// Replaces the triggers of the flight recorder.
    RECORDER_TRIGGERS = PUT "/v1/recorder/triggers", TriggersRequest => RecorderStatus;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_stands_where_the_template_has_its_braces() {
        assert_eq!(CABLE_STATE.path("iksb12"), "/v1/cables/iksb12/state");
        assert_eq!(KEPT_DUMP.path("a%2Fb"), "/v1/recorder/dumps/a%2Fb");
        assert_eq!(STATUS.path("ignored"), "/v1/status");
    }
}
