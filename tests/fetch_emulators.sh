#!/bin/sh
# Unpacks into a folder what the emulated tests need and the PATH lacks, without root: Debian's cross compiler for
# AArch64, and qemu's user-mode emulators (from the backports where there are any: qemu knows SHA-NI since version 10).
set -eu
have() { for name; do command -v "$name" >/dev/null && return; done; return 1; }
compiler=yes emulators=yes
have aarch64-linux-gnu-g++ || compiler=
{ have qemu-aarch64 qemu-aarch64-static && have qemu-x86_64 qemu-x86_64-static; } || emulators=
[ -z "$compiler" ] || [ -z "$emulators" ] || exit 0
have apt-get || { echo "Without apt, install g++ for AArch64 and qemu's user-mode emulators yourself." >&2; exit 1; }

mkdir -p "$1/apt/lists/partial" "$1/apt/archives/partial"
cd "$1"
apt="apt-get -qq -o Debug::NoLocking=1 -o APT::Sandbox::User=root -o Dir::State::lists=$PWD/apt/lists"
apt="$apt -o Dir::Cache=$PWD/apt -o Dir::Cache::archives=$PWD/apt/archives"
fetch() { $apt -y --no-install-recommends --download-only install "$@" >/dev/null; }
$apt update
[ "$compiler" ] || fetch g++-aarch64-linux-gnu
if [ -z "$emulators" ]; then
  release=$(. /etc/os-release && echo "$VERSION_CODENAME")
  uri=$($apt indextargets --format '$(REPO_URI)' 'Created-By: Packages' "Codename: $release" | head -n 1)
  echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $uri $release-backports main" >apt/backports.list
  stable=$apt
  apt="$apt -o Dir::Etc::sourcelist=$PWD/apt/backports.list -o APT::Get::List-Cleanup=0"
  $apt -o Dir::Etc::sourceparts=- update && fetch -t "$release-backports" qemu-user-static ||
    { apt=$stable && fetch qemu-user-static; }
fi
for package in apt/archives/*.deb; do dpkg -x "$package" .; done
rm -rf apt
find usr/bin -name 'qemu-*' ! -name '*aarch64*' ! -name '*x86_64*' -delete
