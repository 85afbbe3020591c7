#!/bin/sh
# Builds the switch image: kernel, initrd, root.squashfs and manifest.json in $OUT.
# `ikv-fabric image build` calls it with these variables:
#   OUT      an existing, empty directory
#   SUITE    Debian's code name
#   SOURCES  a deb822 .sources file
#   APTCONF  apt options such as proxies, one per line in the form of apt.conf
#   RECIPE   the recipe's hash, for the manifest
# Prints "ikv-stage: NAME" when a stage begins. Needs the rights that mmdebstrap needs (root, or a
# user namespace), but no loop device, and leaves no mount behind.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
export OUT SUITE RECIPE

say() { echo "ikv-stage: $*"; }

include=$(sed -e 's/#.*//' -e '/^ *$/d' "$here/packages.txt" | paste -sd,)

say packages
# mmdebstrap replaces this process, which ends together with its caller.
exec mmdebstrap --format=null --variant=essential --verbose \
    --aptopt='Apt::Install-Recommends "false"' --aptopt="$APTCONF" \
    --dpkgopt=force-unsafe-io \
    --dpkgopt='path-exclude=/usr/share/doc/*' --dpkgopt='path-exclude=/usr/share/man/*' \
    --dpkgopt='path-exclude=/usr/share/info/*' --dpkgopt='path-exclude=/usr/share/locale/*' \
    --include="$include" \
    --customize-hook="sh '$here/customize.sh' \"\$1\"" \
    "$SUITE" /dev/null "$SOURCES"
