//! Files to timelines.

use proptest::prelude::*;

use super::expand::THIS;
use super::*;
use model::config::Config;
use model::topology;

/// A timeline in the default fabric, with one cable for scripts.
fn expanded(text: &str) -> anyhow::Result<Vec<Moment>> {
    let scenario = file::parse("s.toml", text)?;
    let topology = topology::build(&Config::default())?;
    let mut cables = targets::planned(&topology, &scenario)?;
    cables.insert(THIS.into(), vec!["ikeb1-3".into()]);
    timeline(Path::new("s.toml"), &scenario, &cables)
}

#[test]
fn the_examples_are_good() {
    let examples = [
        include_str!("examples/lost-spine.toml"),
        include_str!("examples/bad-cable.toml"),
    ];
    let shown = examples.map(|example| text(&expanded(example).unwrap()));
    insta::assert_snapshot!(shown.join("---\n"));
    let far = expanded(include_str!("examples/far-away.toml")).unwrap();
    assert_eq!(far.len(), 51 + 2 * 3, "the jitter begins as the ramp ends");
}

#[test]
fn all_cables_of_a_switch_and_a_rack_at_the_same_instant() {
    let moments = expanded("[[step]]\ncut = [\"spine1\", \"iksb12\"]\nmend = \"rack2\"\n").unwrap();
    let [moment] = &moments[..] else {
        panic!("one moment: {moments:?}")
    };
    let named = |state| {
        let changes = moment
            .changes
            .iter()
            .filter(move |change| change.state == Some(state));
        changes
            .map(|change| change.cable.as_str())
            .collect::<Vec<_>>()
    };
    assert_eq!(
        named(model::cable_change::CableState::Down),
        [
            "ikib1", "iksb12", "iksb13", "iksb14", "iksb15", "iksb16", "iksb17"
        ]
    );
    // Two leaves with two uplinks and 21 servers each.
    assert_eq!(named(model::cable_change::CableState::Up).len(), 46);
    assert_eq!(
        moment.words,
        ["cut spine1, iksb12 (7 cables)", "mend rack2 (46 cables)"]
    );
}

#[test]
fn steps_follow_each_other() {
    let text = text(
        &expanded(
            r#"
            [[step]]
            at = "1s"
            every = "10s"
            times = 2
            flap = { on = "iksb12", times = 2, every = "1s", down = "200ms" }
            impair = { on = "iksb13", from = "spine1:3", delay = "10ms", match = "none" }
            [[step]]
            after = "500ms"
            ramp = { on = "leaf1:u3", key = "loss", start = "0%", end = "1%", over = "1s", steps = 4 }
            [[step]]
            ramp = { key = "rate", start = "1gbit", end = "10mbit", over = "2s", steps = 2 }
            [[step]]
            clear = true
            [[step]]
            at = "500ms"
            blackhole = ["iksb12"]
            "#,
        )
        .unwrap(),
    );
    insta::assert_snapshot!(text);
}

#[test]
fn mistakes_name_the_place_and_the_way_out() {
    let step = |keys: &str| format!("[[step]]\n{keys}\n");
    let bad = [
        String::new(),
        "restore = 1".into(),
        step("cut = 5"),
        step("cut = \"iksb1\""),
        step("cut = \"rack9\""),
        step("at = \"5\"\ncut = \"iksb12\""),
        step("at = \"5s\"\nafter = \"5s\"\ncut = \"iksb12\""),
        step("at = \"5s\""),
        step("cat = \"iksb12\""),
        step("cut = \"iksb12\"\ntimes = 5"),
        step("impair = { on = \"iksb12\" }"),
        step("impair = { on = \"iksb12\", dealy = \"5ms\" }"),
        step("impair = { on = \"iksb12\", delay = 5 }"),
        step("impair = { on = \"spine1\", from = \"ikst12\", delay = \"5ms\" }"),
        step("impair = { on = \"iksb12\", from = \"ikst\", delay = \"5ms\" }"),
        step("flap = { on = \"iksb12\", times = 5, every = \"1s\", down = \"2s\" }"),
        step("flap = { on = \"iksb12\", every = \"1s\" }"),
        step("every = \"1s\"\ntimes = 2\nflap = { on = \"iksb12\", times = 5, every = \"1s\" }"),
        step(
            "ramp = { on = \"iksb12\", key = \"gap\", start = \"0\", end = \"5\", over = \"1s\" }",
        ),
        step(
            "ramp = { on = \"iksb12\", key = \"delay\", start = \"0\", end = \"5\", over = \"1s\" }",
        ),
    ];
    let said: Vec<_> = bad
        .iter()
        .map(|text| format!("{:#}", expanded(text).expect_err(text)))
        .collect();
    insta::assert_snapshot!(said.join("\n"));
}

proptest! {
    /// For every scenario, moments are in order and no instant occurs twice.
    #[test]
    fn a_timeline_is_in_order(
        steps in proptest::collection::vec((0u32..5_000, any::<bool>(), 1u32..5, 10u32..500), 1..10)
    ) {
        let texts: Vec<String> = steps
            .iter()
            .map(|(time, absolute, times, every)| {
                let when = if *absolute { "at" } else { "after" };
                format!(
                    "[[step]]\n{when} = \"{time}ms\"\nflap = {{ times = {times}, every = \"{every}ms\" }}\n"
                )
            })
            .collect();
        let moments = expanded(&texts.concat()).unwrap();
        prop_assert!(moments.windows(2).all(|pair| pair[0].at < pair[1].at));
        let changes: usize = moments.iter().map(|moment| moment.changes.len()).sum();
        let asked: u32 = steps.iter().map(|(_, _, times, _)| 2 * times).sum();
        prop_assert_eq!(changes, asked as usize);
    }
}
