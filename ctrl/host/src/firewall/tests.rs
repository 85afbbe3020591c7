//! Rulesets as `nft -j list ruleset` (1.0.6) prints them, cut to what matters.
#![allow(clippy::needless_pass_by_value)] // json!(…) reads better without a borrow

use serde_json::json;

use super::*;

fn look(items: Value) -> Vec<Obstacle> {
    let ruleset = json!({"nftables": items});
    let range = "192.168.96.0/19".parse().unwrap();
    obstacles(&ruleset, Traffic::Forwarded, "ikhn", range)
}

fn base(family: &str, table: &str, name: &str, policy: &str) -> Value {
    json!({"chain": {"family": family, "table": table, "name": name, "handle": 1,
                     "type": "filter", "hook": "forward", "prio": 0, "policy": policy}})
}

fn rule(family: &str, table: &str, chain: &str, expr: Value) -> Value {
    json!({"rule": {"family": family, "table": table, "chain": chain, "handle": 9, "expr": expr}})
}

fn name_is(key: &str, name: &str) -> Value {
    json!({"match": {"op": "==", "left": {"meta": {"key": key}}, "right": name}})
}

fn states(states: &[&str]) -> Value {
    json!({"match": {"op": "in", "left": {"ct": {"key": "state"}}, "right": states}})
}

#[test]
fn an_open_host_has_no_obstacle() {
    assert_eq!(look(json!([])), []);
    assert_eq!(look(json!([base("ip", "filter", "FORWARD", "accept")])), []);
}

#[test]
fn docker_drops_by_policy() {
    let found = look(json!([
        base("ip", "filter", "FORWARD", "drop"),
        {"chain": {"family": "ip", "table": "filter", "name": "DOCKER-USER", "handle": 2}},
        rule("ip", "filter", "FORWARD",
             json!([{"counter": {"packets": 0, "bytes": 0}}, {"jump": {"target": "DOCKER-USER"}}])),
        rule("ip", "filter", "DOCKER-USER", json!([{"counter": null}, {"return": null}])),
        rule("ip", "filter", "FORWARD", json!([name_is("iifname", "docker0"), {"accept": null}])),
    ]));
    insta::assert_debug_snapshot!(found, @r#"
    [
        Obstacle {
            chain: "table ip filter, chain FORWARD",
            reason: "policy drop",
            remedy: "iptables -I DOCKER-USER -i ikhn -j ACCEPT; iptables -I DOCKER-USER -o ikhn -j ACCEPT",
        },
    ]
    "#);
}

#[test]
fn a_final_reject_counts_and_names_its_rule() {
    let found = look(json!([
        base("inet", "firewalld", "filter_FORWARD", "accept"),
        rule(
            "inet",
            "firewalld",
            "filter_FORWARD",
            json!([states(&["established", "related"]), {"accept": null}])
        ),
        rule(
            "inet",
            "firewalld",
            "filter_FORWARD",
            json!([{"reject": {"type": "icmpx", "expr": "admin-prohibited"}}])
        ),
    ]));
    assert_eq!(found.len(), 1);
    assert_eq!(
        found[0].reason,
        "rule with handle 9 in chain filter_FORWARD rejects it"
    );
    assert_eq!(
        found[0].remedy,
        "firewall-cmd --zone=trusted --add-interface=ikhn"
    );
}

#[test]
fn the_remedy_is_enough() {
    // What `remedy` says for a plain table, as nft lists it afterwards.
    let items = |rules: &[Value]| {
        let mut all = vec![base("inet", "mine", "fwd", "drop")];
        all.extend_from_slice(rules);
        Value::Array(all)
    };
    let accept = |key| {
        rule(
            "inet",
            "mine",
            "fwd",
            json!([name_is(key, "ikhn"), {"accept": null}]),
        )
    };
    let found = look(items(&[]));
    assert_eq!(
        found[0].remedy,
        "nft insert rule inet mine fwd iifname \"ikhn\" accept; \
         nft insert rule inet mine fwd oifname \"ikhn\" accept"
    );
    assert_eq!(
        look(items(&[accept("iifname")])).len(),
        1,
        "the way back is still closed"
    );
    assert_eq!(look(items(&[accept("iifname"), accept("oifname")])), []);
    let established = rule(
        "inet",
        "mine",
        "fwd",
        json!([states(&["established"]), {"accept": null}]),
    );
    assert_eq!(look(items(&[accept("iifname"), established])), []);
}

#[test]
fn sets_wildcards_negations_and_networks_are_understood() {
    let with = |conditions: Value| {
        let mut expr = conditions.as_array().unwrap().clone();
        expr.push(json!({"drop": null}));
        look(json!([
            base("ip", "t", "c", "accept"),
            rule("ip", "t", "c", Value::Array(expr))
        ]))
        .len()
    };
    let field = |field: &str, op: &str, addr: &str, len: u8| {
        json!([{"match": {"op": op,
            "left": {"payload": {"protocol": "ip", "field": field}},
            "right": {"prefix": {"addr": addr, "len": len}}}}])
    };
    let name = |op: &str, right: Value| json!([{"match": {"op": op, "left": {"meta": {"key": "iifname"}}, "right": right}}]);
    assert_eq!(with(name("==", json!({"set": ["eth0", "ikhn"]}))), 1);
    assert_eq!(with(name("==", json!("ik*"))), 1);
    assert_eq!(with(name("==", json!("eth0"))), 0);
    assert_eq!(with(name("!=", json!("eth0"))), 1);
    assert_eq!(
        with(name("!=", json!({"set": ["ikhn"]}))),
        1,
        "the way back comes from elsewhere"
    );
    assert_eq!(with(field("saddr", "==", "192.168.0.0", 16)), 1);
    assert_eq!(with(field("saddr", "==", "10.0.0.0", 8)), 0);
    assert_eq!(with(field("saddr", "!=", "10.0.0.0", 8)), 1);
    assert_eq!(
        with(field("saddr", "==", "192.168.96.0", 24)),
        0,
        "a part of it only"
    );
    assert_eq!(
        with(json!([{"xt": {"type": "match", "name": "conntrack"}}])),
        0
    );
    assert_eq!(with(json!([{"limit": {"rate": 1, "per": "second"}}])), 0);
}

#[test]
fn a_state_map_is_followed() {
    let map = json!([{"vmap": {"key": {"ct": {"key": "state"}}, "data": {"set": [
        ["established", {"accept": null}], ["invalid", {"drop": null}], ["new", {"drop": null}],
    ]}}}]);
    let found = look(json!([
        base("inet", "t", "c", "accept"),
        rule("inet", "t", "c", map)
    ]));
    assert_eq!(found.len(), 1);
}

#[test]
fn a_named_set_with_our_link_is_read() {
    let set = |elem: Value| {
        json!({"set": {"family": "inet", "table": "t", "name": "trusted", "type": "ifname",
                       "handle": 3, "elem": elem}})
    };
    let with = |items: &[Value]| {
        let accept = |key| {
            let trusted = name_is(key, "@trusted");
            rule("inet", "t", "c", json!([trusted, {"accept": null}]))
        };
        let mut all = vec![
            base("inet", "t", "c", "drop"),
            accept("iifname"),
            accept("oifname"),
        ];
        all.extend_from_slice(items);
        look(Value::Array(all)).len()
    };
    assert_eq!(with(&[set(json!(["lo", "ikhn"]))]), 0);
    let counted = json!([{"elem": {"val": "ikhn", "counter": {"packets": 1, "bytes": 2}}}]);
    assert_eq!(with(&[set(counted)]), 0);
    assert_eq!(with(&[set(json!(["lo"]))]), 1);
}

#[test]
fn a_map_by_link_is_followed_by_jump_and_goto() {
    let with = |verdict: &str, data: Value, items: &[Value]| {
        let key = json!({"meta": {"key": "iifname"}});
        let map = json!([{"vmap": {"key": key, "data": data}}]);
        let mut all = vec![
            base("inet", "t", "c", "accept"),
            rule("inet", "t", "c", map),
            rule("inet", "t", "guests", json!([{"drop": null}])),
        ];
        all.extend_from_slice(items);
        let found = look(Value::Array(all));
        assert!(
            found.iter().all(|it| it.reason.contains("guests drops")),
            "{verdict}"
        );
        found.len()
    };
    for verdict in ["jump", "goto"] {
        let entry = json!(["ikhn", {verdict: {"target": "guests"}}]);
        assert_eq!(with(verdict, json!({"set": [entry.clone()]}), &[]), 1);
        let named = json!({"map": {"family": "inet", "table": "t", "name": "by", "elem": [entry]}});
        assert_eq!(with(verdict, json!("@by"), &[named]), 1);
        let other = json!(["eth0", {verdict: {"target": "guests"}}]);
        assert_eq!(with(verdict, json!({"set": [other]}), &[]), 0);
    }
}

#[test]
fn what_drops_before_routing_is_found() {
    let chain = json!({"chain": {"family": "inet", "table": "t", "name": "early", "handle": 1,
        "type": "filter", "hook": "prerouting", "prio": -300, "policy": "accept"}});
    let bogons = json!({"set": [
        {"prefix": {"addr": "10.0.0.0", "len": 8}},
        {"range": ["192.168.0.0", "192.168.255.255"]},
    ]});
    let from = json!({"match": {"op": "==", "right": bogons,
        "left": {"payload": {"protocol": "ip", "field": "saddr"}}}});
    let dropped = |expr: Value| look(json!([chain, rule("inet", "t", "early", expr)]));
    let found = dropped(json!([from, {"drop": null}]));
    assert_eq!(found[0].chain, "table inet t, chain early");
    assert_eq!(
        found[0].remedy,
        "nft insert rule inet t early iifname \"ikhn\" accept"
    );
    let elsewhere = json!([name_is("iifname", "eth0"), from, {"drop": null}]);
    assert_eq!(dropped(elsewhere), []);
}

#[test]
fn answers_and_pings_to_the_host_are_looked_at() {
    let look = |rules: &[Value]| {
        let mut all = vec![
            json!({"chain": {"family": "inet", "table": "t", "name": "in",
            "handle": 1, "type": "filter", "hook": "input", "prio": 0, "policy": "drop"}}),
        ];
        all.extend(
            rules
                .iter()
                .map(|expr| rule("inet", "t", "in", expr.clone())),
        );
        let range = "192.168.96.0/19".parse().unwrap();
        let ruleset = json!({"nftables": all});
        obstacles(&ruleset, Traffic::Answers, "ikhn", range).len()
    };
    let accepts = |condition: Value| json!([condition, {"accept": null}]);
    let answers = accepts(states(&["established", "related"]));
    assert_eq!(look(&[]), 1);
    assert_eq!(look(std::slice::from_ref(&answers)), 1, "no ping");
    let echo = json!({"match": {"op": "==", "right": {"set": ["echo-request", "echo-reply"]},
        "left": {"payload": {"protocol": "icmp", "field": "type"}}}});
    assert_eq!(look(&[answers.clone(), accepts(echo.clone())]), 0);
    let limited = json!([echo, {"limit": {"rate": 5, "per": "second"}}, {"accept": null}]);
    assert_eq!(look(&[answers.clone(), limited]), 0);
    let by_iptables = json!([{"xt": {"type": "match", "name": "icmp"}}, {"accept": null}]);
    assert_eq!(look(&[answers.clone(), by_iptables]), 0, "perhaps");
    let dropped = json!([name_is("iifname", "ikhn"), {"drop": null}]);
    assert_eq!(look(&[dropped, answers]), 1);
}

#[test]
fn our_own_table_loops_and_other_families_are_passed_over() {
    let found = look(json!([
        base("inet", TABLE, "forward", "drop"),
        base("ip6", "filter", "FORWARD", "drop"),
        base("bridge", "filter", "FORWARD", "drop"),
        base("ip", "loop", "a", "accept"),
        rule("ip", "loop", "a", json!([{"jump": {"target": "a"}}])),
    ]));
    assert_eq!(found, []);
}

#[test]
fn the_old_iptables_is_read_too() {
    let policy = "-P FORWARD DROP\n-A FORWARD -i docker0 -j ACCEPT\n";
    assert_eq!(
        legacy_obstacle(policy, Traffic::Forwarded, "ikhn")
            .unwrap()
            .reason,
        "policy drop"
    );
    let rule = "-P FORWARD ACCEPT\n-A FORWARD -j REJECT --reject-with icmp-port-unreachable\n";
    assert!(
        legacy_obstacle(rule, Traffic::Forwarded, "ikhn")
            .unwrap()
            .reason
            .contains("-j REJECT")
    );
    let mended = format!("-P FORWARD DROP\n-A FORWARD -i ikhn -j ACCEPT\n{rule}");
    assert_eq!(legacy_obstacle(&mended, Traffic::Forwarded, "ikhn"), None);
    assert_eq!(
        legacy_obstacle("-P FORWARD ACCEPT\n", Traffic::Forwarded, "ikhn"),
        None
    );
}

#[test]
fn what_comes_to_the_host_is_looked_at_by_itself() {
    let to_host = |items: Value| {
        let segment = "192.168.200.0/24".parse().unwrap();
        obstacles(
            &json!({"nftables": items}),
            Traffic::ToHost,
            "bripmi",
            segment,
        )
    };
    let chain = |family: &str, table: &str, name: &str| {
        json!({"chain": {"family": family, "table": table, "name": name, "handle": 1,
                         "type": "filter", "hook": "input", "prio": 0, "policy": "drop"}})
    };
    let forward = base("inet", "mine", "fwd", "drop");
    assert_eq!(to_host(json!([forward])), [], "not forwarded");
    assert_eq!(look(json!([chain("inet", "mine", "in")])), []);
    let remedies = [
        json!([chain("inet", "mine", "in")]),
        json!([chain("ip", "filter", "INPUT")]),
        json!([chain("ip", "filter", "INPUT"),
               {"chain": {"family": "ip", "table": "filter", "name": "ufw-user-input"}}]),
    ];
    let remedies = remedies.map(|items| to_host(items).remove(0).remedy);
    insta::assert_snapshot!(remedies.join("\n"), @r#"
    nft insert rule inet mine in iifname "bripmi" accept
    iptables -I INPUT -i bripmi -j ACCEPT
    ufw allow in on bripmi
    "#);
    let mended = json!([
        chain("inet", "mine", "in"),
        rule(
            "inet",
            "mine",
            "in",
            json!([name_is("iifname", "bripmi"), {"accept": null}])
        ),
    ]);
    assert_eq!(to_host(mended), []);
    let legacy = |rules| legacy_obstacle(rules, Traffic::ToHost, "bripmi");
    assert_eq!(legacy("-P FORWARD DROP\n-P INPUT ACCEPT\n"), None);
    assert_eq!(
        legacy("-P INPUT DROP\n").unwrap().remedy,
        "iptables-legacy -I INPUT -i bripmi -j ACCEPT"
    );
}
