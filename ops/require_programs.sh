#!/bin/sh
# Makes sure that programs are there which no Python package brings: require_programs.sh PROGRAM=DEBIAN_PACKAGE …
# What is missing is installed when this runs as root on a Debian system, else its packages are named.
set -eu

missing=""
for pair in "$@"; do
  command -v "${pair%%=*}" >/dev/null || missing="$missing ${pair#*=}"
done
[ -n "$missing" ] || exit 0
missing=$(printf '%s\n' $missing | sort -u | tr '\n' ' ')

if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
  echo "installing: $missing"
  apt-get update -qq
  # Recommended packages would bring services that nothing here needs.
  DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $missing
else
  echo "missing: install the Debian packages $missing(as root, make installs them by itself)" >&2
  exit 1
fi
