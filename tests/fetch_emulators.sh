#!/bin/sh
# Unpacks into a folder what the emulated tests need and the PATH lacks, without root: Debian's cross compiler for AArch64,
# and qemu's user-mode emulators (from the backports where there are any: qemu knows SHA-NI since version 10).
set -eu
mkdir -p "$1/apt/lists/partial" "$1/apt/archives/partial"
cd "$1"
have() { for name; do command -v "$name" >/dev/null && return; done; return 1; }
have apt-get dpkg || { echo "Without apt, install g++-aarch64-linux-gnu and qemu-user-static yourself." >&2; exit 1; }
apt="apt-get -qq -o Debug::NoLocking=1 -o APT::Sandbox::User=root -o Dir::State::lists=$PWD/apt/lists \
     -o Dir::Cache=$PWD/apt -o Dir::Cache::archives=$PWD/apt/archives"
fetch() { $apt -y --no-install-recommends --download-only install "$@" >/dev/null; }

$apt update
have aarch64-linux-gnu-g++ || fetch g++-aarch64-linux-gnu
if ! { have qemu-aarch64 qemu-aarch64-static && have qemu-x86_64 qemu-x86_64-static; }; then
  release=$(. /etc/os-release && echo "$VERSION_CODENAME")
  archive=$($apt indextargets --format '$(REPO_URI)' 'Created-By: Packages' "Codename: $release" 'Component: main' | head -n 1)
  echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $archive $release-backports main" >backports.list
  stable=$apt
  apt="$apt -o Dir::Etc::sourcelist=$PWD/backports.list -o APT::Get::List-Cleanup=0"
  $apt -o Dir::Etc::sourceparts=- update && fetch -t "$release-backports" qemu-user-static || { apt=$stable; fetch qemu-user-static; }
fi
for package in apt/archives/*.deb; do [ ! -e "$package" ] || dpkg -x "$package" .; done
rm -rf apt
