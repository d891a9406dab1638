#!/bin/sh
# The main job of `pv` from start to end, on a real pipeline, in a scratch directory.
#
#   PV=target/release/pv sh scripts/demo.sh      (or: make demo)
#   KEEP=1 keeps the directory, to look around in it.
#
# Nothing of the user's is touched: home, Git's configuration and identity are the demo's own.
set -eu
here=$(cd "$(dirname "$0")/.." && pwd)
pv=${PV:-$here/target/release/pv}
pv=$(cd "$(dirname "$pv")" && pwd)/$(basename "$pv")
[ -x "$pv" ] || { echo "there is no program $pv: build it with \`make build\`, or name another in PV" >&2; exit 2; }

scratch=$(mktemp -d "${TMPDIR:-/tmp}/pv-demo.XXXXXX")
leave() {
    code=$?
    if [ "${KEEP:-}" = 1 ]; then
        echo
        echo "kept: $scratch"
    else
        rm -rf "$scratch"
    fi
    [ "$code" = 0 ] || echo "the demo stopped with exit code $code" >&2
}
trap leave EXIT
trap 'exit 130' INT TERM

mkdir "$scratch/home" "$scratch/bin"
ln -s "$pv" "$scratch/bin/pv"
for name in $(env | sed -n 's/^\(GIT_[A-Z_]*\)=.*/\1/p; s/^\(PV_[A-Z_]*\)=.*/\1/p'); do
    unset "$name"
done
export HOME="$scratch/home" XDG_CONFIG_HOME="$scratch/home/.config" GIT_CONFIG_NOSYSTEM=1 GIT_PAGER=cat PAGER=cat
export PATH="$scratch/bin:$PATH"
git config --global user.name "Ada Example"
git config --global user.email ada@example.org
git config --global init.defaultBranch main
git config --global advice.detachedHead false

chapter() {
    echo
    echo "# $*"
}

# Prints a command as one would type it, then runs it.
show() {
    line='$'
    for word in "$@"; do
        case $word in
        *[!A-Za-z0-9._/:=@%+,-]*) line="$line '$word'" ;;
        *) line="$line $word" ;;
        esac
    done
    echo
    echo "$line"
    "$@"
}

# sed -i means different things on Linux and on macOS.
edit() {
    sed "$1" "$2" >"$scratch/edited"
    if cmp -s "$scratch/edited" "$2"; then
        echo "the edit $1 changed nothing in $2" >&2
        exit 1
    fi
    cat "$scratch/edited" >"$2"
}

chapter "A pipeline in a Git repository: orders become a clean database, in three steps"
cp -R "$here/fixtures/lesson" "$scratch/orders"
rm -rf "$scratch/orders/work"
cd "$scratch/orders"
show git init --quiet
show git add .
show git commit --quiet -m "orders: extract, transform, load"
show cat .pipeline/pipeline.yaml

chapter "Snapshot it, name the snapshot, run it"
show pv init
show pv snapshot --tag v1.0
show pv run
show cat work/summary.json
cp work/orders.db "$scratch/orders-of-v1.0.db"

chapter "A setting changes, and so does a line of code"
edit 's/min_amount: 10 /min_amount: 20 /' params.yaml
edit 's/"EURO": "EUR",/"EURO": "EUR", "EUROS": "EUR",/' steps/transform.py
show git diff --unified=0
show git commit --quiet --all -m "transform: a higher minimum, and one more spelling of the euro"
show pv status
show pv snapshot --tag v1.1
show pv run

chapter "What changed between the two, and what did it do to the results?"
show pv diff v1.0 v1.1

chapter "The old version again, bit for bit, while the new one stays checked out"
show pv --quiet run v1.0
id=$(pv show v1.0 | grep -Eo '[0-9a-f]{12,64}' | head -n 1 | cut -c 1-12)
show pv --quiet run "$id"

chapter "Somebody else's clone computes the same id: it depends on content alone"
show git clone --quiet --branch v1.0 "$scratch/orders" "$scratch/clone"
cd "$scratch/clone"
show pv status

chapter "With the records it also knows what came out, and comes to the same bytes"
show git fetch --quiet origin +refs/pv/meta:refs/pv/meta
show pv --quiet run v1.0 --restore
show cmp work/orders.db "$scratch/orders-of-v1.0.db"
echo "(no difference)"
cd "$scratch/orders"

chapter "One file of an old version"
show pv checkout v1.0 work/orders.db
show cmp work/orders.db "$scratch/orders-of-v1.0.db"
echo "(no difference)"

chapter "From now on every commit is linked to its snapshot"
show pv hooks install
edit 's/min_amount: 20 /min_amount: 15 /' params.yaml
show git commit --quiet --all -m "params: a minimum of 15"
show pv log
