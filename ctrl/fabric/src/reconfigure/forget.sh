# Makes FRR forget interfaces that were removed. The guest agent runs it with busybox sh. Standard
# input has one vtysh command a line. FRR refuses them until the kernel has notified it of the removal.
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
