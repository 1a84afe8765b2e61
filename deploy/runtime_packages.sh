#!/bin/sh
# usage: runtime_packages.sh PROGRAM; the packages of the libraries that it loads, one a line, with their versions.
set -eu
ldd "$1" | awk '/not found/ { print "runtime_packages: " $1 " was not found" >"/dev/stderr"; exit 1 } $3 ~ /^\// { print $3 }' |
  while read -r path; do
    # /lib is a link to /usr/lib; dpkg knows a file by either name.
    real=$(readlink -f "$path")
    dpkg-query -S "$real" 2>/dev/null || dpkg-query -S "${real#/usr}" || exit 1
  done | cut -d: -f1 | sort -u
