"""Compute the id of a snapshot from a directory, independently of the program.

Written from docs/format.md alone, so that an error in the program's encoding,
or a page that no longer tells the truth, shows as two ids that differ.

usage: snapshot_id.py DIRECTORY --definition FILE --params FILE --environment FILE
                      --seed N|none [--exclude PATH...] [--data PATH...]

Prints one line each for tree, data roots, definition, params, environment and
snapshot: the word, for data roots the path, and the id. The three files are
any JSON; they are brought into canonical form here.
"""

import argparse
import json
import os
import struct
import subprocess
import sys

from blake3 import blake3

FILE, EXECUTABLE, LINK, DIRECTORY, SUBMODULE = 1, 2, 3, 4, 5
NODE_ENTRIES_MAX = 16_384


def derived(kind, data):
    return blake3(data, derive_key_context=f"pv {kind} v1").digest()


def text(data):
    return struct.pack("<H", len(data)) + data


# Directories


def directory_id(entries):
    """Return the id and (files, bytes) of a directory.

    `entries` maps each name to its tag, what the tag says, and (files, bytes).
    """
    nodes = [
        (name, 1, files, size, bytes([tag]) + text(name) + rest)
        for name, (tag, rest, (files, size)) in sorted(entries.items())
    ]
    level = 0
    while True:
        groups = list(cut(nodes, level)) or [[]]
        parents = []
        for group in groups:
            encoded = struct.pack("<BI", level, len(group)) + b"".join(part for *_, part in group)
            node = derived("tree", encoded)
            name = group[-1][0] if group else b""
            count, files, size = (sum(member[index] for member in group) for index in (1, 2, 3))
            parents.append((name, count, files, size, text(name) + struct.pack("<QQQ", count, files, size) + node))
        if len(groups) == 1:
            return node, (files, size)
        nodes, level = parents, level + 1


def cut(members, level):
    """Yield the members of each node of one level."""
    group = []
    for member in members:
        group.append(member)
        first = int.from_bytes(blake3(member[0]).digest()[:8], "little")
        ends = first % 2 ** (10 * (level + 1)) == 0
        if ends or len(group) == NODE_ENTRIES_MAX:
            yield group
            group = []
    if group:
        yield group


def entry(path, skipped, seen_by_git):
    """Return tag, rest and size of what is at `path`, or None if it is left out.

    Git sees submodules and no empty directories; a data root is taken as it lies.
    """
    if os.path.islink(path):
        return LINK, text(os.readlink(path)), (1, 0)
    if os.path.isfile(path):
        with open(path, "rb") as file:
            data = file.read()
        tag = EXECUTABLE if os.stat(path).st_mode & 0o100 else FILE
        return tag, struct.pack("<Q", len(data)) + blake3(data).digest(), (1, len(data))
    if not os.path.isdir(path):
        return None
    if os.path.lexists(os.path.join(path, b".git")) and seen_by_git:
        head = subprocess.run(["git", "-C", path, "rev-parse", "HEAD"], capture_output=True, check=True)
        return SUBMODULE, text(bytes.fromhex(head.stdout.decode())), (0, 0)
    entries = directory(path, skipped, seen_by_git)
    if not entries and seen_by_git:
        return None
    node, sized = directory_id(entries)
    return DIRECTORY, struct.pack("<QQ", *sized) + node, sized


def directory(path, skipped, seen_by_git):
    """Return the entries of a directory on disk."""
    entries = {}
    for name in os.listdir(path):
        below = os.path.join(path, name)
        found = None if below in skipped else entry(below, skipped, seen_by_git)
        if found:
            entries[name] = found
    return entries


# Snapshot


def data_root(root, path):
    """Return the encoded data root and its id."""
    tag, rest, (files, size) = entry(os.path.join(root, path), set(), seen_by_git=False)
    content = rest[-32:]
    return bytes([tag]) + text(path) + struct.pack("<QQ", files, size) + content, content


def snapshot_id(definition, tree, data_roots, params, seed, environment):
    """Return the id of a snapshot. `data_roots` are encoded and sorted by path."""
    return derived("snapshot", b"".join([
        definition,
        tree,
        struct.pack("<I", len(data_roots)),
        *data_roots,
        params,
        struct.pack("<BQ", seed is not None, seed or 0),
        environment,
    ]))


# Canonical JSON


def read_json(data):
    def integer(digits):
        value = int(digits)
        return value if -(2**63) <= value < 2**64 and digits != "-0" else float(digits)

    def members(pairs):
        if len(dict(pairs)) < len(pairs):
            raise ValueError("a key occurs twice")
        return dict(pairs)

    return json.loads(data, parse_int=integer, object_pairs_hook=members)


def canonical(value):
    """Return the one JSON text of a value, as bytes."""
    if value is None or isinstance(value, bool):
        return {None: b"null", True: b"true", False: b"false"}[value]
    if isinstance(value, int):
        return str(value).encode()
    if isinstance(value, float):
        if value - value != 0:
            raise ValueError("a float is not finite")
        return b'{"$float":"%s"}' % struct.pack(">d", value).hex().encode()
    if isinstance(value, str):
        return b'"%s"' % "".join(map(escape, value)).encode()
    if isinstance(value, list):
        return b"[%s]" % b",".join(map(canonical, value))
    # Python orders texts by code point, which is the order of their UTF-8 bytes.
    return b"{%s}" % b",".join(
        canonical("$" + key if key.startswith("$") else key) + b":" + canonical(member)
        for key, member in sorted(value.items())
    )


def escape(character):
    if character in '"\\':
        return "\\" + character
    return f"\\u{ord(character):04x}" if ord(character) < 0x20 or ord(character) == 0x7F else character


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("directory", type=os.fsencode)
    parser.add_argument("--exclude", nargs="*", default=[], type=os.fsencode, metavar="PATH")
    parser.add_argument("--data", nargs="*", default=[], type=os.fsencode, metavar="PATH")
    for name in ("definition", "params", "environment"):
        parser.add_argument(f"--{name}", required=True, type=argparse.FileType("rb"), metavar="FILE")
    parser.add_argument("--seed", required=True, type=lambda seed: None if seed == "none" else int(seed))
    return parser.parse_args()


def main():
    given = arguments()
    left_out = [b".git", b".pipeline/data", *given.exclude, *given.data]
    skipped = {os.path.join(given.directory, os.path.normpath(path)) for path in left_out}
    tree, _ = directory_id(directory(given.directory, skipped, seen_by_git=True))
    print("tree", tree.hex())
    roots = []
    for path in sorted(map(os.path.normpath, given.data)):
        encoded, content = data_root(given.directory, path)
        roots.append(encoded)
        print("data", os.fsdecode(path), content.hex())
    ids = {}
    for name in ("definition", "params", "environment"):
        ids[name] = derived(name, canonical(read_json(getattr(given, name).read())))
        print(name, ids[name].hex())
    snapshot = snapshot_id(ids["definition"], tree, roots, ids["params"], given.seed, ids["environment"])
    print("snapshot", snapshot.hex())


if __name__ == "__main__":
    sys.exit(main())
