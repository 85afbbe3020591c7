//! What `top` shows and what a key does to it: [`App`]. It neither draws nor asks the fabric.

use std::time::Duration;

use crossterm::event::{KeyCode, KeyEvent, KeyModifiers};

use super::list::{List, Move};
use super::prompt;
use super::rates::{CableRates, rates};
use super::rows::{Row, View};
use api::{CableReport, PluggedGuest, Position, Status};
use model::cable_change::{CableState, ImpairmentChange};

/// The most characters that a person may type into a line.
const LONGEST_LINE: usize = 300;

/// What the fabric last said.
#[derive(Debug)]
pub(super) struct Data {
    pub(super) status: Status,
    pub(super) cables: Vec<CableReport>,
    /// Of each of these cables, once there are two reports.
    pub(super) rates: Vec<Option<CableRates>>,
    /// Only those where somebody is; `None` if the fabric has no places.
    pub(super) places: Option<Vec<Position>>,
    /// When it was said, in ns since 1970.
    pub(super) now: u64,
}

/// What the keys mean at the moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Mode {
    Browse,
    /// What is typed is the filter.
    Filter,
    /// What is typed is an impairment of this cable.
    Impair {
        cable: String,
        line: String,
    },
    /// The details of the selected row, from this line on.
    Details(usize),
    Help,
}

/// What the fabric, or the program, is to do after a key.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Effect {
    Leave,
    SetState(String, CableState),
    Impair(String, Box<ImpairmentChange>),
    StartCapture(String),
    StopCapture,
    /// The view has changed, and may need what was not asked for.
    Ask,
}

/// Everything on the screen.
#[derive(Debug)]
pub(super) struct App {
    pub(super) data: Data,
    pub(super) view: View,
    lists: [List; 3],
    pub(super) mode: Mode,
    /// What happened last; a key takes it away.
    pub(super) message: String,
    /// The file into which a cable is captured.
    pub(super) capturing: Option<String>,
    /// Rows that the screen has room for, as last drawn.
    pub(super) height: usize,
}

impl App {
    pub(super) fn new(data: Data) -> Self {
        let view = if data.status.nodes.is_empty() {
            View::Cables
        } else {
            View::Switches
        };
        App {
            data,
            view,
            lists: Default::default(),
            mode: Mode::Browse,
            message: String::new(),
            capturing: None,
            height: 1,
        }
    }

    /// Takes in what the fabric has said `time` after what is shown. Places that were not asked for stay.
    pub(super) fn learn(&mut self, mut new: Data, time: Duration) {
        new.rates = rates(&self.data.cables, &new.cables, time);
        let known = self.data.places.take();
        new.places = match (new.places, known) {
            (Some(now), Some(before)) => Some(with_guests(now, before)),
            (now, before) => now.or(before),
        };
        self.data = new;
    }

    /// Takes in what leaves have learned of those who are plugged in.
    pub(super) fn learn_guests(&mut self, places: Vec<Position>) {
        self.data.places = Some(places);
    }

    pub(super) fn list(&self) -> &List {
        &self.lists[self.view as usize]
    }

    pub(super) fn list_mut(&mut self) -> &mut List {
        &mut self.lists[self.view as usize]
    }

    /// All rows of the view.
    pub(super) fn rows(&self) -> Vec<Row<'_>> {
        let data = &self.data;
        match self.view {
            View::Switches => data.status.nodes.iter().map(Row::Switch).collect(),
            View::Cables => {
                let rates = data.rates.iter().map(Option::as_ref);
                let rates = rates.chain(std::iter::repeat(None));
                let rows = data.cables.iter().zip(rates);
                rows.map(|(cable, rates)| Row::Cable(cable, rates))
                    .collect()
            }
            View::Places => data.places.iter().flatten().map(Row::Place).collect(),
        }
    }

    /// The rows to show, by their numbers among all.
    pub(super) fn order(&self, rows: &[Row<'_>]) -> Vec<usize> {
        let columns = self.view.columns();
        self.list().order(
            rows.len(),
            |row, filter| rows[row].contains(filter),
            |row, column| rows[row].value(columns[column]),
        )
    }

    /// The name of the selected row.
    pub(super) fn selected(&self) -> Option<String> {
        let rows = self.rows();
        let order = self.order(&rows);
        let place = self.list().place(&order, |row| rows[row].name());
        order.get(place).map(|row| rows[*row].name().to_owned())
    }

    /// What a key does.
    pub(super) fn press(&mut self, key: KeyEvent) -> Option<Effect> {
        self.message.clear();
        if key.modifiers.contains(KeyModifiers::CONTROL) {
            return (key.code == KeyCode::Char('c')).then_some(Effect::Leave);
        }
        match self.mode.clone() {
            Mode::Browse => self.browse(key.code),
            Mode::Filter => {
                self.type_filter(key.code);
                None
            }
            Mode::Impair { cable, line } => self.type_impairment(key.code, cable, line),
            Mode::Details(first) => self.read(key.code, first),
            Mode::Help => {
                self.mode = Mode::Browse;
                (key.code == KeyCode::Char('q')).then_some(Effect::Leave)
            }
        }
    }

    fn browse(&mut self, key: KeyCode) -> Option<Effect> {
        match key {
            KeyCode::Char('q') => return Some(Effect::Leave),
            KeyCode::Tab => return Some(self.turn_to((self.view as usize + 1) % 3)),
            KeyCode::BackTab => return Some(self.turn_to((self.view as usize + 2) % 3)),
            KeyCode::Char(digit @ '1'..='3') => {
                return Some(self.turn_to(digit as usize - '1' as usize));
            }
            KeyCode::Up => self.go(Move::By(-1)),
            KeyCode::Down => self.go(Move::By(1)),
            KeyCode::PageUp => self.go(Move::Pages(-1)),
            KeyCode::PageDown => self.go(Move::Pages(1)),
            KeyCode::Home => self.go(Move::First),
            KeyCode::End => self.go(Move::Last),
            KeyCode::Char('s') => {
                let columns = self.view.columns().len();
                self.list_mut().sort_by_next(columns);
            }
            KeyCode::Char('r') => self.list_mut().reversed = !self.list().reversed,
            KeyCode::Char('/') => self.mode = Mode::Filter,
            KeyCode::Esc => self.list_mut().filter.clear(),
            KeyCode::Char('?') => self.mode = Mode::Help,
            KeyCode::Enter if self.selected().is_some() => self.mode = Mode::Details(0),
            KeyCode::Char('p') if self.capturing.is_some() => return Some(Effect::StopCapture),
            KeyCode::Char(key @ ('c' | 'u' | 'i' | 'x' | 'p')) => return self.change(key),
            _ => {}
        }
        None
    }

    /// Asks for a change of the selected cable.
    fn change(&mut self, key: char) -> Option<Effect> {
        let Some(cable) = self.selected().filter(|_| self.view != View::Switches) else {
            "choose a cable first: 2 shows them".clone_into(&mut self.message);
            return None;
        };
        match key {
            'c' => Some(Effect::SetState(cable, CableState::Down)),
            'u' => Some(Effect::SetState(cable, CableState::Up)),
            'p' => Some(Effect::StartCapture(cable)),
            'x' => {
                let clear = ImpairmentChange {
                    clear: true,
                    ..ImpairmentChange::default()
                };
                Some(Effect::Impair(cable, Box::new(clear)))
            }
            _ => {
                let line = String::new();
                self.mode = Mode::Impair { cable, line };
                None
            }
        }
    }

    /// Shows the view with this index, which needs other figures.
    fn turn_to(&mut self, view: usize) -> Effect {
        self.view = View::ALL[view];
        Effect::Ask
    }

    fn go(&mut self, to: Move) {
        let mut list = std::mem::take(self.list_mut());
        // The list was taken out, so that it can change while rows are looked at.
        let rows = self.rows();
        let columns = self.view.columns();
        let order = list.order(
            rows.len(),
            |row, filter| rows[row].contains(filter),
            |row, column| rows[row].value(columns[column]),
        );
        list.go(to, &order, |row| rows[row].name(), self.height);
        *self.list_mut() = list;
    }

    fn type_filter(&mut self, key: KeyCode) {
        match key {
            KeyCode::Enter => self.mode = Mode::Browse,
            KeyCode::Esc => {
                self.list_mut().filter.clear();
                self.mode = Mode::Browse;
            }
            key => edit(&mut self.list_mut().filter, key),
        }
    }

    fn type_impairment(&mut self, key: KeyCode, cable: String, mut line: String) -> Option<Effect> {
        match key {
            KeyCode::Esc => {
                self.mode = Mode::Browse;
                None
            }
            KeyCode::Enter => match prompt::change(&line) {
                Ok(change) => {
                    self.mode = Mode::Browse;
                    Some(Effect::Impair(cable, Box::new(change)))
                }
                Err(error) => {
                    self.message = error;
                    None
                }
            },
            key => {
                edit(&mut line, key);
                self.mode = Mode::Impair { cable, line };
                None
            }
        }
    }

    fn read(&mut self, key: KeyCode, first: usize) -> Option<Effect> {
        let page = self.height.max(1);
        self.mode = match key {
            KeyCode::Char('q') => return Some(Effect::Leave),
            KeyCode::Up => Mode::Details(first.saturating_sub(1)),
            KeyCode::Down => Mode::Details(first + 1),
            KeyCode::PageUp => Mode::Details(first.saturating_sub(page)),
            KeyCode::PageDown => Mode::Details(first + page),
            KeyCode::Home => Mode::Details(0),
            KeyCode::Esc | KeyCode::Enter => Mode::Browse,
            _ => Mode::Details(first),
        };
        None
    }
}

fn edit(line: &mut String, key: KeyCode) {
    match key {
        KeyCode::Backspace => _ = line.pop(),
        KeyCode::Char(c) if !c.is_control() && line.chars().count() < LONGEST_LINE => line.push(c),
        _ => {}
    }
}

/// Places with what was learned earlier of those who are still there.
fn with_guests(mut now: Vec<Position>, mut before: Vec<Position>) -> Vec<Position> {
    let mut guest_of = |place: &Position| -> Option<PluggedGuest> {
        let same = |it: &&mut Position| it.name == place.name && it.since_ns == place.since_ns;
        before.iter_mut().find(same)?.guest.take()
    };
    for place in &mut now {
        if place.guest.is_none() {
            place.guest = guest_of(place);
        }
    }
    now
}
