//! The fabric that all tests share.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

use ikv_tests::{Cli, Fabric, Plug, ServerNic, ServerVm, Site, say};
use libtest_mimic::Failed;

/// The longest wait for a fabric; another test asserts that it was ready fast enough.
const PATIENCE: Duration = Duration::from_secs(240);

/// The server's addresses. Its FRR announces every route it knows to the leaves of rack 2, as a
/// careless server would; to leaf2 it announces the second address only.
pub(crate) const SERVER_ADDRESS: [u8; 4] = [192, 168, 120, 1];
pub(crate) const SERVER_SECOND_ADDRESS: [u8; 4] = [192, 168, 120, 2];
const SERVER_FRR: &str = include_str!("server-frr.conf");

/// The server's NICs: two on taps at U6 of rack 2, the first with the documents' literal option and
/// the second without a script; one by vhost-user at U7 of rack 1, whose cable leads to leaf2.
const SERVER_NICS: [ServerNic; 3] = [
    ServerNic {
        plug: Plug::Tap("ifname=ikvm2-6-1"),
        mac: "02:69:6b:02:06:01",
        vlan: 10,
        address: None,
    },
    ServerNic {
        plug: Plug::Tap("ifname=ikvm2-6-2,script=no,downscript=no"),
        mac: "02:69:6b:02:06:02",
        vlan: 10,
        address: None,
    },
    ServerNic {
        plug: Plug::VhostUser("ikvm1-7-2"),
        mac: "02:69:6b:01:07:02",
        vlan: 11,
        address: Some("192.168.113.200/24"),
    },
];

/// How the switches' NICs are joined to their cables: the key `vm.nic`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Nics {
    /// The default.
    VhostUser,
    Tap,
}

/// Boots the fabric when the first test needs it, and another one when a test needs the switches'
/// NICs connected in another way.
#[derive(Default)]
pub(crate) enum Lab {
    #[default]
    NotStarted,
    Up(Box<Up>),
    Broken(Nics),
}

/// A fabric that has been ready, and a server plugged into it.
pub(crate) struct Up {
    pub(crate) nics: Nics,
    pub(crate) fabric: Fabric,
    pub(crate) cli: Cli,
    /// Time from the start of `run` until it was ready.
    pub(crate) ready_after: Duration,
    pub(crate) server: ServerVm,
    /// Whether switches start from saved states, as they do under TCG.
    pub(crate) restores: bool,
}

impl Lab {
    /// Runs a test. The message of a failure includes the state of every switch.
    pub(crate) fn run(&mut self, name: &str, nics: Nics, test: fn(&mut Up)) -> Result<(), Failed> {
        let up = self.up(nics)?;
        let began = Instant::now();
        let outcome = catch_unwind(AssertUnwindSafe(|| test(up)));
        say(&format!("{name}: {:.1} s", began.elapsed().as_secs_f64()));
        outcome.map_err(|panic| {
            let message = panic
                .downcast_ref::<String>()
                .cloned()
                .or_else(|| panic.downcast_ref::<&str>().map(ToString::to_string));
            let message = message.unwrap_or_default();
            let server = up.server.console_tail();
            format!("{message}\n{}\n==== server\n{server}", up.fabric.dump()).into()
        })
    }

    fn up(&mut self, nics: Nics) -> Result<&mut Up, Failed> {
        let stands = match self {
            Lab::NotStarted => false,
            Lab::Up(up) => up.nics == nics,
            Lab::Broken(tried) => *tried == nics,
        };
        if !stands {
            // Should the start fail, the other tests must not try it again. The fabric before is
            // dropped first: a machine has room for one datacenter.
            *self = Lab::Broken(nics);
            *self = Lab::Up(Box::new(Up::start(nics)?));
        }
        match self {
            Lab::Up(up) => Ok(up),
            Lab::NotStarted | Lab::Broken(_) => Err("the fabric did not come up, see above".into()),
        }
    }
}

impl Up {
    fn start(nics: Nics) -> Result<Self, Failed> {
        ikv_tests::ensure_image()?;
        let options: &[&str] = match nics {
            Nics::VhostUser => &[],
            Nics::Tap => &["--set", "vm.nic=tap"],
        };
        let mut fabric = Fabric::start(Site::new("dc"), options);
        let ready_after = fabric.wait_ready(PATIENCE)?;
        let cli = fabric.cli();
        // The server boots while the first tests run.
        let addresses = [SERVER_ADDRESS, SERVER_SECOND_ADDRESS]
            .map(|address| format!("{}/32", std::net::Ipv4Addr::from(address)));
        let server = ServerVm::start(
            &fabric.site.host,
            &cli,
            fabric.scratch(),
            &fabric.run_folder(),
            &SERVER_NICS,
            &addresses.each_ref().map(String::as_str),
            SERVER_FRR,
        );
        let restores = fabric.stderr().contains("switches run under tcg");
        Ok(Up {
            nics,
            fabric,
            cli,
            ready_after,
            server,
            restores,
        })
    }

    /// Whether a switch was restored from a saved state rather than booted.
    pub(crate) fn was_restored(&self, node: &str) -> bool {
        let stages = self.cli.exec(node, &["cat", "/run/ikv/boot"]);
        stages.contains(" woken\n")
    }
}
