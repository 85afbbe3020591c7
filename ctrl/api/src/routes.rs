//! Every request that the API answers: [the table](self#constants) that server and client share.
//!
//! A path is written here and nowhere else.

use std::marker::PhantomData;

use hyper::Method;
use serde::{Deserialize, Serialize};

use model::cable_change::{CableBatch, ImpairmentChange};
use model::plugging::PlugOptions;
use model::topology::TopologyJson;

use crate::{
    ApplyAnswer, ApplyRequest, CableBatchDone, CableChanged, CableReport, CableStateRequest,
    CaptureRequest, DumpRequest, ExecAnswer, ExecRequest, IpmiAccess, LaneImpairment, NodeStatus,
    Positions, PositionsRequest, PowerRequest, RecorderStatus, SshAccess, Status, Stopping,
    TriggersRequest,
};

/// One kind of request: its method, its path, and the types of what is asked and answered.
///
/// A `GET` carries the fields of `Input` in the query, a `PUT` or `POST` carries them as JSON in
/// the body. `Answer` comes back as JSON or, if it is a [`Protocol`], is what the connection
/// speaks after it was upgraded.
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

/// The stream that [`crate::capture`] describes.
#[derive(Debug)]
pub enum CapturedFrames {}

impl Protocol for CapturedFrames {
    const NAME: &'static str = "ikv-capture";
}

/// The input of a route that needs none.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Nothing {}

/// In the query of [`CABLES`]: the key `name`, any number of times.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "Vec<(String, String)>", into = "Vec<(String, String)>")]
pub struct CableNames(
    /// Names or aliases of cables, or of their ends; empty means all cables.
    pub Vec<String>,
);

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

macro_rules! routes {
    ($(
        $(#[$doc:meta])*
        $name:ident = $method:ident $template:literal, $input:ty => $answer:ty;
    )*) => {
        $(
            $(#[$doc])*
            pub const $name: Route<$input, $answer> = Route::new(Method::$method, $template);
        )*

        /// Method and path of each route.
        #[cfg(test)]
        pub(crate) const ALL: &[(Method, &str)] = &[$((Method::$method, $template)),*];
    };
}

routes! {
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
    /// The QEMU options that plug a VM in at a position, one argument each.
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
