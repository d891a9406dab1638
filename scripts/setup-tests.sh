#!/bin/sh
# Makes the Python environment of the tests: scripts/setup-tests.sh DIRECTORY
#
# Does nothing if DIRECTORY was made from the same lock files already. As root, it also
# gets the programs that make file systems, those that are observed or tell what is to be observed, and a web server.
# Needs Python 3.10 to 3.13 with `venv`; PYTHON names one, else it is looked for. With npm it gets a server for
# Azure's interface too.
set -eu
cd "$(dirname "$0")/.."
venv=$1
stamp=$venv/made-from

say() { echo "setup-tests: $*" >&2; }

fits() {
    command -v "$1" >/dev/null 2>&1 &&
        "$1" -c 'import sys; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null
}

find_python() {
    for candidate in ${PYTHON:-python3 python3.13 python3.12 python3.11 python3.10}; do
        if fits "$candidate"; then
            echo "$candidate"
            return
        fi
    done
    say "no Python 3.10 to 3.13 was found (looked for: ${PYTHON:-python3 python3.10 ... python3.13})"
    say "install one, or name it: PYTHON=/path/to/python3 make test"
    return 1
}

# Debian ships `venv` without `ensurepip`, which it needs, unless python3-venv is installed.
have_venv() {
    "$1" -c 'import ensurepip, venv' 2>/dev/null && return
    say "$1 cannot make virtual environments"
    if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null 2>&1; then
        say "installing the package python3-venv"
        apt-get update -qq >&2 && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq python3-venv >&2
        "$1" -c 'import ensurepip, venv' 2>/dev/null && return
    fi
    say "install its module venv (on Debian and Ubuntu: apt-get install python3-venv), or name another: PYTHON=/path/to/python3 make test"
    return 1
}

# Power cuts and shared blocks are tested on file systems of these kinds, which only root can mount. What a
# step is seen to do is compared with what strace tells, also of a program that needs no library. Whether entropy can be
# pinned is asked of programs that everybody has, and of two that need not be there. Remotes are reached by
# ssh, and on the web they are read from nginx. Images come from a registry, into which skopeo puts them; podman and
# Docker run them too, the latter by a daemon that a test starts for itself.
# Steps that do not repeat are written in what pipelines are written in; of those only the languages themselves.
get_programs() {
    [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null 2>&1 || return 0
    get '' mkfs.ext4:e2fsprogs mkfs.xfs:xfsprogs mkfs.btrfs:btrfs-progs strace:strace busybox:busybox-static \
        uuidgen:uuid-runtime openssl:openssl sshd:openssh-server ssh:openssh-client nginx:nginx-light \
        docker-registry:docker-registry skopeo:skopeo podman:podman runc:runc dockerd:docker.io
    get --no-install-recommends cc:gcc c++:g++ make:make perl:perl sqlite3:sqlite3 zip:zip zstd:zstd curl:curl node:nodejs \
        java:default-jdk-headless Rscript:r-base-core validlocale:locales
    # A locale that sorts in another order than `C`.
    locale -a 2>/dev/null | grep -qix 'en_us\.utf-\?8' ||
        localedef -i en_US -f UTF-8 en_US.UTF-8 >/dev/null 2>&1 || say "the locale en_US.UTF-8 is not to be had; tests that need it say so"
}

get() {
    with=$1
    shift
    missing=
    for need in "$@"; do
        PATH=$PATH:/usr/sbin:/sbin command -v "${need%:*}" >/dev/null 2>&1 || missing="$missing ${need#*:}"
    done
    [ -z "$missing" ] && return
    say "installing$missing"
    # shellcheck disable=SC2086
    { apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq $with $missing; } >/dev/null 2>&1 ||
        say "they are not to be had; tests that need them say so"
}

made_from() {
    "$1" --version
    cat tests/requirements.txt tests/tools.txt tests/uv.txt tests/pip-tools.txt tests/servers/requirements.txt tests/servers/package-lock.json
}

install() {
    environment=$1
    shift
    "$environment/bin/python3" -m pip install --quiet --disable-pip-version-check --only-binary :all: --require-hashes "$@"
}

# Steps also run in images with a real training in them.
make_images() {
    PYTHON=$venv/bin/python3 sh scripts/make-images.sh "$venv/images" >&2 ||
        say "images of Debian's packages are not to be had; tests that need them say so"
}

get_programs
python=$(find_python)
if "$venv/bin/python3" -c '' 2>/dev/null && made_from "$python" | cmp -s - "$stamp"; then
    make_images
    exit 0
fi
have_venv "$python"
say "making $venv"
rm -rf "$venv"
"$python" -m venv "$venv"
install "$venv" -r tests/requirements.txt
make_images

# Two tools that are not part of a Rust toolchain. What is there already is taken as it is.
for tool in nextest deny; do
    cargo "$tool" --version >/dev/null 2>&1 && continue
    grep -A 100 "cargo-$tool==" tests/tools.txt | sed '/# via/q' >"$venv/$tool.txt"
    install "$venv" -r "$venv/$tool.txt" || say "cargo-$tool is not to be had for this platform; the checks go on without it"
done

# Makes Python environments, as many users have it. Under another name, since most tests are to find none.
"$python" -m venv "$venv/uv"
if install "$venv/uv" -r tests/uv.txt; then
    ln -s ../uv/bin/uv "$venv/bin/uv-of-tests"
else
    say "uv is not to be had for this platform; tests that need it say so"
fi

# Makes locks where there is no uv.
"$python" -m venv "$venv/pip-tools"
install "$venv/pip-tools" -r tests/pip-tools.txt
printf '#!/bin/sh\nexec "%s/pip-tools/bin/python3" "$@"\n' "$venv" >"$venv/bin/python-of-pip-tools"
chmod +x "$venv/bin/python-of-pip-tools"

# Servers that remotes are tested against. Those in Python have an environment of their own, so that what they need is
# not among the packages that pipelines of the tests see.
"$python" -m venv "$venv/servers"
install "$venv/servers" -r tests/servers/requirements.txt
# A link would be taken for the Python of the environment that the link is in.
printf '#!/bin/sh\nexec "%s/servers/bin/python3" "$@"\n' "$venv" >"$venv/bin/python-of-servers"
chmod +x "$venv/bin/python-of-servers"
if command -v npm >/dev/null 2>&1; then
    cp tests/servers/package.json tests/servers/package-lock.json "$venv/servers"
    if (cd "$venv/servers" && npm ci --silent --no-audit --no-fund --ignore-scripts) >&2; then
        ln -s ../servers/node_modules/.bin/azurite-blob "$venv/bin/azurite-blob"
    else
        say "the servers of tests/servers are not to be had; tests that need them say so"
    fi
else
    say "npm is not here; tests that need the servers of tests/servers say so"
fi
made_from "$python" >"$stamp"
