#!/usr/bin/env bash
# Creates and removes the cables of a whole datacenter once: with this build's patch panel, or as
# ikvswitch did, with a Linux bridge and two taps for each of 141 cables, one `ip` after another.
# Prints up_ms and down_ms. Runs in a network namespace of its own. Needs root.
#   panel.sh ikv-fabric FABRIC | bridge
set -euo pipefail
[ "${IN_NETNS:-}" ] || IN_NETNS=1 exec unshare --net "$0" "$@"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
now() { date +%s%N; }
took() { echo "$1=$((($(now) - $2) / 1000000))"; }
ip link set lo up

case $1 in
ikv-fabric)
    begin=$(now)
    "$2" --socket "$work/fabric/control.sock" run --switches none 2>"$work/log" &
    until grep -q ready "$work/log"; do kill -0 $! || { cat "$work/log" >&2; exit 1; }; done
    took up_ms "$begin"
    begin=$(now)
    kill -INT $!
    wait
    took down_ms "$begin"
    ;;
bridge)
    begin=$(now)
    for cable in $(seq 141); do
        ip link add "b$cable" type bridge
        for end in a b; do
            ip tuntap add dev "t$cable$end" mode tap
            ip link set "t$cable$end" mtu 9000 master "b$cable" up
        done
        ip link set "b$cable" up
    done
    took up_ms "$begin"
    begin=$(now)
    for cable in $(seq 141); do
        ip link del "t${cable}a"
        ip link del "t${cable}b"
        ip link del "b$cable"
    done
    took down_ms "$begin"
    ;;
esac
