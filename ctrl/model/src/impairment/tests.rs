//! Keys are kept, taken away, refused; and what becomes of them.

use std::time::Duration;

use clap::{Args, Command, FromArgMatches};
use dataplane::impair::{Distribution, Impairment, Loss};
use proptest::prelude::*;

use super::*;

fn typed(words: &str) -> Result<ImpairKeys, String> {
    let command = ImpairKeys::augment_args(Command::new("impair"));
    // A quoted word stands for one argument.
    let words = words.split('\'').enumerate().flat_map(|(index, part)| {
        if index % 2 == 1 {
            vec![part]
        } else {
            part.split_whitespace().collect()
        }
    });
    let matches = command
        .try_get_matches_from(std::iter::once("impair").chain(words))
        .map_err(|error| error.to_string())?;
    ImpairKeys::from_arg_matches(&matches).map_err(|error| error.to_string())
}

fn settings(words: &str) -> Impairment {
    typed(words).unwrap().settings().unwrap()
}

#[test]
fn everything_that_netem_has_can_be_typed() {
    let said = [
        "--delay 10ms --jitter 1ms --correlation 25% --distribution normal",
        "--loss 1%",
        "--loss random 1% 25% --ecn",
        "--loss gemodel 1% 10% 70% 0.1%",
        "--loss 'gemodel:1%,10%'",
        "--loss state 1%",
        "--duplicate 1% 50% --corrupt 0.1%",
        "--delay 10ms --reorder 25% 50% --gap 5",
        "--rate 1gbit --overhead -14 --cell 48 --cell-overhead 5",
        "--delay 1s --limit 1000p",
        "--delay 1s --limit 2MB",
        "--slot 800us 1ms packets 10 bytes 15000",
        "--slot distribution pareto 1ms 200us",
        "--delay 5ms --seed 42 --drop 7,3,20-25",
    ];
    let shown: Vec<_> = said
        .iter()
        .map(|words| {
            let keys = typed(words).unwrap();
            format!(
                "{words}\n  {}\n  {:?}",
                keys.words(),
                keys.settings().unwrap()
            )
        })
        .collect();
    insta::assert_snapshot!(shown.join("\n"));
}

#[test]
fn mistakes_say_the_way_out() {
    let typed_wrong = [
        "--delay 10",
        "--loss 1",
        "--loss maybe",
        "--loss state 1% 2% 3% 4% 5% 6%",
        "--rate 10mbps",
        "--limit 1000",
        "--slot 5ms 1ms",
        "--slot 5ms packets",
        "--drop 0",
        "--drop 1-9999999",
        "--seed 0",
        "--ecn perhaps",
    ]
    .map(|words| typed(words).unwrap_err());
    let contradictory = [
        "--distribution normal",
        "--correlation 10%",
        "--overhead 24",
        "--cell 48",
        "--rate 1gbit --cell-overhead 5",
        "--gap 5",
        "--reorder 5%",
        "--ecn",
        "--delay 1ms --jitter 1us --distribution /no/such/file",
        "--match 'tcp port 179'",
        "--delay 2h",
    ]
    .map(|words| typed(words).unwrap().settings().unwrap_err().to_string() + "\n");
    insta::assert_snapshot!([typed_wrong.concat(), contradictory.concat()].concat());
}

#[test]
fn one_key_changes_and_the_others_stay() {
    let before =
        typed("--delay 10ms --jitter 1ms --distribution pareto --loss 1% --seed 7").unwrap();
    let after = before.clone().overlay(typed("--loss 5%").unwrap());
    assert_eq!(
        after.words(),
        "delay 10ms jitter 1ms distribution pareto loss 5%"
    );
    assert_eq!(after.seed, before.seed);
}

#[test]
fn a_key_that_is_taken_away_takes_with_it_what_means_nothing_without() {
    let gone = |before: &str, over: &str| {
        let before = typed(before).unwrap();
        before.overlay(typed(over).unwrap()).words()
    };
    let jittery = "--delay 10ms --jitter 1ms --correlation 5% --distribution normal";
    assert_eq!(gone(jittery, "--jitter 0"), "delay 10ms");
    assert_eq!(gone("--loss 5% --ecn", "--loss 0%"), "");
    assert_eq!(
        gone("--delay 1ms --reorder 5% --gap 3", "--reorder none"),
        "delay 1ms"
    );
    let line = "--rate 1gbit --overhead 24 --cell 48 --cell-overhead 5";
    assert_eq!(gone(line, "--cell 0"), "rate 1gbit overhead 24");
    assert_eq!(gone(line, "--rate none"), "");
    assert_eq!(
        gone(
            "--slot 5ms --limit 5p --drop 3",
            "--slot none --limit none --drop none"
        ),
        ""
    );
}

#[test]
fn the_shares_of_the_loss_models_are_tc_s() {
    assert_eq!(
        settings("--loss gemodel 1% 10% 70% 0.1%").loss,
        Loss::gemodel(0.01, Some(0.1), Some(0.7), Some(0.001))
    );
    assert_eq!(
        settings("--loss state 1%").loss,
        Loss::state(0.01, None, None, None, None)
    );
    let Loss::Gemodel { p, r, h, k } = settings("--loss gemodel 2%").loss else {
        panic!("another model")
    };
    assert_eq!((p, r, h, k), (0.02, 0.98, 0.0, 1.0));
}

#[test]
fn tables_are_read_and_filters_compiled_by_the_client() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("mine.dist");
    std::fs::write(&file, "# made by hand\n-5 0\n5 # the end\n").unwrap();
    let keys = typed(&format!(
        "--delay 1ms --jitter 1us --distribution {} --match 'udp'",
        file.display()
    ))
    .unwrap();
    let accept = (6, 0, 0, 65535);
    let resolved = keys
        .resolve(|expression| {
            assert_eq!(expression, "udp");
            Ok(vec![accept])
        })
        .unwrap();
    let settings = resolved.settings().unwrap();
    assert_eq!(
        settings.distribution,
        Distribution::Table([-5, 0, 5].into())
    );
    assert_eq!(settings.matches.unwrap().instructions()[0].k, 65535);
    let sent = serde_json::to_string(&resolved).unwrap();
    assert_eq!(serde_json::from_str::<ImpairKeys>(&sent).unwrap(), resolved);
    let shown = serde_json::to_string(&resolved.shown()).unwrap();
    assert_eq!(
        shown,
        format!(
            r#"{{"delay":"1ms","jitter":"1us","distribution":"{}","match":"udp"}}"#,
            file.display()
        )
    );
    std::fs::write(&file, "1 two").unwrap();
    let wrong = keys_of(&file)
        .resolve(|_| Ok(vec![]))
        .unwrap_err()
        .to_string();
    assert!(
        wrong.ends_with("line 1: \"two\" is not a whole number from -32768 to 32767"),
        "{wrong}"
    );
    let failed = typed("--match 'tcp port'").unwrap();
    let failed = failed.resolve(|_| Err("syntax error".into())).unwrap_err();
    assert_eq!(failed.to_string(), "match: syntax error");
}

fn keys_of(file: &std::path::Path) -> ImpairKeys {
    typed(&format!("--jitter 1us --distribution {}", file.display())).unwrap()
}

#[test]
fn json_takes_numbers_and_texts() {
    let keys: ImpairKeys =
        serde_json::from_str(r#"{"delay":"1.5s","gap":5,"ecn":true,"seed":42,"loss":"1%"}"#)
            .unwrap();
    assert_eq!(keys.delay.unwrap().0, Duration::from_millis(1500));
    assert_eq!((keys.gap.unwrap().0, keys.seed.unwrap().0), (5, 42));
    assert!(serde_json::from_str::<ImpairKeys>(r#"{"dealy":"1s"}"#).is_err());
}

/// Any keys that can be typed, whether they go together or not.
fn any_keys() -> impl Strategy<Value = ImpairKeys> {
    fn maybe<T: std::str::FromStr + std::fmt::Debug + Clone>(
        texts: &'static [&'static str],
    ) -> impl Strategy<Value = Option<T>> {
        proptest::option::of(proptest::sample::select(texts).prop_map(|text| {
            text.parse()
                .ok()
                .expect("the texts of this test can be read")
        }))
    }
    let times = (
        maybe(&["0", "10ms", "1.5s"]),
        maybe(&["0", "1ms"]),
        maybe(&["0%", "25%"]),
        maybe(&["uniform", "normal", "pareto"]),
        maybe(&["0%", "1%", "state 1%", "gemodel 1% 5%"]),
        maybe(&["true", "false"]),
        maybe(&["0%", "1% 5%"]),
        maybe(&["0%", "1%"]),
    );
    let rest = (
        maybe(&["0%", "5%"]),
        maybe(&["0", "5"]),
        maybe(&["none", "1gbit"]),
        maybe(&["0", "-14", "24"]),
        maybe(&["0", "48"]),
        maybe(&["0", "5"]),
        maybe(&["none", "5MB", "7p"]),
        maybe(&["none", "1ms 2ms packets 5"]),
        maybe(&["1", "42"]),
        maybe(&["none", "3,7"]),
    );
    (times, rest).prop_map(|(times, rest)| ImpairKeys {
        delay: times.0,
        jitter: times.1,
        correlation: times.2,
        distribution: times.3,
        loss: times.4,
        ecn: times.5,
        duplicate: times.6,
        corrupt: times.7,
        reorder: rest.0,
        gap: rest.1,
        rate: rest.2,
        overhead: rest.3,
        cell: rest.4,
        cell_overhead: rest.5,
        limit: rest.6,
        slot: rest.7,
        seed: rest.8,
        matches: None,
        drop_nth: rest.9,
    })
}

proptest! {
    /// Whatever was set before: one key more changes that key alone.
    #[test]
    fn setting_one_key_keeps_the_others(before in any_keys(), over in any_keys()) {
        let before = ImpairKeys::default().overlay(before);
        for (key, value) in over.pairs() {
            let mut one = ImpairKeys::default();
            one.set(key, &value).unwrap();
            let after = before.clone().overlay(one.clone());
            let nothing = ImpairKeys::default().overlay(one).is_empty();
            for (other, kept) in before.pairs() {
                let found = after.pairs().into_iter().find(|(name, _)| *name == other);
                if other == key {
                    prop_assert_eq!(found.map(|(_, value)| value), (!nothing).then(|| value.clone()));
                } else if !nothing {
                    prop_assert_eq!(found.map(|(_, value)| value), Some(kept));
                }
            }
        }
    }

    /// What is shown can be typed, sent and read again.
    #[test]
    fn keys_survive_words_and_json(keys in any_keys()) {
        let mut typed = ImpairKeys::default();
        for (key, value) in keys.pairs() {
            prop_assert!(typed.set(key, &value).unwrap());
        }
        prop_assert_eq!(&typed, &keys);
        let json = serde_json::to_string(&keys).unwrap();
        prop_assert_eq!(&serde_json::from_str::<ImpairKeys>(&json).unwrap(), &keys);
    }

    /// Two changes are the same as one of both, where neither takes anything away.
    #[test]
    fn the_order_of_different_keys_does_not_matter(one in any_keys(), other in any_keys()) {
        let clean = |keys: ImpairKeys| ImpairKeys::default().overlay(keys);
        let (one, mut other) = (clean(one), clean(other));
        let taken: Vec<_> = one.pairs().into_iter().map(|(key, _)| key).collect();
        let mut left = ImpairKeys::default();
        for (key, value) in other.pairs() {
            if !taken.contains(&key) {
                left.set(key, &value).unwrap();
            }
        }
        other = left;
        prop_assert_eq!(
            one.clone().overlay(other.clone()),
            other.overlay(one)
        );
    }

    /// No keys make the fabric panic.
    #[test]
    fn any_keys_are_settings_or_an_error(keys in any_keys()) {
        let _ = keys.settings();
    }
}
