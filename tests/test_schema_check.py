"""Hold tests/schema_check.py to its word: what is wrong is found, with file and line."""

import json
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path

import schema_check

SCHEMA = {
    "$schema": "https://json-schema.org/draft/2020-12/schema",
    "type": "object",
    "required": ["steps"],
    "additionalProperties": False,
    "properties": {
        "version": {"type": "string"},
        "steps": {"type": "object", "additionalProperties": {
            "type": "object",
            "required": ["run"],
            "additionalProperties": False,
            "properties": {
                "run": {"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}]},
                "inputs": {"type": "array", "items": {"type": "string"}},
            },
        }},
    },
}


class Pages(unittest.TestCase):
    def check(self, page):
        with tempfile.TemporaryDirectory() as scratch:
            Path(scratch, "schema.json").write_text(json.dumps(SCHEMA))
            Path(scratch, "page.md").write_text(page)
            command = [sys.executable, schema_check.__file__, "schema.json", "page.md"]
            done = subprocess.run(command, cwd=scratch, capture_output=True, text=True)
            self.assertEqual(done.stderr, "")
            return done.returncode, done.stdout.splitlines()

    def test_a_good_pipeline_passes_and_other_blocks_are_left_alone(self):
        page = "# A\n```yaml\nversion: no\nsteps:\n  a: {run: x}\n```\n```yaml\nmodel: {depth: 1}\n```\n```\nsteps: 1\n```\n"
        self.assertEqual(self.check(page), (0, ["pipelines that fit the schema: 1"]))

    def test_a_bad_value_is_named_with_its_line(self):
        code, lines = self.check("text\n\n```yaml\nversion: v1\nsteps:\n  a:\n    run: x\n    inputs: [y, 1]\n```\n")
        self.assertEqual((code, lines), (1, ["page.md:8: `steps.a.inputs.1`: 1 is not of type 'string'"]))

    def test_an_unknown_key_and_broken_yaml_are_found_in_every_block(self):
        code, lines = self.check("```yaml\nsteps:\n  a: {run: x, imputs: y}\n```\n```yml\nsteps:\n  - {\n```\n")
        self.assertEqual(code, 1)
        self.assertEqual([line.split(": ")[0] for line in lines], ["page.md:3", "page.md:8"])

    def test_pages_without_a_pipeline_are_no_success(self):
        self.assertEqual(self.check("# Nothing\n"), (1, ["no pipeline was found on these pages"]))


if __name__ == "__main__":
    unittest.main()
