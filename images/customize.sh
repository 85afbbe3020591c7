#!/bin/sh
# mmdebstrap's last hook: turns the installed packages ($1, a root directory) into the
# image's four files in $OUT. Runs outside the chroot, in mmdebstrap's user namespace
# if it has one. Settings that all switches share are made here, not at boot.
set -eu
root=$1
here=$(dirname "$0")

say() { echo "ikv-stage: $*"; }

modules() { sed -n "s/^$1 *//p" "$here/modules.txt" | tr '\n' ' '; }

# ---- kernel ------------------------------------------------------------------------
# Unpack the package, do not install it: its scripts would build an initrd of their own.
say kernel
work=$root/tmp/ikv
mkdir -p "$work/deb"
meta=linux-image-cloud-$(dpkg --print-architecture)
package=$(APT_CONFIG=$MMDEBSTRAP_APT_CONFIG apt-cache depends --important "$meta" |
    sed -n 's/^ *Depends: \(linux-image-[0-9].*\)/\1/p' | head -n 1)
[ -n "$package" ] || { echo "no kernel: $meta depends on no linux-image" >&2; exit 1; }
(cd "$work/deb" && APT_CONFIG=$MMDEBSTRAP_APT_CONFIG apt-get -q download "$package")
dpkg-deb -x "$work"/deb/*.deb "$work/kernel"
# Since Debian 13 the package has its modules below /usr.
[ -e "$work/kernel/lib" ] || ln -s usr/lib "$work/kernel/lib"
release=$(basename "$work"/kernel/boot/vmlinuz-*)
release=${release#vmlinuz-}

# QEMU starts an uncompressed kernel at its PVH entry point, so the guest neither copies nor
# decompresses it.
vmlinuz=$work/kernel/boot/vmlinuz-$release
unpack() { # MAGIC (as grep -P sees it) COMMAND…
    magic=$1
    shift
    for at in $(LC_ALL=C grep -abo -P "$magic" "$vmlinuz" | cut -d: -f1); do
        tail -c +$((at + 1)) "$vmlinuz" | "$@" >"$OUT/kernel" 2>/dev/null || true
        [ "$(head -c 4 "$OUT/kernel" | tail -c 3)" = ELF ] && return 0
    done
    return 1
}
unpack '\x02\x21\x4c\x18' lz4 -dc ||
    unpack '\x28\xb5\x2f\xfd' zstd -dcq ||
    unpack '\xfd7zXZ\x00' xz -dcq ||
    unpack '\x1f\x8b\x08' gzip -dcq ||
    cp "$vmlinuz" "$OUT/kernel"

# ---- modules: those in modules.txt, their dependencies, and the index ----------------
mkdir -p "$root/lib/modules"
chroot "$root" /sbin/depmod -b /tmp/ikv/kernel "$release"
mods=lib/modules/$release
files() { # MODULE…: prints the files of the modules and of their dependencies, once each
    chroot "$root" /sbin/modprobe -d /tmp/ikv/kernel -S "$release" -a --show-depends "$@" |
        sed -n "s|^insmod .*/$mods/\([^ ]*\).*|\1|p" | sort -u
}
install_modules() { # TO (a directory inside $root) MODULE…
    to=$root$1
    base=$1/
    shift
    files "$@" | while read -r file; do
        mkdir -p "$to/$mods/$(dirname "$file")"
        cp "$work/kernel/$mods/$file" "$to/$mods/$file"
    done
    cp "$work/kernel/$mods/modules.order" "$work/kernel/$mods"/modules.builtin* "$to/$mods/"
    chroot "$root" /sbin/depmod -b "$base" "$release"
}
# shellcheck disable=SC2046
{
    mkdir "$work/initrd"
    install_modules /tmp/ikv/initrd $(modules initrd)
    install_modules "" $(modules boot) $(modules keep)
}

# ---- initrd --------------------------------------------------------------------------
say initrd
(
    cd "$work/initrd"
    mkdir -p bin dev proc lower rw root
    cp "$root/bin/busybox" bin/
    sed "s/@INITRD_MODULES@/$(modules initrd)/" "$here/initrd/init" >init
    chmod 755 init
    find . | cpio --quiet -o -H newc -R 0:0
) >"$OUT/initrd"

# ---- root file system ----------------------------------------------------------------
say root
cp -R "$here/overlay/." "$root/"
sed -i "s/@BOOT_MODULES@/$(modules boot)/" "$root/usr/lib/ikv/boot"
chmod 755 "$root"/usr/lib/ikv/* "$root/usr/sbin/shutdown"
[ -x "$root/usr/lib/frr/mgmtd" ] || sed -i '/routing mgmtd$/d' "$root/etc/inittab"
for applet in init reboot poweroff halt mount umount nc vi telnet logread syslogd; do
    [ -e "$root/usr/bin/$applet" ] || ln -sf ../../bin/busybox "$root/usr/sbin/$applet"
done
# The installation of openssh-server generated host keys; each seed brings the fabric's own.
rm -f "$root"/etc/ssh/ssh_host_* "$root/etc/hostname" "$root/etc/resolv.conf"
: >"$root/etc/machine-id"
rm -f "$root"/etc/frr/* "$root"/etc/motd
install -d -m 755 "$root/run/ikv" "$root/run/sshd" "$root/run/lldpd"
chroot "$root" install -d -o frr -g frr -m 755 /run/frr /var/log/frr
chroot "$root" chown frr:frrvty /etc/frr
chroot "$root" ldconfig

# ---- manifest ------------------------------------------------------------------------
{
    printf '{\n  "recipe": "%s",\n  "suite": "%s",\n  "kernel": "%s",\n  "packages": {\n' \
        "$RECIPE" "$SUITE" "$release"
    # shellcheck disable=SC2016
    chroot "$root" dpkg-query -W -f '    "${Package}": "${Version}",\n' | sed '$s/,$//'
    printf '  }\n}\n'
} >"$OUT/manifest.json"

# ---- squashfs ------------------------------------------------------------------------
say squashfs
mksquashfs "$root" "$OUT/root.squashfs" -noappend -no-xattrs -comp lz4 -b 128K \
    -progress -wildcards -e \
    'proc/*' 'sys/*' 'dev/*' 'tmp/*' 'boot/*' 'var/cache/*' 'var/lib/apt/*' 'var/lib/dpkg/*' \
    'var/log/*.log' 'var/log/apt' 'usr/share/doc/*' 'usr/share/man/*' 'usr/share/locale/*' \
    'usr/share/perl*' 'usr/lib/*/perl/*' 'usr/lib/*/perl-base' 'usr/share/snmp' \
    'usr/lib/*/gconv' 'usr/share/bash-completion' 'usr/share/zsh' 'usr/share/common-licenses'
rm -rf "$work"
