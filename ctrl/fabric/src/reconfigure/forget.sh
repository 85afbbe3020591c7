# Makes FRR forget interfaces that are gone; run by the guest agent with busybox sh. On stdin comes
# one vtysh command a line. FRR refuses until it has heard from the kernel.
set -u
export PATH=/usr/sbin:/usr/bin:/sbin:/bin
while IFS= read -r line; do
    tries=50
    until said=$(vtysh -c "configure terminal" -c "$line" 2>&1 </dev/null); do
        tries=$((tries - 1))
        [ "$tries" != 0 ] || { echo "$line: $said"; exit 1; }
        usleep 100000
    done
done
