use std::collections::{BTreeMap, BTreeSet};

use super::*;
use crate::{AccuracyReport, DelayReport, LaneReport, LossReport, NodeStatus};
use model::cable_change::CableState;
use model::impairment::ImpairKeys;

/// The samples of a page by name and labels, as they are written. It checks what OpenMetrics 1.0 demands of a
/// text: its end, that each family stands in one piece below its type, the suffixes of names, and that no
/// series comes twice.
fn parse(page: &str) -> BTreeMap<String, f64> {
    let body = page.strip_suffix("# EOF\n").expect("an end");
    let mut families = BTreeSet::new();
    let (mut family, mut kind) = ("", "");
    let mut samples = BTreeMap::new();
    for line in body.lines() {
        if let Some(described) = line.strip_prefix("# HELP ") {
            let (name, help) = described.split_once(' ').expect("a help");
            assert!(!help.is_empty() && families.insert(name), "{line}");
            (family, kind) = (name, "");
        } else if let Some(typed) = line.strip_prefix("# TYPE ") {
            let (name, of) = typed.split_once(' ').expect("a type");
            assert_eq!(name, family);
            kind = of;
        } else {
            let (series, value) = line.rsplit_once(' ').expect("a value");
            let (name, labels) = series.split_once('{').unwrap_or((series, "}"));
            let suffix = match kind {
                "counter" => "_total",
                "gauge" => "",
                "info" => "_info",
                other => panic!("{other}: {line}"),
            };
            assert_eq!(name.strip_suffix(suffix), Some(family), "{line}");
            check_labels(labels.strip_suffix('}').expect("a brace"), line);
            let value: f64 = value.parse().expect("a number");
            assert!(value.is_finite() && value >= 0.0, "{line}");
            let twice = samples.insert(series.to_owned(), value);
            assert_eq!(twice, None, "{line}");
        }
    }
    samples
}

/// `name="value",…`, where quotes, backslashes and line ends are escaped.
fn check_labels(labels: &str, line: &str) {
    let mut rest = labels;
    while !rest.is_empty() {
        let (name, value) = rest.split_once("=\"").expect(line);
        assert!(
            name.chars().all(|c| c.is_ascii_lowercase() || c == '_'),
            "{line}"
        );
        let mut escaped = false;
        let end = value.find(|c| {
            let ends = c == '"' && !escaped;
            escaped = c == '\\' && !escaped;
            ends
        });
        let after = &value[end.expect(line) + 1..];
        rest = after.strip_prefix(',').unwrap_or(after);
        assert!(after.is_empty() || after.len() > rest.len(), "{line}");
    }
}

fn lane(from: &str, to: &str) -> LaneReport {
    LaneReport {
        from: from.into(),
        to: to.into(),
        frames_in: 1_000_001,
        bytes_in: u64::from(u32::MAX) * 3,
        frames_out: 999_990,
        held: 4,
        ..LaneReport::default()
    }
}

fn cable(name: &str) -> CableReport {
    let [a, b] = [format!("{name}-a"), format!("{name}-b")];
    CableReport {
        name: name.into(),
        state: CableState::Up,
        closed: None,
        lanes: [lane(&a, &b), lane(&b, &a)],
    }
}

fn keys(pairs: &[(&str, &str)]) -> ImpairKeys {
    let mut keys = ImpairKeys::default();
    for (key, value) in pairs {
        assert!(keys.set(key, value).unwrap(), "{key}");
    }
    keys
}

/// A cable with everything that a lane can have.
fn impaired(name: &str) -> CableReport {
    let mut cable = cable(name);
    cable.state = CableState::Blackhole;
    let lane = &mut cable.lanes[0];
    lane.drops = [("loss".to_owned(), 6), ("unplugged".to_owned(), 1)].into();
    (lane.duplicated, lane.delayed, lane.throttled) = (1, 999_994, 3);
    lane.impairment = Some(keys(&[
        ("delay", "10ms"),
        ("jitter", "250us"),
        ("rate", "1gbit"),
        ("loss", "0.5%"),
        ("duplicate", "1%"),
        ("corrupt", "2%"),
        ("reorder", "25%"),
    ]));
    lane.accuracy = Some(AccuracyReport {
        frames: 10,
        delay: Some(DelayReport {
            requested_us: 10_000.0,
            released: 9,
            late_p50_us: 3.5,
            late_p99_us: 80.0,
            late_max_us: 120.0,
            late_frames: 1,
        }),
        rate: Some(crate::RateReport {
            requested_bps: 1_000_000_000,
            achieved_bps: Some(998_000_000.5),
            busy_s: 1.0,
        }),
        loss: Some(LossReport {
            requested: 0.005,
            achieved: 0.0049,
            low: 0.004,
            high: 0.006,
            lost: 6,
        }),
        trusted: true,
        note: String::new(),
    });
    cable
}

fn figures(cables: Vec<CableReport>) -> Figures {
    let node = NodeStatus {
        name: "leaf1".into(),
        since_ns: None,
        role: "leaf".into(),
        state: NodeState::Running,
        bgp: Sessions {
            established: 1,
            expected: 2,
        },
        note: String::new(),
    };
    Figures {
        status: Status {
            ready: true,
            problems: Vec::new(),
            host: Vec::new(),
            nodes: vec![node],
            cables: cables.len(),
            workers: 2,
            hold_memory: 1 << 32,
            hold_memory_taken: 2 << 20,
            applying: None,
        },
        cables,
        busy: vec![Duration::from_millis(1500), Duration::ZERO],
    }
}

#[test]
fn a_page_has_every_figure() {
    let page = encode(figures(vec![impaired("iksb12"), cable("ikhb")])).unwrap();
    let samples = parse(&page);
    let version = format!(
        "ikv_build_info{{version=\"{}\"}} 1",
        env!("CARGO_PKG_VERSION")
    );
    assert!(page.contains(&version), "{page}");
    let page = page.replace(env!("CARGO_PKG_VERSION"), "VERSION");
    insta::assert_snapshot!(page);
    // Each name of the list is there, and no other.
    let found: BTreeSet<_> = samples
        .keys()
        .map(|series| series.split('{').next().unwrap_or_default().to_owned())
        .collect();
    assert_eq!(found, metric_names().into_iter().collect());
}

#[test]
fn a_name_cannot_end_its_label() {
    let odd = "a\"} 1\nikv_ready 0 # \\";
    let page = encode(figures(vec![cable(odd)])).unwrap();
    let samples = parse(&page);
    assert!(samples["ikv_ready"] > 0.0);
    let written = r#"ikv_cable_up{cable="a\"} 1\nikv_ready 0 # \\"}"#;
    assert!(samples[written] > 0.0, "{page}");
}

/// The default fabric, with a reason of drops on each lane.
#[test]
fn the_page_of_141_cables_is_small_and_quickly_made() {
    let cables = (0..141).map(|number| {
        let mut cable = cable(&format!("ikeb{number}-23"));
        for lane in &mut cable.lanes {
            lane.drops = [("unplugged".to_owned(), 1 << 40)].into();
        }
        cable
    });
    let figures = figures(cables.collect());
    let began = std::time::Instant::now();
    let page = encode(figures).unwrap();
    let took = began.elapsed();
    parse(&page);
    assert!(page.len() < 200_000, "{} bytes", page.len());
    // Without optimisation, on a machine that does other things; tests/events.rs measures it.
    assert!(took < Duration::from_millis(500), "{took:?}");
}

/// The names that the expressions of a dashboard use.
fn queried(dashboard: &serde_json::Value, names: &mut BTreeSet<String>) {
    match dashboard {
        serde_json::Value::Object(object) => {
            for (key, value) in object {
                match value.as_str() {
                    Some(text) if matches!(&**key, "expr" | "query" | "definition") => {
                        let word = |c: char| !(c.is_ascii_alphanumeric() || c == '_');
                        let words = text.split(word);
                        names.extend(words.filter(|it| it.starts_with("ikv_")).map(Into::into));
                    }
                    _ => queried(value, names),
                }
            }
        }
        serde_json::Value::Array(array) => array.iter().for_each(|it| queried(it, names)),
        _ => {}
    }
}

#[test]
fn the_dashboard_queries_only_metrics_that_exist() {
    let dashboard = include_str!("../../../../packaging/grafana-dashboard.json");
    let dashboard = serde_json::from_str(dashboard).unwrap();
    let mut names = BTreeSet::new();
    queried(&dashboard, &mut names);
    assert!(names.len() > 8, "{names:?}");
    let known: BTreeSet<_> = metric_names().into_iter().collect();
    let unknown: Vec<_> = names.difference(&known).collect();
    assert_eq!(unknown, Vec::<&String>::new());
}
