#!/usr/bin/env bash
# Frames that circulate through one cable between two vhost-user ports. The generator, DPDK's
# testpmd with two virtio-user ports, runs on CPU 0, the contestant on CPU 1.
# Prints mpps, of both directions together. Needs root and 1,024 huge pages of 2 MiB.
#   vhost.sh testpmd|ovs BYTES split|packed SECONDS
#   vhost.sh ikv-fabric BYTES split|packed SECONDS FABRIC
set -euo pipefail
[ "${IN_NETNS:-}" ] || IN_NETNS=1 exec unshare --net "$0" "$@"
dut=$1 bytes=$2 ring=$3 seconds=$4 fabric=${5:-}
work=$(mktemp -d)
pids=()
finish() {
    status=$?
    exec 3>&- 4>&- || true
    for pid in "${pids[@]}"; do kill "$pid" 2>/dev/null || true; done
    for pid in "${pids[@]}"; do
        for _ in $(seq 100); do kill -0 "$pid" 2>/dev/null || break; sleep 0.05; done
        kill -9 "$pid" 2>/dev/null || true
    done
    [ $status = 0 ] || tail -n 15 "$work"/*.log >&2
    rm -rf "$work"
}
trap finish EXIT
ip link set lo up

# Waits until file $2 has a line that contains $1.
until_line() {
    for _ in $(seq 300); do
        if grep -qs "$1" "$2"; then return; fi
        sleep 0.1
    done
    echo "no \"$1\" in $2 after 30 s" >&2
    exit 1
}
until_sockets() {
    for _ in $(seq 300); do
        if [ -S "$work/a" ] && [ -S "$work/b" ]; then return; fi
        kill -0 "${pids[-1]}" || exit 1
        sleep 0.1
    done
    echo "$dut opened no sockets in 30 s" >&2
    exit 1
}

eal=(--no-pci --in-memory --iova-mode=va -m 512)
pmd=(-i --no-mlockall --nb-cores=1 --burst=32 --total-num-mbufs=16384)
generator_listens=
case $dut in
testpmd)
    mkfifo "$work/dut"
    dpdk-testpmd --lcores '0@0,1@1' --file-prefix "dut$$" "${eal[@]}" \
        --vdev "net_vhost0,iface=$work/a" --vdev "net_vhost1,iface=$work/b" \
        -- "${pmd[@]}" --auto-start <"$work/dut" >"$work/dut.log" 2>&1 &
    pids+=($!)
    exec 3>"$work/dut"
    until_sockets
    ;;
ovs)
    generator_listens=,server=1
    export OVS_RUNDIR=$work OVS_LOGDIR=$work OVS_DBDIR=$work OVS_SYSCONFDIR=$work
    database=unix:$work/db.sock
    ovsdb-tool create "$work/conf.db" /usr/share/openvswitch/vswitch.ovsschema
    ovsdb-server "$work/conf.db" --remote="p$database" --log-file="$work/db.log" 2>/dev/null &
    pids+=($!)
    ovs-vsctl --db="$database" --retry --no-wait set Open_vSwitch . \
        other_config:dpdk-init=true other_config:dpdk-socket-mem=512 \
        other_config:dpdk-lcore-mask=0x1 other_config:pmd-cpu-mask=0x2 \
        other_config:dpdk-extra="${eal[*]:0:3}"
    /usr/lib/openvswitch-switch-dpdk/ovs-vswitchd-dpdk "$database" --log-file="$work/ovs.log" 2>/dev/null &
    pids+=($!)
    ovs-vsctl --db="$database" --timeout=30 add-br br0 -- set bridge br0 datapath_type=netdev
    for end in a b; do
        ovs-vsctl --db="$database" --timeout=30 add-port br0 $end -- \
            set interface $end type=dpdkvhostuserclient options:vhost-server-path="$work/$end"
    done
    # A plain cable: no learning, one flow in each direction.
    ovs-ofctl del-flows "unix:$work/br0.mgmt"
    ovs-ofctl add-flow "unix:$work/br0.mgmt" in_port=a,actions=output:b
    ovs-ofctl add-flow "unix:$work/br0.mgmt" in_port=b,actions=output:a
    ;;
ikv-fabric)
    "$fabric" --socket "$work/control.sock" patch --workers 1 --cpus 1 \
        "vhost-user:$work/a" "vhost-user:$work/b" 2>"$work/dut.log" &
    pids+=($!)
    until_sockets
    ;;
esac

[ "$ring" = packed ] && variant=,packed_vq=1 || variant=
mkfifo "$work/generator"
dpdk-testpmd --lcores '0@0,1@0' --file-prefix "gen$$" --single-file-segments "${eal[@]}" \
    --vdev "net_virtio_user0,path=$work/a,queue_size=1024,mac=02:00:00:00:00:0a$variant$generator_listens" \
    --vdev "net_virtio_user1,path=$work/b,queue_size=1024,mac=02:00:00:00:00:0b$variant$generator_listens" \
    -- "${pmd[@]}" --rxd=1024 --txd=1024 <"$work/generator" >"$work/generator.log" 2>&1 &
pids+=($!)
exec 4>"$work/generator"
until_line 'testpmd>' "$work/generator.log"
# OVS tries to connect once a second. Frames sent before it polls both ends would be lost, and with
# them a part of the circulating load.
sleep 2.5
printf 'set fwd io\nset txpkts %d\nstart tx_first 32\n' "$bytes" >&4
sleep 1
echo 'show port stats all' >&4
sleep "$seconds"
printf 'show port stats all\nstop\nquit\n' >&4
until_line 'Bye' "$work/generator.log"
awk -v seconds="$seconds" '
    /RX-packets:.*RX-missed/ { seen[++count] = $2 }
    END {
        if (count < 4) { print "the generator printed no statistics" > "/dev/stderr"; exit 1 }
        printf "mpps=%.4f\n", (seen[3] + seen[4] - seen[1] - seen[2]) / seconds / 1e6
    }' "$work/generator.log"
