//! A fabric that is ended while it comes up leaves nothing, wherever it is: at every moment at which
//! a signal can end it, and at every stage of the real program.
#![allow(missing_docs, clippy::unwrap_used)]

use std::future::Future;
use std::pin::pin;
use std::task::{Context, Poll};

use dataplane::PanelOptions;
use fabric::progress::Progress;
use fabric::{Options, RecorderOptions, Running, bring_up};
use ikv_tests::have_root;
use ikv_tests::panel::PanelHost;
use model::config::Config;
use model::difference::FabricPlan;
use model::topology::{self, Choice, Selection};
use rustix::process::Signal;

/// A small fabric without switches.
fn options(host: &PanelHost) -> Options {
    let mut config = Config::default();
    config.topology.racks = 1;
    let topology = topology::build(&config).unwrap();
    Options {
        plan: FabricPlan {
            config,
            topology,
            switches: Selection::none(),
        },
        choice: Choice::None,
        socket: host.socket(),
        panel: PanelOptions {
            workers: 2,
            ..PanelOptions::default()
        },
        recorder: Some(RecorderOptions::default()),
        page: None,
    }
}

/// Polls `bring_up`, drops it after `most` polls that left it pending, and takes down what there is.
/// Whether the fabric had come up by then.
async fn ended_after(most: usize, options: &Options) -> bool {
    let mut running = Running::default();
    let progress = Progress::new();
    let came_up = {
        let mut coming = pin!(bring_up(options, &mut running, &progress));
        let mut pending = 0;
        std::future::poll_fn(
            |context: &mut Context<'_>| match coming.as_mut().poll(context) {
                Poll::Ready(result) => {
                    result.unwrap();
                    Poll::Ready(true)
                }
                Poll::Pending if pending == most => Poll::Ready(false),
                Poll::Pending => {
                    pending += 1;
                    Poll::Pending
                }
            },
        )
        .await
    };
    running.take_down().await.unwrap();
    came_up
}

#[test]
fn it_can_be_dropped_wherever_it_waits() {
    if !have_root() {
        return;
    }
    let host = PanelHost::new("dropped");
    let before = host.state();
    let options = options(&host);
    let mut most = 0;
    loop {
        // A thread of its own for each, because a fabric that stands gives up rights of its thread.
        let came_up = host.netns.enter(|| {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap();
            runtime.block_on(ended_after(most, &options))
        });
        before.assert_unchanged(&host.state(), &format!("dropped after {most} polls"));
        if came_up {
            break;
        }
        // Each cable is waited for twice, and the recorder's lanes after them.
        most = most * 5 / 4 + 1;
    }
    assert!(most > 20, "it never waits for its workers");
}

#[test]
fn a_signal_at_each_stage_takes_everything_away() {
    if !have_root() {
        return;
    }
    let host = PanelHost::new("stages");
    let before = host.state();
    for stage in ["✓ host", "✓ cables", "✓ ready"] {
        let mut fabric = host.spawn(host.run_command(&[]));
        fabric.wait_said(stage);
        fabric.signal(Signal::INT);
        match fabric.wait_end().code() {
            Some(0) => {}
            Some(1) if stage != "✓ ready" => {
                fabric.wait_said("stopped before the fabric was ready");
            }
            other => panic!("{stage}: {other:?}: {}", fabric.stderr()),
        }
        before.assert_unchanged(&host.state(), stage);
    }
}
