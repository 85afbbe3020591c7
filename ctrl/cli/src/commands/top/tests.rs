//! What `top` shows, as pictures, and what its keys do.

use std::time::Duration;

use crossterm::event::{KeyCode, KeyEvent, KeyModifiers};
use ratatui::Terminal;
use ratatui::backend::TestBackend;
use ratatui::buffer::Cell;
use ratatui::style::Color;

use super::app::{App, Data, Effect, Mode};
use super::draw::{Palette, draw};
use super::rows::View;
use crate::commands::places::tests::{plugged, talkative};
use api::{CableReport, LaneReport, NodeState, NodeStatus, Sessions, Status};
use model::cable_change::CableState;
use model::impairment::ImpairKeys;
use model::plugging::PlugKind;

const BEGAN: u64 = 1_796_070_907_000_000_000;

/// A cable that nothing has passed.
pub(super) fn cable(name: &str) -> CableReport {
    let lane = |from: &str, to: &str| LaneReport {
        from: from.into(),
        to: to.into(),
        ..LaneReport::default()
    };
    CableReport {
        name: name.into(),
        state: CableState::Up,
        closed: None,
        lanes: [lane("ikst12", "iklt11"), lane("iklt11", "ikst12")],
    }
}

/// The cables of a datacenter, after so many seconds of traffic.
fn cables(count: usize, seconds: u64) -> Vec<CableReport> {
    let cable = |number: usize| {
        let (leaf, u) = (number / 24 + 1, number % 24 + 3);
        let (near, far) = (
            format!("ikls{leaf}-{u}"),
            format!("ikvm{}-{u}-{}", leaf.div_ceil(2), 2 - leaf % 2),
        );
        let lane = |from: &str, to: &str, frames: u64| LaneReport {
            from: from.into(),
            to: to.into(),
            frames_in: frames,
            bytes_in: frames * 1500,
            frames_out: frames,
            ..LaneReport::default()
        };
        let pace = (number as u64 * 7919) % 100_000;
        CableReport {
            name: format!("ikeb{leaf}-{u}"),
            state: CableState::Up,
            closed: None,
            lanes: [
                lane(&near, &far, pace * seconds),
                lane(&far, &near, 10 * seconds),
            ],
        }
    };
    let mut cables: Vec<_> = (0..count).map(cable).collect();
    let mut keys = ImpairKeys::default();
    for (key, value) in [("delay", "5ms"), ("loss", "1%")] {
        keys.set(key, value).unwrap();
    }
    cables[2].lanes[0].impairment = Some(keys.clone());
    cables[3].lanes = cables[3].lanes.clone().map(|lane| LaneReport {
        impairment: Some(keys.clone()),
        drops: [
            ("loss".to_owned(), 12 * seconds),
            ("unplugged".to_owned(), 900 * seconds),
        ]
        .into(),
        ..lane
    });
    cables[4].state = CableState::Down;
    cables
}

fn node(name: &str, role: &str, established: usize, note: &str) -> NodeStatus {
    NodeStatus {
        name: name.into(),
        role: role.into(),
        state: if note.is_empty() {
            NodeState::Running
        } else {
            NodeState::Restarting
        },
        since_ns: Some(BEGAN - 3_600_000_000_000),
        bgp: Sessions {
            established,
            expected: 7,
        },
        note: note.into(),
    }
}

fn status() -> Status {
    Status {
        ready: false,
        problems: vec!["worker 0 makes no progress: restart the fabric and report this".into()],
        host: Vec::new(),
        nodes: vec![
            node("internet", "internet", 7, ""),
            node("spine1", "spine", 7, ""),
            node(
                "leaf1",
                "leaf",
                3,
                "QEMU was killed by signal 9; started again in 4 s, with the same disk",
            ),
            node("leaf10", "leaf", 7, ""),
        ],
        cables: 700,
        workers: 2,
        hold_memory: 1 << 30,
        hold_memory_taken: 0,
        applying: None,
    }
}

fn data(count: usize, seconds: u64) -> Data {
    Data {
        status: status(),
        cables: cables(count, seconds),
        rates: Vec::new(),
        places: Some(vec![talkative(), plugged(2, 14, PlugKind::Tap)]),
        now: BEGAN + 60_000_000_000,
    }
}

/// An app that has seen a second of traffic.
fn app(count: usize) -> App {
    let mut app = App::new(data(count, 1));
    app.learn(data(count, 2), Duration::from_secs(1));
    app
}

fn key(app: &mut App, code: KeyCode) -> Option<Effect> {
    app.press(KeyEvent::new(code, KeyModifiers::NONE))
}

fn typed(app: &mut App, text: &str) -> Option<Effect> {
    let mut effect = None;
    for c in text.chars() {
        effect = key(app, KeyCode::Char(c));
    }
    effect
}

fn shown(app: &mut App, size: (u16, u16)) -> TestBackend {
    let mut terminal = Terminal::new(TestBackend::new(size.0, size.1)).unwrap();
    terminal
        .draw(|frame| draw(frame, app, Palette { colours: true }))
        .unwrap();
    terminal.backend().clone()
}

const SMALL: (u16, u16) = (80, 24);
const LARGE: (u16, u16) = (200, 60);

#[test]
fn switches() {
    insta::assert_snapshot!("switches_80x24", shown(&mut app(141), SMALL));
    insta::assert_snapshot!("switches_200x60", shown(&mut app(141), LARGE));
}

#[test]
fn seven_hundred_cables() {
    let mut app = app(700);
    app.view = View::Cables;
    insta::assert_snapshot!("cables_80x24", shown(&mut app, SMALL));
    insta::assert_snapshot!("cables_200x60", shown(&mut app, LARGE));
    key(&mut app, KeyCode::End);
    typed(&mut app, "sssssr");
    insta::assert_snapshot!("cables_sorted_80x24", shown(&mut app, SMALL));
}

#[test]
fn places() {
    let mut app = app(141);
    app.view = View::Places;
    insta::assert_snapshot!("places_80x24", shown(&mut app, SMALL));
    insta::assert_snapshot!("places_200x60", shown(&mut app, LARGE));
    app.data.places = Some(Vec::new());
    let nobody = shown(&mut app, SMALL).to_string();
    assert!(nobody.contains("nobody is plugged in"), "{nobody}");
}

#[test]
fn details_help_and_lines() {
    let mut app = app(141);
    app.view = View::Cables;
    for _ in 0..3 {
        key(&mut app, KeyCode::Down);
    }
    key(&mut app, KeyCode::Enter);
    insta::assert_snapshot!("details_80x24", shown(&mut app, SMALL));
    key(&mut app, KeyCode::Esc);
    key(&mut app, KeyCode::Char('?'));
    insta::assert_snapshot!("help_80x24", shown(&mut app, SMALL));
    key(&mut app, KeyCode::Esc);
    typed(&mut app, "/ikeb1-1");
    let filtered = shown(&mut app, SMALL).to_string();
    assert!(filtered.contains("filter: ikeb1-1█"), "{filtered}");
    assert!(!filtered.contains("ikeb2-3"), "{filtered}");
    key(&mut app, KeyCode::Enter);
    typed(&mut app, "idelay 5ms");
    let prompt = shown(&mut app, SMALL).to_string();
    assert!(prompt.contains("impair ikeb1-10: delay 5ms█"), "{prompt}");
}

#[test]
fn every_size_of_terminal_is_drawn() {
    let mut app = app(700);
    for view in View::ALL {
        app.view = view;
        for mode in [Mode::Browse, Mode::Filter, Mode::Details(0), Mode::Help] {
            app.mode = mode;
            for size in [
                (1, 1),
                (39, 24),
                (40, 6),
                (41, 7),
                (80, 24),
                (133, 50),
                (300, 100),
            ] {
                shown(&mut app, size);
            }
        }
    }
}

#[test]
fn no_word_is_broken_where_the_columns_fit() {
    let mut app = app(700);
    app.view = View::Cables;
    let picture = shown(&mut app, SMALL).to_string();
    assert!(!picture.contains('…'), "{picture}");
}

#[test]
fn without_colours_there_are_none() {
    let mut terminal = Terminal::new(TestBackend::new(80, 24)).unwrap();
    for view in View::ALL {
        let mut app = app(141);
        app.view = view;
        terminal
            .draw(|frame| draw(frame, &mut app, Palette { colours: false }))
            .unwrap();
        let cells = &terminal.backend().buffer().content;
        assert!(
            cells
                .iter()
                .all(|cell| cell.fg == Color::Reset && cell.bg == Color::Reset)
        );
    }
}

#[test]
fn a_hostile_name_never_reaches_the_screen_raw() {
    let mut app = app(141);
    app.view = View::Places;
    for code in [KeyCode::Null, KeyCode::Enter] {
        key(&mut app, code);
        let buffer = shown(&mut app, LARGE).buffer().clone();
        let symbols: String = buffer.content.iter().map(Cell::symbol).collect();
        assert!(symbols.contains("web1\\u{1b}[2J"), "{symbols}");
        let raw = |c: char| c.is_control() || c == '\u{202e}';
        assert!(!symbols.contains(raw), "{symbols:?}");
    }
}

#[test]
fn keys_ask_for_changes_of_the_selected_cable() {
    let mut app = app(141);
    assert_eq!(typed(&mut app, "c"), None);
    assert!(
        app.message.contains("choose a cable"),
        "a switch is selected"
    );
    assert_eq!(typed(&mut app, "2"), Some(Effect::Ask));
    key(&mut app, KeyCode::Down);
    let cable = || "ikeb1-4".to_owned();
    let state = |state| Some(Effect::SetState(cable(), state));
    assert_eq!(typed(&mut app, "c"), state(CableState::Down));
    assert_eq!(typed(&mut app, "u"), state(CableState::Up));
    let Some(Effect::Impair(of, change)) = typed(&mut app, "x") else {
        panic!("x clears");
    };
    assert_eq!((of, change.clear), (cable(), true));
    typed(&mut app, "inonsense");
    assert_eq!(key(&mut app, KeyCode::Enter), None);
    assert!(app.message.contains("is not a key"), "{}", app.message);
    for _ in 0.."nonsense".len() {
        key(&mut app, KeyCode::Backspace);
    }
    typed(&mut app, "loss 1%");
    let Some(Effect::Impair(of, change)) = key(&mut app, KeyCode::Enter) else {
        panic!("Enter impairs");
    };
    assert_eq!((of, &*change.set.words()), (cable(), "loss 1%"));
    assert_eq!(app.mode, Mode::Browse);
    assert_eq!(typed(&mut app, "p"), Some(Effect::StartCapture(cable())));
    app.capturing = Some("file".into());
    assert_eq!(typed(&mut app, "p"), Some(Effect::StopCapture));
}

#[test]
fn every_mode_is_left_by_ctrl_c_and_letters_are_text_where_one_types() {
    for open in ["", "/", "2i", "?"] {
        let mut app = app(141);
        typed(&mut app, open);
        let ctrl_c = KeyEvent::new(KeyCode::Char('c'), KeyModifiers::CONTROL);
        assert_eq!(app.press(ctrl_c), Some(Effect::Leave), "{open}");
    }
    for open in ["/", "2i"] {
        let mut app = app(141);
        typed(&mut app, open);
        assert_eq!(typed(&mut app, "q"), None, "{open}");
        typed(&mut app, &"a".repeat(5000));
        let length = match &app.mode {
            Mode::Impair { line, .. } => line.len(),
            _ => app.list().filter.len(),
        };
        assert_eq!(length, 300);
    }
    assert_eq!(typed(&mut app(141), "q"), Some(Effect::Leave));
}

#[test]
fn what_was_learned_stays_as_long_as_the_same_guest_is_there() {
    let mut app = app(141);
    let later = |place| Data {
        places: Some(vec![place]),
        ..data(141, 3)
    };
    let same = api::Position {
        guest: None,
        ..talkative()
    };
    app.learn(later(same.clone()), Duration::from_secs(1));
    assert_eq!(app.data.places, Some(vec![talkative()]));
    let another = api::Position {
        since_ns: Some(BEGAN + 5),
        ..same
    };
    app.learn(later(another.clone()), Duration::from_secs(1));
    assert_eq!(app.data.places, Some(vec![another]));
}
