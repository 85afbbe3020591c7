#!/usr/bin/env bash
# One direction of a cable between two taps, used as a VM without vhost uses them: one thread
# writes, another reads. The contestant joins the two network devices.
# Prints mpps, the received frames. Runs in a network namespace of its own. Needs root.
#   taps.sh bridge BYTES SECONDS SIDE-BY-SIDE
#   taps.sh ikv-fabric BYTES SECONDS SIDE-BY-SIDE FABRIC
set -euo pipefail
[ "${IN_NETNS:-}" ] || IN_NETNS=1 exec unshare --net "$0" "$@"
dut=$1 bytes=$2 seconds=$3 side_by_side=$4 fabric=${5:-}
work=$(mktemp -d)
wire=
finish() {
    status=$?
    [ -z "$wire" ] || { kill "$wire" 2>/dev/null && wait "$wire" || true; }
    [ $status = 0 ] || cat "$work"/*.log >&2
    rm -rf "$work"
}
trap finish EXIT
ip link set lo up

mkfifo "$work/go"
"$side_by_side" load-taps ika ikb "$bytes" "$seconds" <"$work/go" >"$work/result" 2>"$work/generator.log" &
generator=$!
exec 3>"$work/go"
for end in ika ikb; do
    for _ in $(seq 200); do
        if ip link show $end >/dev/null 2>&1; then break; fi
        kill -0 $generator
        sleep 0.05
    done
    ip link set $end addrgenmode none
done
case $dut in
bridge)
    ip link add br0 type bridge mcast_snooping 0
    ip link set ika master br0
    ip link set ikb master br0
    ip link set br0 addrgenmode none up
    ;;
ikv-fabric)
    "$fabric" --socket "$work/control.sock" patch --workers 1 netdev:ika netdev:ikb 2>"$work/wire.log" &
    wire=$!
    ;;
esac
ip link set ika up
ip link set ikb up
[ -z "$wire" ] || "$fabric" --socket "$work/control.sock" status --wait 10 >/dev/null
# Whether both ends have a carrier and, on a bridge, forward.
is_forwarding() {
    for end in ika ikb; do
        ip -o link show $end | grep -q LOWER_UP || return 1
        [ "$dut" != bridge ] || bridge link show dev $end | grep -q 'state forwarding' || return 1
    done
}
tries=0
until is_forwarding; do
    [ $((tries += 1)) -le 200 ] || { echo "taps.sh: ika and ikb did not come up in 10 s" >&2; exit 1; }
    sleep 0.05
done
echo go >&3
wait $generator
cat "$work/result"
