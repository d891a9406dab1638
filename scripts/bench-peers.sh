#!/bin/sh
# Installs the programs that `make bench` measures beside pv: scripts/bench-peers.sh DIRECTORY [xvc]
#
# DVC, Snakemake and ninja go into directories below DIRECTORY, by pip; restic and git are taken from the system, by
# apt-get where they are missing; Xvc only if asked for, because it is built from source for
# many minutes. What to set for the benchmark is said at the end.
set -eu
[ $# -ge 1 ] || { echo "usage: scripts/bench-peers.sh DIRECTORY [xvc]" >&2; exit 2; }
mkdir -p "$1"
place=$(cd "$1" && pwd)
python=${PYTHON:-python3}
dvc_version=3.67.1
snakemake_version=9.27.1
ninja_version=1.13.2
xvc_version=0.7.0

say() { echo "bench-peers: $*" >&2; }

if ! "$place/dvc/bin/dvc" --version 2>/dev/null | grep -qx "$dvc_version"; then
    "$python" -m venv "$place/dvc"
    "$place/dvc/bin/pip" install --quiet --disable-pip-version-check "dvc==$dvc_version"
fi

# Of their own: DVC and Snakemake ask for different versions of the same packages.
if ! "$place/steps/bin/snakemake" --version 2>/dev/null | grep -qx "$snakemake_version"; then
    "$python" -m venv "$place/steps"
    "$place/steps/bin/pip" install --quiet --disable-pip-version-check "snakemake==$snakemake_version" "ninja==$ninja_version"
fi

missing=
for program in git restic zstd; do
    command -v "$program" >/dev/null 2>&1 || missing="$missing $program"
done
if [ -n "$missing" ]; then
    if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null 2>&1; then
        apt-get update -qq >&2
        # The names of the programs are those of their packages.
        # shellcheck disable=SC2086
        DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $missing >&2
    else
        say "not installed, and left to you:$missing"
    fi
fi

if [ "${2:-}" = xvc ]; then
    # Without its clients for clouds it builds in a third of the time, and with its own lock file at all.
    cargo install xvc --version "$xvc_version" --locked --no-default-features --features bundled-sqlite --root "$place/xvc"
fi

say "now: PV_BENCH_PEERS_PATH=$place/dvc/bin:$place/steps/bin:$place/xvc/bin make bench"
