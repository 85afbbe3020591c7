//! A plan of the largest fabric keeps no other client waiting.

use std::time::{Duration, Instant};

use ikv_tests::have_root;
use ikv_tests::panel::PanelHost;
use ikv_tests::raw_api::{RawClient, Reply, request};
use serde_json::json;

#[test]
fn the_largest_fabric_is_planned_or_refused_while_others_are_answered() {
    if !have_root() {
        return;
    }
    let host = PanelHost::new("apply-huge");
    let fabric = host.run(&[]);
    let body = json!({
        "config": {"topology": {"racks": 255, "spines": 255, "num_u": 255}},
        "dry_run": true,
    });
    let mut asking = RawClient::connect(&host.socket());
    asking.send(&request("POST", "/v1/apply", &body.to_string()));
    let asked = Instant::now();
    let (finished, done) = std::sync::mpsc::channel();
    std::thread::scope(|scope| {
        scope.spawn(move || finished.send(asking.reply()).unwrap());
        let mut slowest = Duration::ZERO;
        let reply = loop {
            let mut client = RawClient::connect(&host.socket());
            let began = Instant::now();
            client.send(&request("GET", "/v1/status", ""));
            assert!(matches!(client.reply(), Reply::Answer(200, _)));
            slowest = slowest.max(began.elapsed());
            if let Ok(reply) = done.try_recv() {
                break reply;
            }
        };
        // The limit is 10 s; a debug build on a busy machine takes its time for the rest.
        assert!(
            asked.elapsed() < Duration::from_secs(20),
            "{:?}",
            asked.elapsed()
        );
        assert!(slowest < Duration::from_secs(3), "status took {slowest:?}");
        match reply {
            Reply::Answer(200, _) => {}
            // A fast machine gets as far as the addresses that run out; a slow one meets the limit.
            Reply::Answer(409, why) => {
                let known = why.contains("ask for fewer racks") || why.contains("make it larger");
                assert!(known, "{why}");
            }
            other => panic!("{other:?}"),
        }
    });
    fabric.end();
}
