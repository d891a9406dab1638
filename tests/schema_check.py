"""Check the pipelines in the documentation against the schema that editors use.

usage: schema_check.py SCHEMA.json PAGE.md...

Takes every ```yaml block that has a line `steps:`, and prints
`file:line: what is wrong` for each that the schema refuses. Exits 1 if there
is one, or if no page had any such block.
"""

import json
import re
import sys
from pathlib import Path

import jsonschema
import yaml


class Loader(yaml.SafeLoader):
    """YAML 1.2, as the program reads it: `no` and `2024-01-31` are texts."""


YAML_1_1_ONLY = ("tag:yaml.org,2002:bool", "tag:yaml.org,2002:timestamp")
Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag not in YAML_1_1_ONLY]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
Loader.add_implicit_resolver("tag:yaml.org,2002:bool", re.compile("(true|True|TRUE|false|False|FALSE)$"), "tTfF")


def blocks(page):
    """Yield the text of each pipeline on a page and the number of its first line."""
    lines = page.read_text(encoding="utf-8").splitlines()
    start = fence = None
    for number, line in enumerate(lines, start=1):
        mark = line.strip()
        if start is None and re.match(r"(`{3,}|~{3,})ya?ml\b", mark):
            start, fence = number + 1, re.match(r"`+|~+", mark).group()
        elif start is not None and mark == fence:
            block = lines[start - 1 : number - 1]
            if any(line.strip().startswith("steps:") for line in block):
                yield "\n".join(block) + "\n", start
            start = None
    if start is not None:
        raise SystemExit(f"{page}:{start - 1}: the block does not end")


def line_of(node, path):
    """Return how many lines below the start of the block the value at `path` begins."""
    for part in path:
        if isinstance(node, yaml.MappingNode):
            # A value that came by a merge key has no place of its own.
            node = next((value for key, value in node.value if key.value == str(part)), node)
        elif isinstance(node, yaml.SequenceNode):
            node = node.value[part]
    return node.start_mark.line


def problems(text, validator):
    """Yield a line, counted from the start of the block, and what is wrong there."""
    try:
        node = yaml.compose(text, Loader)
        value = yaml.load(text, Loader)
    except yaml.MarkedYAMLError as error:
        yield (error.problem_mark or error.context_mark).line, error.problem
        return
    for error in sorted(validator.iter_errors(value), key=lambda error: list(map(str, error.absolute_path))):
        # Of alternatives that were all refused, the best match is what the author meant.
        error = jsonschema.exceptions.best_match([error])
        place = ".".join(map(str, error.absolute_path)) or "the definition"
        yield line_of(node, error.absolute_path), f"`{place}`: {error.message}"


def main(schema_file, *pages):
    schema = json.loads(Path(schema_file).read_text(encoding="utf-8"))
    validator_type = jsonschema.validators.validator_for(schema)
    validator_type.check_schema(schema)
    checked = failed = 0
    for page in map(Path, pages):
        for text, start in blocks(page):
            checked += 1
            for line, message in problems(text, validator_type(schema)):
                failed += 1
                print(f"{page}:{start + line}: {message}")
    if checked == 0:
        print("no pipeline was found on these pages")
    elif not failed:
        print(f"pipelines that fit the schema: {checked}")
    return 0 if checked and not failed else 1


if __name__ == "__main__":
    if len(sys.argv) < 3:
        sys.exit(__doc__)
    sys.exit(main(*sys.argv[1:]))
