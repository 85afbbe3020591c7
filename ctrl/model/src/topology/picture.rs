//! A drawing of the datacenter for a terminal, at most as wide as that, from 80 columns on, if names
//! are as long as ikvswitch's.

use std::fmt::Write;

use super::{Cable, End, EndOwner, FIRST_U, Role, Switch, Topology};

/// Columns between two boxes or table columns.
const GAP: usize = 2;

impl Topology {
    /// The drawing and its tables, for a terminal of `width` columns: the nodes, their connections,
    /// names and addresses. Each line ends in a newline.
    pub fn text(&self, width: usize) -> String {
        let sections = [
            self.title(),
            self.picture(width),
            self.switch_cables(width),
            self.server_cables(width),
            self.subnets(width),
        ];
        sections.join("\n")
    }

    fn title(&self) -> String {
        let of = |role| {
            self.switches
                .iter()
                .filter(|switch| switch.role == role)
                .count()
        };
        let servers = self
            .cables
            .iter()
            .filter(|cable| leads_to_server(cable))
            .count();
        format!(
            "{}, {}, {}, {}: {}, {} ends\n",
            counted(self.racks.len(), "rack", "racks"),
            counted(of(Role::Spine), "spine", "spines"),
            counted(of(Role::Leaf), "leaf", "leaves"),
            counted(servers, "server port", "server ports"),
            counted(self.cables.len(), "cable", "cables"),
            2 * self.cables.len(),
        )
    }

    fn picture(&self, width: usize) -> String {
        let host = &self.host;
        let host_box = Box {
            cable: None,
            title: "host".into(),
            lines: vec![
                format!("{}  {}", host.name, host.address),
                format!("{} via {}", host.range, host.peer),
                format!("SNAT  {}", host.snat),
            ],
        };
        let mut text = grid(&[host_box], width);
        for role in [Role::Internet, Role::Spine] {
            let switches = self.switches.iter().filter(|switch| switch.role == role);
            text += &grid(&switches.map(switch_box).collect::<Vec<_>>(), width);
        }
        text += "  │ every spine to every leaf\n";
        let racks: Vec<_> = (0..self.racks.len())
            .map(|index| self.rack_box(index))
            .collect();
        text += &grid(&racks, width);
        text
    }

    fn rack_box(&self, index: usize) -> Box {
        let rack = &self.racks[index];
        let [odd, even] = rack.leaves.map(|leaf| &self.switches[leaf]);
        let both = |of: fn(&Switch) -> String| format!("{:<15}{}", of(odd), of(even));
        let mut lines = vec![
            both(|leaf| leaf.name.clone()),
            both(|leaf| format!("AS {}", leaf.asn)),
            both(|leaf| leaf.loopback.to_string()),
        ];
        let served = self.net.dhcp.iter().filter(|net| net.rack == rack.number);
        lines.extend(served.map(|net| format!("DHCP  {}", net.subnet)));
        let servers = self.cables.iter().filter_map(|cable| match cable.b.owner {
            EndOwner::Server {
                rack: number,
                u: FIRST_U,
                nic,
            } if number == rack.number => Some(with_u(&cable.b.tap, FIRST_U, &format!("-{nic}"))),
            _ => None,
        });
        lines.push(servers.collect::<Vec<_>>().join("  "));
        Box {
            cable: None,
            title: format!("rack {}", rack.number),
            lines,
        }
    }

    fn switch_cables(&self, width: usize) -> String {
        let mut rows = vec![
            [
                "CABLE",
                "END",
                "ALIAS",
                "NIC",
                "LINK-LOCAL",
                "END",
                "ALIAS",
                "NIC",
                "LINK-LOCAL",
            ]
            .map(String::from)
            .to_vec(),
        ];
        for cable in self.cables.iter().filter(|cable| !leads_to_server(cable)) {
            let mut row = vec![cable.name.clone()];
            row.extend(self.end_cells(&cable.a));
            row.extend(self.end_cells(&cable.b));
            rows.push(row);
        }
        let prefix = self.switches[0].ports[0].mac.link_local().segments();
        format!(
            "{}LINK-LOCAL: what follows fe80::{:x}:{:x}: (ping and ssh: fe80::{:x}:{:x}:…%NIC)\n",
            columns(&rows, width),
            prefix[4],
            prefix[5],
            prefix[4],
            prefix[5],
        )
    }

    fn end_cells(&self, end: &End) -> [String; 4] {
        let (nic, local) = self.port(end).map_or(("-".into(), "-".into()), |port| {
            let [.., high, low] = port.link_local.segments();
            (port.nic.clone(), format!("{high:x}:{low:x}"))
        });
        [end.tap.clone(), end.alias.clone(), nic, local]
    }

    fn server_cables(&self, width: usize) -> String {
        let mut rows = vec![
            ["CABLE", "END", "ALIAS", "NIC", "END", "ALIAS"]
                .map(String::from)
                .to_vec(),
        ];
        let mut seen = Vec::new();
        let mut halves = Vec::new();
        for cable in self.cables.iter().filter(|cable| leads_to_server(cable)) {
            let (EndOwner::Server { rack, u, nic }, EndOwner::Switch { .. }) =
                (cable.b.owner, cable.a.owner)
            else {
                halves.push(cable.name.as_str());
                continue;
            };
            // One position of a rack stands for all, once for each NIC.
            if seen.contains(&(rack, nic)) {
                continue;
            }
            seen.push((rack, nic));
            let any_u = |alias: &str| alias.replace(&format!("u{u}"), "uU");
            rows.push(vec![
                with_u(&cable.name, u, ""),
                with_u(&cable.a.tap, u, ""),
                any_u(&cable.a.alias),
                "ens(U+3)".into(),
                with_u(&cable.b.tap, u, &format!("-{nic}")),
                any_u(&cable.b.alias),
            ]);
        }
        let mut text = format!(
            "{}U is the server's position in its rack, {} to {}\n",
            columns(&rows, width),
            FIRST_U,
            self.num_u
        );
        if !halves.is_empty() {
            let _ = writeln!(text, "Left with one end: {}", halves.join(", "));
        }
        text
    }

    fn subnets(&self, width: usize) -> String {
        let served = |switch: usize| self.switches[switch].name.clone();
        let mut rows = vec![
            ["SUBNET", "AT", "ADDRESS", "FOR"]
                .map(String::from)
                .to_vec(),
        ];
        rows.push(vec![
            self.net.loopbacks.to_string(),
            "all".into(),
            "-".into(),
            "loopbacks".into(),
        ]);
        rows.extend(self.net.dhcp.iter().map(|net| {
            let what = format!("DHCP, {} to {}", net.first, net.last);
            vec![
                net.subnet.to_string(),
                served(net.switch),
                net.router.to_string(),
                what,
            ]
        }));
        rows.extend(self.net.vlans.iter().map(|net| {
            let what = format!("VLAN {}", net.id);
            vec![
                net.subnet.to_string(),
                served(net.switch),
                net.router.to_string(),
                what,
            ]
        }));
        let vlan = self.net.server_vlan;
        format!(
            "{}Servers peer with both leaves of their rack on VLAN {vlan}\n",
            columns(&rows, width)
        )
    }
}

fn leads_to_server(cable: &Cable) -> bool {
    // A cable that has lost an end to another cable stays in its table.
    !cable.own
        && (matches!(cable.b.owner, EndOwner::Server { .. }) || cable.b.owner == EndOwner::Open)
}

fn counted(number: usize, one: &str, many: &str) -> String {
    format!("{number} {}", if number == 1 { one } else { many })
}

/// Turns the name of one position into a pattern for all: `ikeb1-3` -> `ikeb1-U` or, with the NIC
/// `behind` it, `ikvm1-3-1` -> `ikvm1-U-1`.
fn with_u(name: &str, u: u16, behind: &str) -> String {
    let before = name
        .strip_suffix(behind)
        .and_then(|name| name.strip_suffix(&u.to_string()));
    before.map_or_else(|| name.to_owned(), |before| format!("{before}U{behind}"))
}

fn switch_box(switch: &Switch) -> Box {
    Box {
        cable: switch.ports.first().map(|port| port.cable.clone()),
        title: switch.name.clone(),
        lines: vec![format!("AS {}", switch.asn), switch.loopback.to_string()],
    }
}

/// A node of the drawing.
struct Box {
    /// The cable that enters from above.
    cable: Option<String>,
    title: String,
    lines: Vec<String>,
}

/// Boxes of equal width side by side, in as many rows as needed on a terminal of `columns`.
fn grid(boxes: &[Box], columns: usize) -> String {
    let widest = |one: &Box| {
        let longest = one.lines.iter().map(|line| length(line)).max().unwrap_or(0);
        longest.max(length(&one.title) + 2) + 4
    };
    let width = boxes.iter().map(widest).max().unwrap_or(0);
    let in_a_row = ((columns + GAP) / (width + GAP)).max(1);
    let mut text = String::new();
    for row in boxes.chunks(in_a_row) {
        if row.iter().any(|one| one.cable.is_some()) {
            push(&mut text, row, |one| {
                pad(
                    &one.cable
                        .as_ref()
                        .map_or(String::new(), |cable| format!("  │ {cable}")),
                    width,
                )
            });
        }
        push(&mut text, row, |one| {
            let joint = if one.cable.is_some() { '┴' } else { '─' };
            let start = format!("┌─{joint} {} ", one.title);
            format!("{start}{}┐", "─".repeat(width - length(&start) - 1))
        });
        for line in 0..row.iter().map(|one| one.lines.len()).max().unwrap_or(0) {
            push(&mut text, row, |one| {
                let line = one.lines.get(line).map_or("", String::as_str);
                format!("│ {} │", pad(line, width - 4))
            });
        }
        push(&mut text, row, |_| format!("└{}┘", "─".repeat(width - 2)));
    }
    text
}

fn push(text: &mut String, row: &[Box], cell: impl Fn(&Box) -> String) {
    let cells: Vec<String> = row.iter().map(cell).collect();
    *text += cells.join(&" ".repeat(GAP)).trim_end();
    text.push('\n');
}

/// The width in columns: every character used here has one.
fn length(text: &str) -> usize {
    text.chars().count()
}

fn pad(text: &str, width: usize) -> String {
    format!("{text}{}", " ".repeat(width.saturating_sub(length(text))))
}

/// A table; its columns stand closer where they would not fit.
fn columns(rows: &[Vec<String>], width: usize) -> String {
    let mut widths = vec![0; rows.first().map_or(0, Vec::len)];
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = length(cell).max(*width);
        }
    }
    let gaps = GAP * widths.len().saturating_sub(1);
    let fits = widths.iter().sum::<usize>() + gaps <= width;
    let gap = " ".repeat(if fits { GAP } else { 1 });
    let mut text = String::new();
    for row in rows {
        let cells: Vec<_> = row
            .iter()
            .zip(&widths)
            .map(|(cell, width)| pad(cell, *width))
            .collect();
        let _ = writeln!(text, "{}", cells.join(&gap).trim_end());
    }
    text
}
