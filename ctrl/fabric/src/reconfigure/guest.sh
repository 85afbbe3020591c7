# Brings a running switch to its new configuration. The guest agent runs it with busybox sh.
# Standard input is a tar of the files that changed, and in /run/ikv/change of the commands: `nics`
# lists new NICs (MAC NAME a line), `network` is for ip, `frr` for vtysh, and `dnsmasq` exists if
# dnsmasq must read its file again. The first command that fails ends the script, with a reason.
set -eu
export PATH=/usr/sbin:/usr/bin:/sbin:/bin
change=/run/ikv/change
rm -rf $change
# The files' folder is read-only while the switch runs; its script `stages` says why.
mount -o remount,bind,rw /etc/frr
trap 'mount -o remount,bind,ro /etc/frr' EXIT
tar -x -f - -C /
chown -R frr:frr /etc/frr

# The network card with that MAC; bridges and VLANs may have it too.
card() {
    for path in /sys/class/net/*/device; do
        path=${path%/device}
        read -r found <"$path/address"
        [ "$found" = "$1" ] && device=${path##*/} && return 0
    done
    return 1
}

while read -r mac nic; do
    tries=100
    until card "$mac"; do
        tries=$((tries - 1))
        [ "$tries" != 0 ] || { echo "no network card has appeared with the address $mac"; exit 1; }
        usleep 100000
    done
    [ "$device" = "$nic" ] || echo "link set dev $device name $nic" >>$change/renames
done <$change/nics

if [ -s $change/network ]; then
    [ -e $change/renames ] || : >$change/renames
    # By name: busybox has an ip of its own.
    cat $change/renames $change/network | /sbin/ip -batch - 2>&1
fi
if [ -s $change/frr ]; then
    vtysh -c "configure terminal" -c "$(cat $change/frr)" 2>&1
fi
if [ -e $change/dnsmasq ] && pids=$(pidof dnsmasq); then
    # init starts it again.
    kill $pids
fi
rm -rf $change
