#!/bin/sh
# Makes two images with Python and scikit-learn for tests: scripts/make-images.sh DIRECTORY
#
# DIRECTORY becomes an OCI layout. Both images are made of Debian's packages, cut to what a training needs, and share their
# lower layer; above it `debian` has Debian's scikit-learn and `newer` that of tests/image.txt. Does nothing if DIRECTORY
# was made by this script from the same files already. PYTHON names the Python whose pip is asked.
set -eu
cd "$(dirname "$0")/.."
layout=$1
PYTHON=${PYTHON:-python3}

# The last three are in the upper layer of `debian` alone.
base="libc6 libgcc-s1 libstdc++6 libgomp1 libgfortran5 libquadmath0 zlib1g libexpat1 libffi8 libbz2-1.0 liblzma5 dash
    python3.11-minimal libpython3.11-minimal libpython3.11-stdlib python3-minimal python3-distutils
    libblas3 liblapack3 liblbfgsb0 python3-numpy python3-scipy python3-decorator python3-joblib python3-threadpoolctl"
science="python3-sklearn python3-sklearn-lib"

made_from() { cat scripts/make-images.sh tests/image.txt; }

made_from | cmp -s - "$layout/made-from" 2>/dev/null && exit 0

part=$layout.part
rm -rf "$part" "$layout"
mkdir -p "$part/packages" "$part/base/var/lib/dpkg" "$part/debian/var/lib/dpkg" "$part/newer" "$part/blobs/sha256"
part=$(cd "$part" && pwd)

# A fresh system does not know yet which packages there are.
# shellcheck disable=SC2086
fetch() { (cd "$part/packages" && apt-get download -qq -o APT::Sandbox::User=root $base $science); }
fetch 2>/dev/null || { apt-get update -qq && fetch; }

# Puts the files of a package below a directory, and its name on the list of what is installed.
unpack() {
    for archive in "$part/packages/$1"_*.deb; do
        dpkg-deb --extract "$archive" "$part/$2"
        dpkg-deb --field "$archive" | sed 's/^Package: .*/&\nStatus: install ok installed/'
        echo
    done >>"$part/$2/var/lib/dpkg/status"
}

for package in $base; do unpack "$package" base; done
cp "$part/base/var/lib/dpkg/status" "$part/debian/var/lib/dpkg/status"
for package in $science; do unpack "$package" debian; done
"$PYTHON" -m pip install --quiet --disable-pip-version-check --no-deps --no-compile --only-binary :all: --require-hashes \
    --implementation cp --python-version 3.11 --platform "manylinux2014_$(uname -m)" \
    --target "$part/newer/usr/local/lib/python3.11/dist-packages" -r tests/image.txt

# What no step loads.
for root in base debian newer; do (
    cd "$part/$root"
    rm -rf usr/share usr/include usr/lib/*/gconv usr/lib/valgrind usr/lib/python3.11/dist-packages usr/lib/python3.11/config-*
    for module in curses dbm ensurepip idlelib lib2to3 pydoc_data sqlite3 test tkinter turtle.py turtledemo venv wsgiref; do
        rm -rf "usr/lib/python3.11/$module"
    done
    find . -depth -type d \( -name tests -o -name test -o -name doc -o -name f2py -o -name images -o -name misc -path '*scipy*' \) \
        -exec rm -rf {} +
    find . -type f \( -name '*.a' -o -name '*.c' -o -name '*.cpp' -o -name '*.h' -o -name '*.pxd' -o -name '*.pyi' -o -name '*.pyx' \
        -o -path '*/sklearn/datasets/*' ! -name '*.py' ! -name '*.so' -o -name '_codecs_*' -o -name '_test*.so' \) -delete
); done
# Here the package would let `update-alternatives` choose.
for name in blas lapack; do
    for library in "$part"/base/usr/lib/*/"$name/lib$name.so.3"; do
        ln -s "$name/lib$name.so.3" "${library%/"$name/lib$name.so.3"}/lib$name.so.3"
    done
done
mkdir -p "$part/base/etc" "$part/base/tmp"
printf 'root:x:0:0::/root:/bin/sh\nada:x:1000:1000::/home/ada:/bin/sh\n' >"$part/base/etc/passwd"

# Keeps what it is given as a blob, and prints its digest.
keep() {
    digest=$(sha256sum "$1" | cut -d ' ' -f 1)
    mv "$1" "$part/blobs/sha256/$digest"
    echo "sha256:$digest"
}

size() { wc -c <"$part/blobs/sha256/${1#sha256:}" | tr -d ' '; }

# Prints how a blob is described in a manifest.
described() { printf '{"mediaType":"application/vnd.oci.image.%s","digest":"%s","size":%s' "$1" "$2" "$(size "$2")"; }

for root in base debian newer; do
    tar --sort=name --mtime=@0 --owner=0 --group=0 --numeric-owner -C "$part/$root" -cf "$part/$root.tar" .
    sha256sum "$part/$root.tar" | cut -d ' ' -f 1 >"$part/$root.id"
    gzip -n "$part/$root.tar"
    keep "$part/$root.tar.gz" >"$part/$root.digest"
done
case $(uname -m) in aarch64) machine=arm64 ;; *) machine=amd64 ;; esac
manifests=
for upper in debian newer; do
    printf '{"architecture":"%s","os":"linux","config":{"Env":["PATH=/usr/bin:/bin","PYTHONDONTWRITEBYTECODE=1"],"User":"ada"},"rootfs":{"type":"layers","diff_ids":["sha256:%s","sha256:%s"]}}' \
        "$machine" "$(cat "$part/base.id")" "$(cat "$part/$upper.id")" >"$part/config"
    config=$(keep "$part/config")
    printf '{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","config":%s},"layers":[%s},%s}]}' \
        "$(described config.v1+json "$config")" \
        "$(described layer.v1.tar+gzip "$(cat "$part/base.digest")")" \
        "$(described layer.v1.tar+gzip "$(cat "$part/$upper.digest")")" >"$part/manifest"
    manifest=$(keep "$part/manifest")
    manifests="$manifests${manifests:+,}$(described manifest.v1+json "$manifest"),\"annotations\":{\"org.opencontainers.image.ref.name\":\"$upper\"}}"
done
printf '{"schemaVersion":2,"manifests":[%s]}' "$manifests" >"$part/index.json"
printf '{"imageLayoutVersion":"1.0.0"}' >"$part/oci-layout"
rm -rf "$part/packages" "$part/base" "$part/debian" "$part/newer" "$part"/*.id "$part"/*.digest
made_from >"$part/made-from"
mv "$part" "$layout"
