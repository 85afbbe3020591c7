#!/bin/sh
# Packs a program that has been built as a Debian package.
#
#   packaging/deb.sh PROGRAM FOLDER
#
# makes FOLDER/ikv-fabric_VERSION_ARCHITECTURE.deb and prints its path. It needs dpkg-dev and binutils, no root and no
# network. The program itself says what is in its manual, its completions, its example configuration, and which
# packages it needs. $DEBFULLNAME and $DEBEMAIL name the maintainer; $SOURCE_DATE_EPOCH dates the files; $LEVEL is that
# of compression, 0 to 9.
set -eu
umask 022
export LC_ALL=C

if [ $# -ne 2 ] || [ ! -x "$1" ]; then
  echo "usage: packaging/deb.sh PROGRAM FOLDER   (PROGRAM: target/release/ikv-fabric after make)" >&2
  exit 2
fi
for tool in dpkg-shlibdeps:dpkg-dev dpkg-deb:dpkg strip:binutils gzip:gzip; do
  if ! command -v "${tool%%:*}" >/dev/null; then
    echo "packaging/deb.sh: ${tool%%:*} is missing: apt install ${tool##*:}" >&2
    exit 1
  fi
done

here=$(dirname "$(readlink -f "$0")")
folder=$2
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
trap 'exit 1' HUP INT TERM
root=$work/root
: "${SOURCE_DATE_EPOCH:=$(git -C "$here" log -1 --format=%ct 2>/dev/null || date +%s)}"
export SOURCE_DATE_EPOCH

# file FILE PATH [MODE]: a file of the package; packed: compressed.
file() {
  install -D -m "${3:-644}" "$1" "$root/$2"
}
packed() {
  file "$1" "$2"
  gzip -9n "$root/$2"
}

# The program.
file "$1" usr/bin/ikv-fabric 755
strip --strip-unneeded --remove-section=.comment --remove-section=.note "$root/usr/bin/ikv-fabric"
program=$root/usr/bin/ikv-fabric
version=$("$program" --version | cut -d' ' -f2)
architecture=$(dpkg --print-architecture)
maintainer="${DEBFULLNAME:-The authors of ikv-fabric} <${DEBEMAIL:-ikv-fabric@users.noreply.github.com}>"

# Its manual and completions.
"$program" man-page >"$work/pages"
while read -r page; do
  "$program" man-page "$page" >"$work/page"
  packed "$work/page" "usr/share/man/man1/$page.1"
done <"$work/pages"
for shell in bash/bash-completion/completions/ikv-fabric zsh/zsh/vendor-completions/_ikv-fabric \
  fish/fish/vendor_completions.d/ikv-fabric.fish; do
  "$program" completions "${shell%%/*}" >"$work/script"
  file "$work/script" "usr/share/${shell#*/}"
done

# The service, and its configuration: every key as a comment, so that what nobody has changed follows the program.
file "$here/ikv-fabric.service" usr/lib/systemd/system/ikv-fabric.service
{
  echo "# The configuration of ikv-fabric.service (systemctl start ikv-fabric). Every key is a comment that shows its"
  echo "# default: take the # away in front of what you change. This file is read by root alone, as passwords may be in it."
  echo "#"
  "$program" config example | sed 's/^[^#[]/#&/'
} >"$work/fabric.toml"
file "$work/fabric.toml" etc/ikv-fabric/fabric.toml 640

# Its papers.
doc=usr/share/doc/ikv-fabric
file "$here/copyright" "$doc/copyright"
packed "$here/../README.md" "$doc/README.md"
packed "$here/../CHANGELOG.md" "$doc/NEWS.md"
{
  echo "ikv-fabric ($version) unstable; urgency=medium"
  echo
  echo "  * Version $version: see NEWS.md."
  echo
  echo " -- $maintainer  $(date -u -R -d "@$SOURCE_DATE_EPOCH")"
} >"$work/changelog"
packed "$work/changelog" "$doc/changelog"
file "$here/lintian-overrides" usr/share/lintian/overrides/ikv-fabric

# The libraries that it is linked with, and the packages that `ikv-fabric setup` would install.
mkdir "$work/debian"
printf 'Source: ikv-fabric\n\nPackage: ikv-fabric\nArchitecture: any\n' >"$work/debian/control"
libraries=$(cd "$work" && dpkg-shlibdeps -O "-e$program" 2>"$work/errors") || {
  cat "$work/errors" >&2
  exit 1
}
libraries=${libraries#shlibs:Depends=}
# Essential packages are not named (Debian Policy, 3.5).
packages=$("$program" setup --list | sed '/^util-linux$/d' | tr '\n' ',' | sed 's/,$//; s/,/, /g')

mkdir "$root/DEBIAN"
cat >"$root/DEBIAN/control" <<EOF
Package: ikv-fabric
Version: $version
Architecture: $architecture
Maintainer: $maintainer
Installed-Size: $(du -k -s "$root" | cut -f1)
Depends: $libraries, $packages
Suggests: openipmi, wireshark, bash-completion
Section: net
Priority: optional
Homepage: https://github.com/ikv-fabric/ikv-fabric
Description: virtual datacenter in one process
 Racks, leaves and spines of real switch VMs (QEMU, FRRouting, dnsmasq), wired
 at layer 2 by a patch panel in one process, and ready for your own VMs to plug
 in: taps and vhost-user sockets, BGP down to every host, DHCP with PXE.
 .
 Cables can be cut, impaired and captured while the datacenter runs. All of it
 is taken away when it ends.
EOF
echo /etc/ikv-fabric/fabric.toml >"$root/DEBIAN/conffiles"
for script in postinst prerm postrm; do
  install -m 755 "$here/$script" "$root/DEBIAN/$script"
done
(cd "$root" && find . -type f ! -path './DEBIAN/*' ! -path './etc/*' -printf '%P\n' | sort | xargs -d '\n' md5sum) \
  >"$root/DEBIAN/md5sums"
chmod 644 "$root/DEBIAN/md5sums"

mkdir -p "$folder"
deb=$folder/ikv-fabric_${version}_$architecture.deb
dpkg-deb --root-owner-group -Zxz "-z${LEVEL:-6}" --build "$root" "$deb" >/dev/null
echo "$deb"
