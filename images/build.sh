#!/bin/sh
# Builds the switch image: kernel, initrd, root.squashfs and manifest.json in $OUT.
# Called by `ikv-fabric image build` with
#   OUT      an existing, empty directory
#   SUITE    Debian's code name
#   SOURCES  a deb822 .sources file
#   APTCONF  apt options (proxies and the like), one a line as apt.conf has them
#   RECIPE   the recipe's hash, for the manifest
# Prints "ikv-stage: NAME" when a stage begins. Needs no loop device and no mount that
# outlives it; root, or whatever else mmdebstrap is content with.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
export OUT SUITE RECIPE

say() { echo "ikv-stage: $*"; }

include=$(sed -e 's/#.*//' -e '/^ *$/d' "$here/packages.txt" | paste -sd,)

say packages
# In the place of this process, which ends with its caller.
exec mmdebstrap --format=null --variant=essential --verbose \
    --aptopt='Apt::Install-Recommends "false"' --aptopt="$APTCONF" \
    --dpkgopt=force-unsafe-io \
    --dpkgopt='path-exclude=/usr/share/doc/*' --dpkgopt='path-exclude=/usr/share/man/*' \
    --dpkgopt='path-exclude=/usr/share/info/*' --dpkgopt='path-exclude=/usr/share/locale/*' \
    --include="$include" \
    --customize-hook="sh '$here/customize.sh' \"\$1\"" \
    "$SUITE" /dev/null "$SOURCES"
