#!/usr/bin/env python3
"""Checks that the JSON schema accepts what the reader accepts, and refuses what it can see is wrong.

    pv schema | python3 tests/schema_check.py

reads the schema from standard input (or from the file given), and needs the packages `jsonschema` and `PyYAML`. Every
example in the documentation and every file in fixtures/good must be valid; every file in fixtures/bad that is YAML
at all must not be, apart from those whose fault lies between two places, or outside the file.
"""

import json
import pathlib
import re
import sys

import jsonschema
import yaml

ROOT = pathlib.Path(__file__).resolve().parent.parent

# Faults that no schema can see: two places at once, other files, or spellings that a YAML library does not show.
READER_ONLY = {
    "anchor-in-itself", "bom-inside", "control-characters", "data-in-git", "data-nested", "data-listed-twice",
    "duplicate-key", "duplicate-step", "env-twice", "output-and-metric", "output-contains-data", "output-in-data",
    "output-in-input", "output-in-pipeline", "output-is-input", "output-is-params-file", "outputs-nested-in-one-step",
    "params-file-twice", "params-file-missing", "params-given-twice", "params-not-finite", "params-unknown",
    "params-without-source", "path-listed-twice", "timeout-too-long", "two-writers", "two-writers-overlap",
    "wide-characters", "input-missing", "circle", "circle-of-three", "circle-by-position", "needs-itself",
    "needs-unknown", "utf-16", "keep-overlaps", "matrix-exclude", "matrix-names", "matrix-one-output",
    "matrix-gathers-nothing", "matrix-inputs-missing", "matrix-needs",
}


class Loader(yaml.SafeLoader):
    """Plain scalars as YAML 1.2 types them, not 1.1."""


Loader.yaml_implicit_resolvers = {}
for tag, pattern, first in [
    ("null", r"^(?:~|null|Null|NULL|)$", ["~", "n", "N", ""]),
    ("bool", r"^(?:true|True|TRUE|false|False|FALSE)$", list("tTfF")),
    ("int", r"^[-+]?(?:0|[1-9][0-9]*)$", list("-+0123456789")),
    ("float", r"^(?:[-+]?(?:\.[0-9]+|[0-9]+\.[0-9]*)(?:[eE][-+]?[0-9]+)?|[-+]?[0-9]+[eE][-+]?[0-9]+|[-+]?\.inf|\.nan)$", list("-+.0123456789")),
    ("merge", r"^<<$", ["<"]),
]:
    Loader.add_implicit_resolver(f"tag:yaml.org,2002:{tag}", re.compile(pattern), first)


def load(text):
    return yaml.load(text, Loader)


def good():
    for path in sorted((ROOT / "fixtures/good").glob("*.yaml")):
        yield path.name, path.read_bytes().removeprefix(b"\xef\xbb\xbf")
    for page in [*sorted((ROOT / "docs").glob("**/*.md")), ROOT / "README.md"]:
        if page.exists():
            for number, block in enumerate(re.findall(r"```yaml\n(.*?)```", page.read_text("utf-8"), re.S), 1):
                if re.search(r"^steps:", block, re.M):
                    yield f"{page.name}, example {number}", block


def main():
    source = open(sys.argv[1], encoding="utf-8") if len(sys.argv) > 1 else sys.stdin
    schema = json.load(source)
    jsonschema.Draft202012Validator.check_schema(schema)
    validator = jsonschema.Draft202012Validator(schema)
    failures = []
    taken = refused = 0
    for name, text in good():
        errors = list(validator.iter_errors(load(text)))
        failures += [f"{name} is refused: {error.json_path}: {error.message}" for error in errors]
        taken += not errors
    for path in sorted((ROOT / "fixtures/bad").glob("*.yaml")):
        kind = path.stem.split("-", 1)[1]
        try:
            value = load(path.read_bytes())
        except (yaml.YAMLError, UnicodeDecodeError, ValueError):
            continue
        is_refused = next(validator.iter_errors(value), None) is not None
        refused += is_refused
        if not is_refused and kind not in READER_ONLY:
            failures.append(f"{path.name} is accepted")
    print(f"{taken} good definitions accepted, {refused} bad ones refused, {len(failures)} failures")
    for failure in failures:
        print(failure, file=sys.stderr)
    sys.exit(bool(failures) or taken < 10 or refused < 30)


if __name__ == "__main__":
    main()
