"""Hold tests/snapshot_id.py against the frozen ids of the program's own tests."""

import os
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path

import snapshot_id
from snapshot_id import DIRECTORY, FILE, LINK, canonical, derived, directory_id, read_json, text
from blake3 import blake3

GIT = {**os.environ, "GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_SYSTEM": os.devnull}


def file_entry(data):
    return FILE, len(data).to_bytes(8, "little") + blake3(data).digest(), (1, len(data))


def ends_node(name):
    return int.from_bytes(blake3(name).digest()[:8], "little") % 1024 == 0


class Directories(unittest.TestCase):
    def setUp(self):
        scratch = tempfile.TemporaryDirectory()
        self.addCleanup(scratch.cleanup)
        self.root = Path(scratch.name)

    def id_on_disk(self):
        node, sized = directory_id(snapshot_id.directory(os.fsencode(self.root), set(), seen_by_git=True))
        return node.hex(), sized

    def test_an_empty_directory_has_the_id_on_the_page(self):
        self.assertEqual(directory_id({})[0].hex(), "11c46ed7d369f33a4442da710a39756785f948e15f475fba4244e443c31a5265")

    def test_a_real_directory_of_every_kind_of_entry_has_its_golden_id(self):
        (self.root / "a.txt").write_bytes(b"hello\n")
        (self.root / "data").mkdir()
        (self.root / "data" / "x.csv").write_bytes(b"1,2\n")
        (self.root / "link").symlink_to("a.txt")
        (self.root / "run.sh").write_bytes(b"ls\n")
        (self.root / "run.sh").chmod(0o755)
        subprocess.run(["git", "init", "--quiet", self.root / "vendor"], check=True, env=GIT)
        (self.root / "vendor" / ".git" / "HEAD").write_text("07" * 20 + "\n")
        entries = snapshot_id.directory(os.fsencode(self.root), set(), seen_by_git=True)
        # Not every file system takes a name that is not UTF-8.
        entries[b"\xff\xfe"] = file_entry(b"")
        node, sized = directory_id(entries)
        self.assertEqual(sized, (5, 13))
        self.assertEqual(node.hex(), "c07dcabad038f6f54068accab6e871b822aa3ba812a3b92e8dc87a1d11c52f2b")

    def test_a_real_directory_of_20_000_files_is_split_and_has_its_golden_id(self):
        for number in range(20_000):
            (self.root / f"image-{number:06}.png").write_text(str(number))
        node, (files, _) = self.id_on_disk()
        self.assertEqual(files, 20_000)
        self.assertEqual(node, "abffec05be7d4d7132deb05fff2ebdb55eecc3778b6ed23a0412beca67e074f2")

    def test_a_directory_in_which_nothing_is_left_is_not_in_the_tree_but_is_in_data(self):
        before = self.id_on_disk()
        (self.root / "empty" / "deeper").mkdir(parents=True)
        self.assertEqual(self.id_on_disk(), before)
        tag, _, sized = snapshot_id.entry(os.fsencode(self.root), set(), seen_by_git=False)
        self.assertEqual((tag, sized), (DIRECTORY, (0, 0)))
        self.assertIn(b"empty", snapshot_id.directory(os.fsencode(self.root), set(), seen_by_git=False))

    def test_a_node_is_cut_at_its_largest_size_where_no_name_ends_it(self):
        names = [name for name in (b"%d" % number for number in range(60_000)) if not ends_node(name)]
        node, sized = directory_id({name: (LINK, text(b""), (1, 0)) for name in names})
        self.assertEqual(sized, (len(names), 0))
        self.assertEqual(node.hex(), "944ab5aabccc14bd6fae42038aea533d727d96952d2561ada18f1612ce2ee1d2")

    def test_a_directory_can_have_three_levels(self):
        # The hashes of the last three names end in 20 zero bits: each ends a node of level 1.
        names = [b"%d" % number for number in range(5_000)] + [b"n-1045402", b"n-1829150", b"n-2146367"]
        node, _ = directory_id({name: file_entry(name) for name in names})
        self.assertEqual(node.hex(), "1b10fa2a8948c83a8a9b8ff8a96547a714490c1ba21394ecc774308a112d230e")


class Snapshots(unittest.TestCase):
    def test_a_snapshot_has_its_golden_id_with_and_without_a_seed(self):
        file = bytes([FILE]) + text(b"data/one.csv") + sizes(1, 3) + blake3(b"1,2").digest()
        folder = bytes([DIRECTORY]) + text(b"data/raw") + sizes(2, 9) + derived("tree", b"x")
        ids = [
            snapshot_id.snapshot_id(
                derived("definition", b"{}"),
                directory_id({})[0],
                [file, folder],
                derived("params", b"{}"),
                seed,
                derived("environment", b'"host"'),
            ).hex()
            for seed in (42, None)
        ]
        self.assertEqual(ids, [
            "890ec5d797845f264322f103b182aa1f50be031284bba54097c65c016f1ee48c",
            "789ae73af8f449619fd1e687e2ac14e4526fc26d11051fd4fed97ea44b19583e",
        ])

    def test_the_command_line_finds_the_same_ids_whatever_is_left_out_of_the_tree(self):
        with tempfile.TemporaryDirectory() as scratch:
            root, given = Path(scratch, "project"), Path(scratch, "given")
            for path, content in {"a.txt": "a", "data/raw/x": "x", "work/out": "o", ".pipeline/data/raw": "p"}.items():
                (root / path).parent.mkdir(parents=True, exist_ok=True)
                (root / path).write_text(content)
            given.mkdir()
            for name in ("definition", "params", "environment"):
                (given / name).write_text(' { "b" : 1, "a" : [ 1.0 ] } ')
            whole = self.script(root, given, "--exclude", "work", "--data", "data/raw/")
            (root / "work" / "out").write_text("other")
            (root / ".pipeline" / "data" / "raw").write_text("other")
            self.assertEqual(self.script(root, given, "--exclude", "work", "--data", "data/raw"), whole)
            (root / "data" / "raw" / "x").write_text("other")
            changed = self.script(root, given, "--exclude", "work", "--data", "data/raw")
        words = [line.split()[0] for line in whole]
        self.assertEqual(words, ["tree", "data", "definition", "params", "environment", "snapshot"])
        different = [word for word, before, after in zip(words, whole, changed) if before != after]
        self.assertEqual(different, ["data", "snapshot"])

    def script(self, root, given, *more):
        files = [part for name in ("definition", "params", "environment") for part in (f"--{name}", given / name)]
        command = [sys.executable, snapshot_id.__file__, root, *files, "--seed", "42", *more]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()


class CanonicalJson(unittest.TestCase):
    def test_one_value_has_one_text(self):
        for given, expected in {
            r'{"b": [1, -2, 18446744073709551615], "a": null, "é": true, "Z": "x\n\"\\"}':
                r'{"Z":"x\u000a\"\\","a":null,"b":[1,-2,18446744073709551615],"é":true}',
            "0.1": '{"$float":"3fb999999999999a"}',
            '{"$float": "x"}': '{"$$float":"x"}',
            '"\\u007f\\u0000"': '"\\u007f\\u0000"',
            "18446744073709551616": '{"$float":"43f0000000000000"}',
            "-0": '{"$float":"8000000000000000"}',
            '{"😀": 1, "￿": 2}': '{"￿":2,"😀":1}',
        }.items():
            self.assertEqual(canonical(read_json(given)).decode(), expected)

    def test_what_is_no_json_is_refused(self):
        for given in ('{"a": 1, "a": 2}', "NaN", "1e999", r'"\ud800"'):
            with self.assertRaises(ValueError, msg=given):
                canonical(read_json(given))


def sizes(files, size):
    return files.to_bytes(8, "little") + size.to_bytes(8, "little")


if __name__ == "__main__":
    unittest.main()
