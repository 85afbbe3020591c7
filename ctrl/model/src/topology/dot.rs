//! The datacenter as a Graphviz graph: `ikv-fabric topology --dot | dot -Tsvg`.

use std::collections::HashSet;
use std::fmt::Write;

use super::{Cable, End, EndOwner, Rack, Role, Switch, Topology};

impl Topology {
    /// An undirected graph in Graphviz's language, in ranks: the host, internet, the spines, the leaves,
    /// the servers. With `servers`, each of these and each of their cables; otherwise one node for all
    /// servers of a rack.
    pub fn dot(&self, servers: bool) -> String {
        let mut text = String::from(
            "graph fabric {\n  rankdir=TB; ranksep=1.5; nodesep=0.3; newrank=true;\n  node \
             [shape=box];\n  edge [fontsize=9];\n",
        );
        let host = &self.host;
        let label = format!("host\\n{} {}", host.name, host.address);
        let _ = writeln!(text, "  host [label=\"{label}\"];");
        for switch in self.switches.iter().filter(|switch| switch.rack.is_none()) {
            let _ = writeln!(text, "  {}", node(switch));
        }
        for rack in &self.racks {
            self.dot_rack(&mut text, rack, servers);
        }
        for role in [Role::Spine, Role::Leaf] {
            let peers = self.switches.iter().filter(|switch| switch.role == role);
            let peers: Vec<_> = peers.map(|switch| format!(" {};", switch.name)).collect();
            let _ = writeln!(text, "  {{ rank=same;{} }}", peers.concat());
        }
        let connected = |end: &End| end.owner != EndOwner::Open;
        let joins = |cable: &&Cable| connected(&cable.a) && connected(&cable.b);
        let mut drawn = HashSet::new();
        for cable in self.cables.iter().filter(joins) {
            if servers || !is_of_a_server(cable) {
                let _ = writeln!(text, "  {}", self.edge(cable));
                continue;
            }
            let [a, b] = [&cable.a, &cable.b].map(|end| folded(self.owner(end)));
            if drawn.insert([a.clone(), b.clone()]) {
                let _ = writeln!(text, "  \"{a}\" -- \"{b}\";");
            }
        }
        text + "}\n"
    }

    fn dot_rack(&self, text: &mut String, rack: &Rack, servers: bool) {
        let number = rack.number;
        let _ = writeln!(
            text,
            "  subgraph cluster_rack{number} {{\n    label=\"rack {number}\";"
        );
        for leaf in rack.leaves {
            let _ = writeln!(text, "    {}", node(&self.switches[leaf]));
        }
        let positions = self.positions();
        if servers {
            for u in positions.clone() {
                let _ = writeln!(text, "    \"rack{number}:u{u}\" [label=\"U{u}\"];");
            }
            // Nothing else keeps them in their order.
            let chain: Vec<_> = positions
                .map(|u| format!("\"rack{number}:u{u}\""))
                .collect();
            let chain = chain.join(" -- ");
            let _ = writeln!(text, "    {{ rank=same; edge [style=invis]; {chain}; }}");
        } else {
            let (first, last) = (positions.start(), positions.end());
            let _ = writeln!(
                text,
                "    \"rack{number}\" [label=\"servers\\nU{first} to U{last}\"];"
            );
        }
        *text += "  }\n";
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

fn is_of_a_server(cable: &Cable) -> bool {
    let server = |end: &End| matches!(end.owner, EndOwner::Server { .. });
    server(&cable.a) || server(&cable.b)
}

/// The node that stands for all servers of a rack, in place of one: `rack1` of `rack1:u3`.
fn folded(node: String) -> String {
    match node.split_once(':') {
        Some((rack, _)) if node.starts_with("rack") => rack.to_owned(),
        _ => node,
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
