//! The datacenter as a Graphviz graph: `ikv-fabric topology --dot | dot -Tsvg`.

use std::fmt::Write;

use super::{Cable, End, EndOwner, Switch, Topology};

impl Topology {
    /// An undirected graph in Graphviz's language: a node for the host, every switch and every
    /// server, an edge for every cable, a cluster for every rack.
    pub fn dot(&self) -> String {
        let mut text = String::from(
            "graph fabric {\n  rankdir=TB; ranksep=2; nodesep=0.3;\n  node [shape=box];\n  edge \
             [fontsize=9];\n",
        );
        let host = &self.host;
        let label = format!("host\\n{} {}", host.name, host.address);
        let _ = writeln!(text, "  host [label=\"{label}\"];");
        for switch in self.switches.iter().filter(|switch| switch.rack.is_none()) {
            let _ = writeln!(text, "  {}", node(switch));
        }
        for rack in &self.racks {
            let number = rack.number;
            let _ = writeln!(
                text,
                "  subgraph cluster_rack{number} {{\n    label=\"rack {number}\";"
            );
            for leaf in rack.leaves {
                let _ = writeln!(text, "    {}", node(&self.switches[leaf]));
            }
            for u in self.positions() {
                let _ = writeln!(text, "    \"rack{number}:u{u}\" [label=\"U{u}\"];");
            }
            text += "  }\n";
        }
        let connected = |end: &End| end.owner != EndOwner::Open;
        let joins = |cable: &&Cable| connected(&cable.a) && connected(&cable.b);
        for cable in self.cables.iter().filter(joins) {
            let _ = writeln!(text, "  {}", self.edge(cable));
        }
        text + "}\n"
    }

    fn edge(&self, cable: &Cable) -> String {
        format!(
            "\"{}\" -- \"{}\" [label=\"{}\", taillabel=\"{}\", headlabel=\"{}\"];",
            self.owner(&cable.a),
            self.owner(&cable.b),
            cable.name,
            self.label(&cable.a),
            self.label(&cable.b),
        )
    }

    /// The name of the node that an end belongs to.
    fn owner(&self, end: &End) -> String {
        match end.owner {
            EndOwner::Host | EndOwner::IpmiHost => "host".into(),
            EndOwner::Switch { switch, .. } => self.switches[switch].name.clone(),
            EndOwner::Server { rack, u, .. } => format!("rack{rack}:u{u}"),
            EndOwner::IpmiPort | EndOwner::Open => end.alias.clone(),
        }
    }

    /// The label of an edge's end: the NIC at a switch, the tap elsewhere.
    fn label<'t>(&'t self, end: &'t End) -> &'t str {
        self.port(end).map_or(&end.tap, |port| &port.nic)
    }
}

fn node(switch: &Switch) -> String {
    let Switch {
        name,
        asn,
        loopback,
        ..
    } = switch;
    format!("{name} [label=\"{name}\\nAS {asn}\\n{loopback}\"];")
}
