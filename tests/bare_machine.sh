#!/usr/bin/env bash
# The README's promise, kept on a bare machine: a fresh Debian 12 (debootstrap's smallest) in a folder of
# its own, the repository's HEAD cloned into it, the two commands of the README run there and timed.
#
# usage, as root: tests/bare_machine.sh [--cache FILE] [COMMAND...]
#   --cache FILE  keeps the bare system as a tar file there, and starts from it when it exists
#   COMMAND       instead of './dev demo' './dev test'
# MIRROR=URL is where the packages come from; without it, where this machine gets Debian 12's.
# TMPDIR (default /var/tmp) needs about 4 GB for the time of the run.
set -euo pipefail

die() { echo "bare_machine: $*" >&2; exit 1; }

((EUID == 0)) || die "debootstrap and chroot need root"
for tool in debootstrap git unshare; do
  command -v "$tool" >/dev/null || die "$tool is not installed"
done
# A mount and a process namespace of its own: nothing mounted or started below outlives it.
if [[ ! ${BARE_MACHINE_INSIDE:-} ]]; then
  BARE_MACHINE_INSIDE=1 exec unshare --mount --pid --fork --kill-child -- bash "$(realpath "$0")" "$@"
fi

repository=$(realpath "$(dirname "$0")/..")
cache=
if [[ ${1:-} == --cache ]]; then
  cache=$(realpath "${2:?--cache needs a file}")
  shift 2
fi
(($#)) || set -- './dev demo' './dev test'

root=$(mktemp -d "${TMPDIR:-/var/tmp}/bare-machine.XXXXXX")
# shellcheck disable=SC2317
clean_up() {
  umount "$root/proc" "$root/sys" "$root/dev/shm" "$root/dev/pts" 2>/dev/null || true
  rm -rf --one-file-system "$root"
}
trap clean_up EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP

# ---- a bare Debian 12 ----

# uris SUITE: where this machine gets it, read by apt itself, whichever form its sources are written in.
uris() {
  apt-get --print-uris update 2>/dev/null | sed -n "s|^'\(.*\)/dists/$1/main/binary-.*|\1|p"
}
mirror=${MIRROR:-$(uris bookworm | sed -n 1p)}
[[ $mirror ]] || die "this machine has no source of Debian 12's packages: set MIRROR"
# debootstrap reads the proxy from the environment, apt from its configuration as well.
[[ ${http_proxy:-} ]] || eval "$(apt-config shell http_proxy Acquire::http::Proxy)"
[[ ${https_proxy:-} ]] || eval "$(apt-config shell https_proxy Acquire::https::Proxy)"
[[ ! ${http_proxy:-} ]] || export http_proxy
[[ ! ${https_proxy:-} ]] || export https_proxy

SECONDS=0
if [[ $cache && -e $cache ]]; then
  tar -C "$root" -xf "$cache" --numeric-owner
else
  debootstrap --variant=minbase bookworm "$root" "$mirror" >"$root.log" 2>&1 ||
    { tail -n 20 "$root.log" "$root/debootstrap/debootstrap.log" >&2 || true; rm -f "$root.log"; die "debootstrap failed"; }
  rm -f "$root.log"
  rm -f "$root"/var/cache/apt/archives/*.deb
  if [[ $cache ]]; then
    tar -C "$root" -cf "$cache.partial" --numeric-owner . && mv "$cache.partial" "$cache"
  fi
fi
chmod 755 "$root"  # apt's own user reads there; mktemp and the tar file say 700
echo "bare_machine: Debian $(cat "$root/etc/debian_version") of $(du -shx "$root" | cut -f 1) in $SECONDS s"

# ---- its network: this machine's (copied only now: no password goes into the cache) ----

{
  echo "deb $mirror bookworm main"
  if [[ ! ${MIRROR:-} ]]; then
    for suite in bookworm-updates bookworm-security; do
      uris "$suite" | sort -u | sed "s/^/deb /; s/\$/ $suite main/"
    done
  fi
} >"$root/etc/apt/sources.list"
# How to reach it, as one flat file: proxies, certificates, dates. Not the hooks of this machine's programs.
# shellcheck disable=SC2016
apt-config dump --format '%f "%V";%n' |
  grep -E '^Acquire::(https?|Check-|Retries|ForceIPv|By-Hash|Languages)' >"$root/etc/apt/apt.conf.d/99machine" || true
for name in auth.conf auth.conf.d trusted.gpg.d keyrings; do
  [[ ! -e /etc/apt/$name ]] || cp -rnL "/etc/apt/$name" "$root/etc/apt/"
done
cp -L /etc/resolv.conf /etc/hosts "$root/etc/"
if grep -q https: "$root/etc/apt/sources.list" && [[ -e /etc/ssl/certs/ca-certificates.crt ]]; then
  install -D -m 644 /etc/ssl/certs/ca-certificates.crt "$root/etc/ssl/certs/ca-certificates.crt"
fi

# ---- the clone, and nothing beside it ----

[[ -z $(git -C "$repository" status --porcelain) ]] ||
  echo "bare_machine: NOTE: only what is committed is tried; there are changes that are not"
git clone --quiet --no-hardlinks "$repository" "$root/root/longwave"
echo "bare_machine: commit $(git -C "$root/root/longwave" rev-parse --short HEAD)"
[[ ! -e $root/root/shared ]] || die "there is a shared/ beside the clone"

mount -t proc proc "$root/proc"
mount -t sysfs -o ro sysfs "$root/sys"
mkdir -p "$root/dev/shm" && mount -t tmpfs -o mode=1777 tmpfs "$root/dev/shm"
mkdir -p "$root/dev/pts" && mount -t devpts -o newinstance,ptmxmode=0666,mode=620 devpts "$root/dev/pts"
ln -sf pts/ptmx "$root/dev/ptmx"

environment=(HOME=/root PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin TERM=dumb)
for name in http_proxy https_proxy no_proxy HTTP_PROXY HTTPS_PROXY NO_PROXY; do
  [[ ! ${!name:-} ]] || environment+=("$name=${!name}")
done

summary=() worst=0
for command; do
  printf '\nbare_machine: %s\n' "$command"
  SECONDS=0 status=0
  env -i "${environment[@]}" chroot "$root" bash -c "cd /root/longwave && $command" </dev/null || status=$?
  summary+=("$command: $SECONDS s, exit $status")
  ((status == 0)) || worst=1
done
printf '\nbare_machine: %s in the end, %s of it the clone and its build\n' \
  "$(du -shx "$root" | cut -f 1)" "$(du -shx "$root/root/longwave" | cut -f 1)"
printf '%s\n' "${summary[@]}"
exit $worst
