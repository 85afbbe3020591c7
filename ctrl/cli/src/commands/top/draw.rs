//! Draws an [`App`]: a line of views, a line of titles, rows, and a line of what the keys do.

use ratatui::Frame;
use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::{Color, Modifier, Style};

use super::app::{App, Mode};
use super::columns::{Fitted, clipped, fit, length};
use super::rows::{Column, Row, View};
use super::{details, help};
use api::{NodeState, Status};
use model::printable;

/// The smallest screen that has room for rows.
const SMALLEST: (u16, u16) = (40, 6);

/// Whether the screen has colours.
#[derive(Debug, Clone, Copy)]
pub(super) struct Palette {
    pub(super) colours: bool,
}

impl Palette {
    /// Colours, unless the user wants none (<https://no-color.org>).
    pub(super) fn of_environment() -> Self {
        let unwanted = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        Palette { colours: !unwanted }
    }

    fn coloured(self, colour: Color) -> Style {
        if self.colours {
            Style::new().fg(colour)
        } else {
            Style::new()
        }
    }

    fn bad(self) -> Style {
        self.coloured(Color::Red).add_modifier(Modifier::BOLD)
    }

    fn odd(self) -> Style {
        self.coloured(Color::Yellow)
    }

    fn good(self) -> Style {
        self.coloured(Color::Green)
    }

    fn title() -> Style {
        Style::new().add_modifier(Modifier::BOLD)
    }

    fn selected() -> Style {
        Style::new().add_modifier(Modifier::REVERSED)
    }
}

/// A screen, line by line.
struct Canvas<'f> {
    buffer: &'f mut Buffer,
    area: Rect,
}

impl Canvas<'_> {
    /// Writes a text at a column, up to the right edge. Returns the column after it.
    fn put(&mut self, x: usize, line: usize, text: &str, style: Style) -> usize {
        let width = usize::from(self.area.width);
        if x >= width || line >= usize::from(self.area.height) {
            return x;
        }
        let (left, top) = (self.area.x + x as u16, self.area.y + line as u16);
        let (end, _) = self.buffer.set_stringn(left, top, text, width - x, style);
        usize::from(end - self.area.x)
    }

    fn style_line(&mut self, line: usize, style: Style) {
        let top = self.area.y + line as u16;
        let whole = Rect::new(self.area.x, top, self.area.width, 1);
        self.buffer.set_style(whole, style);
    }
}

/// Draws everything.
pub(super) fn draw(frame: &mut Frame<'_>, app: &mut App, palette: Palette) {
    let area = frame.area();
    let mut canvas = Canvas {
        buffer: frame.buffer_mut(),
        area,
    };
    if area.width < SMALLEST.0 || area.height < SMALLEST.1 {
        canvas.put(0, 0, "make the window larger", Style::new());
        return;
    }
    let height = usize::from(area.height) - 4;
    app.height = height;
    draw_views(&mut canvas, app, palette);
    draw_headline(&mut canvas, app, palette);
    match app.mode {
        Mode::Help => draw_lines(&mut canvas, &help::LINES.map(String::from), 0, height + 1),
        Mode::Details(first) => draw_details(&mut canvas, app, first, height + 1),
        _ => draw_table(&mut canvas, app, palette, height),
    }
    draw_keys(&mut canvas, app, palette);
}

/// The first line: the views, and whether the fabric is ready.
fn draw_views(canvas: &mut Canvas<'_>, app: &App, palette: Palette) {
    let mut x = 0;
    for (number, view) in View::ALL.into_iter().enumerate() {
        let count = match view {
            View::Switches => {
                let nodes = &app.data.status.nodes;
                let running = nodes.iter().filter(|node| node.state == NodeState::Running);
                Some(format!("{}/{}", running.count(), nodes.len()))
            }
            View::Cables => Some(app.data.cables.len().to_string()),
            View::Places => app
                .data
                .places
                .as_ref()
                .map(|places| places.len().to_string()),
        };
        let count = count.unwrap_or_else(|| "-".into());
        let text = format!(" {} {} {count} ", number + 1, view.title());
        let style = if view == app.view {
            Palette::selected().add_modifier(Modifier::BOLD)
        } else {
            Style::new()
        };
        x = canvas.put(x, 0, &text, style) + 1;
    }
    let (word, style) = if app.data.status.ready {
        ("ready", palette.good())
    } else {
        ("NOT READY", palette.bad())
    };
    let right = usize::from(canvas.area.width).saturating_sub(length(word));
    if right > x {
        canvas.put(right, 0, word, style);
    }
}

/// The second line: filter and order, and the first problem.
fn draw_headline(canvas: &mut Canvas<'_>, app: &App, palette: Palette) {
    let list = app.list();
    let mut parts = Vec::new();
    if app.mode == Mode::Filter || !list.filter.is_empty() {
        let cursor = if app.mode == Mode::Filter { "█" } else { "" };
        parts.push(format!("filter: {}{cursor}", list.filter));
    }
    if let Some(column) = list.sort {
        let [title, _] = app.view.columns()[column].titles();
        parts.push(format!("by {title}"));
    }
    if list.reversed {
        parts.push("reversed".into());
    }
    if let Some(file) = &app.capturing {
        parts.push(format!("captures into {file}"));
    }
    let x = canvas.put(1, 1, &parts.join(" · "), Style::new());
    if let Some(problem) = problem(&app.data.status) {
        let x = if parts.is_empty() { 1 } else { x + 2 };
        let room = usize::from(canvas.area.width).saturating_sub(x);
        canvas.put(x, 1, &clipped(&problem, room), palette.bad());
    }
}

fn problem(status: &Status) -> Option<String> {
    let (first, others) = status.problems.split_first()?;
    let first = printable::head(first.as_bytes(), 300);
    Some(match others.len() {
        0 => format!("! {first}"),
        more => format!("! ({} problems) {first}", more + 1),
    })
}

fn draw_table(canvas: &mut Canvas<'_>, app: &mut App, palette: Palette, height: usize) {
    let width = usize::from(canvas.area.width);
    let mut list = std::mem::take(app.list_mut());
    let rows = app.rows();
    let columns = app.view.columns();
    let order = list.order(
        rows.len(),
        |row, filter| rows[row].contains(filter),
        |row, column| rows[row].value(columns[column]),
    );
    let place = list.place(&order, |row| rows[row].name());
    let first = list.scrolled(place, order.len(), height);
    let wanted: Vec<_> = columns.iter().map(|column| column.wanted(&rows)).collect();
    let fitted = fit(&wanted, width);
    for column in &fitted {
        let (x, title) = (aligned(column, column.title), column.title);
        canvas.put(x, 2, title, Palette::title());
    }
    for (line, row) in order.iter().skip(first).take(height).enumerate() {
        let row = &rows[*row];
        let line = line + 3;
        for column in &fitted {
            let cell = row.cell(column.column, column.width, app.data.now);
            canvas.put(
                aligned(column, &cell),
                line,
                &cell,
                style(row, column.column, palette),
            );
        }
        if line - 3 + first == place {
            canvas.style_line(line, Palette::selected());
        }
    }
    if order.is_empty() {
        canvas.put(1, 4, nothing(app.view, rows.is_empty(), app), Style::new());
    }
    *app.list_mut() = list;
}

fn aligned(column: &Fitted<Column>, text: &str) -> usize {
    if column.right {
        column.x + column.width.saturating_sub(length(text))
    } else {
        column.x
    }
}

fn nothing(view: View, no_rows: bool, app: &App) -> &'static str {
    match view {
        _ if !no_rows => "nothing matches the filter: Esc takes it away",
        View::Switches => "no switches: this fabric was started without them",
        View::Cables => "no cables",
        View::Places if app.data.places.is_none() => "this fabric has no places to plug in at",
        View::Places => "nobody is plugged in: `ikv-fabric vm-args rack1:u3` shows how",
    }
}

fn style(row: &Row<'_>, column: Column, palette: Palette) -> Style {
    match column {
        Column::SwitchState | Column::CableState => match row.state() {
            "up" | "running" => palette.good(),
            "down" | "closed" | "failed" => palette.bad(),
            _ => palette.odd(),
        },
        Column::Sessions => match row {
            Row::Switch(node) if node.bgp.established < node.bgp.expected => palette.bad(),
            _ => Style::new(),
        },
        Column::Drops => match row {
            Row::Cable(_, Some(rates)) if rates.drops >= 0.5 => palette.bad(),
            _ => Style::new(),
        },
        Column::Impairment | Column::Note => palette.odd(),
        _ => Style::new(),
    }
}

fn draw_details(canvas: &mut Canvas<'_>, app: &mut App, first: usize, height: usize) {
    let width = usize::from(canvas.area.width) - 2;
    let selected = app.selected();
    let rows = app.rows();
    let row = rows
        .iter()
        .find(|row| Some(row.name()) == selected.as_deref());
    let lines = row.map_or(vec!["it has gone".into()], |row| details::lines(row, width));
    let first = first.min(lines.len().saturating_sub(height));
    draw_lines(canvas, &lines, first, height);
    app.mode = Mode::Details(first);
}

fn draw_lines(canvas: &mut Canvas<'_>, lines: &[String], first: usize, height: usize) {
    for (line, text) in lines.iter().skip(first).take(height).enumerate() {
        canvas.put(1, line + 2, text, Style::new());
    }
}

/// The last line: what happened, a line that is being typed, or what the keys do.
fn draw_keys(canvas: &mut Canvas<'_>, app: &App, palette: Palette) {
    let last = usize::from(canvas.area.height) - 1;
    let width = usize::from(canvas.area.width);
    if !app.message.is_empty() {
        let message = printable::head(app.message.as_bytes(), 500);
        canvas.put(0, last, &clipped(&message, width), palette.odd());
        return;
    }
    if let Mode::Impair { cable, line } = &app.mode {
        let before = format!("impair {cable}: ");
        // The end of the line is where the person types.
        let room = width.saturating_sub(length(&before) + 1);
        let hidden = length(line).saturating_sub(room);
        let shown: String = line.chars().skip(hidden).collect();
        canvas.put(0, last, &format!("{before}{shown}█"), Style::new());
        return;
    }
    let keys = help::keys(app, width);
    canvas.put(0, last, &keys, Style::new().add_modifier(Modifier::DIM));
}
