#!/usr/bin/env bash
# TCP and ping between two hosts (network namespaces) joined by one cable.
# Prints gbits and rtt_us. Needs root, iperf3 and ping.
#   tcp.sh bridge|vde SECONDS
#   tcp.sh ikv-fabric SECONDS FABRIC
set -euo pipefail
dut=$1 seconds=$2 fabric=${3:-}
space=ikvb$$
work=$(mktemp -d)
pids=()
finish() {
    status=$?
    for pid in "${pids[@]}"; do kill "$pid" 2>/dev/null || true; done
    wait "${pids[@]}" 2>/dev/null || true
    for host in one two wire; do ip netns del $space$host 2>/dev/null || true; done
    [ $status = 0 ] || cat "$work"/*.log >&2 || true
    rm -rf "$work"
}
trap finish EXIT
for host in one two wire; do
    ip netns add $space$host
    ip -n $space$host link set lo up
done
one="ip netns exec ${space}one" two="ip netns exec ${space}two" wire="ip netns exec ${space}wire"

case $dut in
bridge)
    ip -n ${space}wire link add br0 type bridge
    ip -n ${space}wire link set br0 up
    for end in ika ikb; do
        ip -n ${space}wire link add $end type veth peer name p$end
        ip -n ${space}wire link set p$end master br0 up
    done
    ;;
vde)
    # vde_switch ends when its standard input, its console, ends.
    mkfifo "$work/console"
    $wire vde_switch -s "$work/vde" <"$work/console" >"$work/switch.log" 2>&1 &
    pids+=($!)
    exec 3>"$work/console"
    for _ in $(seq 200); do
        if [ -S "$work/vde/ctl" ]; then break; fi
        kill -0 "${pids[0]}"
        sleep 0.05
    done
    for end in ika ikb; do
        $wire vde_plug2tap -s "$work/vde" $end >"$work/$end.log" 2>&1 &
        pids+=($!)
    done
    ;;
ikv-fabric)
    $wire "$fabric" --socket "$work/control.sock" patch --workers 1 tap:ika tap:ikb 2>"$work/wire.log" &
    pids+=($!)
    ;;
esac
for end in ika ikb; do
    for _ in $(seq 200); do
        if ip -n ${space}wire link show $end >/dev/null 2>&1; then break; fi
        sleep 0.05
    done
done
ip -n ${space}wire link set ika netns ${space}one
ip -n ${space}wire link set ikb netns ${space}two
ip -n ${space}one addr add 192.0.2.1/24 dev ika
ip -n ${space}two addr add 192.0.2.2/24 dev ikb
ip -n ${space}one link set ika up
ip -n ${space}two link set ikb up

$one ping -q -c 3 -i 0.2 -W 5 192.0.2.2 >/dev/null
$one ping -q -c 400 -i 0.005 192.0.2.2 | awk -F/ '/^rtt/ { print "rtt_us=" $5 * 1000 }'
$two iperf3 -s -1 >"$work/server.log" 2>&1 &
pids+=($!)
for _ in $(seq 200); do
    if $two ss -Hltn 'sport = :5201' | grep -q .; then break; fi
    kill -0 "${pids[-1]}"
    sleep 0.05
done
$one iperf3 -c 192.0.2.2 -t "$seconds" -f g >"$work/client.log"
awk '/receiver/ { print "gbits=" $7 }' "$work/client.log"
