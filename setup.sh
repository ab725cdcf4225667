#!/bin/sh
# Installs the packages that building and testing need (Debian 12 or 13, Ubuntu 24.04; as root or with sudo).
set -eu
packages="build-essential cmake ninja-build pkg-config libdnnl-dev libcjson-dev libjpeg-dev libpng-dev zlib1g-dev libopenmpi-dev openmpi-bin"
missing=""
for p in $packages; do
    [ "$(dpkg-query -W -f='${db:Status-Status}' "$p" 2>/dev/null)" = installed ] || missing="$missing $p"
done
[ -n "$missing" ] || exit 0
[ "$(id -u)" = 0 ] && sudo="" || sudo="sudo"
echo "installing:$missing"
$sudo apt-get update -qq
# shellcheck disable=SC2086
$sudo env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $missing
