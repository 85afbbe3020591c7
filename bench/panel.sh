#!/bin/sh
# The patch panel against what it replaces: 282 taps and 142 Linux bridges made one by one with
# `ip`, as ikvswitch did. Both come up and go away in turn, five times each, in namespaces of their
# own; prints every run and the medians. Root. Usage: panel.sh IKV-FABRIC
set -eu
fabric=$(realpath "$1")
work=$(mktemp -d) netns=ikvbench$$
trap 'ip netns del $netns 2>/dev/null || true; rm -rf "$work"' EXIT

now() { date +%s%N; }
ms() { echo $((($2 - $1) / 1000000)); }
inside() { ip netns exec $netns "$@"; }

panel() {
    socket=$work/fabric/control.sock
    begin=$(now)
    inside "$fabric" --socket "$socket" run --switches none 2>"$work/log" &
    until grep -q ready "$work/log"; do :; done
    up=$(ms "$begin" "$(now)")
    pid=$(cut -d' ' -f1 "$work/fabric/lock")
    rss=$(awk '/VmRSS/ { print int($2 / 1024) }' "/proc/$pid/status")
    begin=$(now)
    kill -INT "$pid"
    wait
    echo "panel $up $(ms "$begin" "$(now)") $rss"
}

bridges() {
    begin=$(now)
    for cable in $(seq 141); do
        inside ip link add "b$cable" type bridge
        for end in a b; do
            inside ip tuntap add dev "t$cable$end" mode tap
            inside ip link set "t$cable$end" mtu 9000 master "b$cable" up
        done
        inside ip link set "b$cable" up
    done
    up=$(ms "$begin" "$(now)")
    begin=$(now)
    for cable in $(seq 141); do
        inside ip link del "t${cable}a"
        inside ip link del "t${cable}b"
        inside ip link del "b$cable"
    done
    echo "bridges $up $(ms "$begin" "$(now)") 0"
}

echo "# what, up ms, down ms, resident MiB"
for _ in 1 2 3 4 5; do
    for side in panel bridges; do
        ip netns add $netns
        $side | tee -a "$work/runs"
        ip netns del $netns
    done
done
for side in panel bridges; do
    for column in 2 3; do
        awk -v side=$side -v column=$column '$1 == side { print $column }' "$work/runs" | sort -n | sed -n 3p
    done | paste -sd' ' | sed "s/^/median $side (up, down ms): /"
done
