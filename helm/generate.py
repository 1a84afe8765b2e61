#!/usr/bin/env python3
"""Makes helm/longwave/README.md and values.schema.json of the comments in values.yaml.

    helm/generate.py          writes both
    helm/generate.py --check  exits 1 where one is not what it should be

The comment above a value is its description. A line "@schema {...}" in it is JSON Schema put over what the default
says: "open": true is an object with keys of any name, "pool": true a map of pools.
"""

import json
import pathlib
import sys

import yaml

CHART = pathlib.Path(__file__).parent / "longwave"


class Value:
    def __init__(self, path, default, description, schema):
        self.path, self.default, self.description, self.over = path, default, description, schema


def entries(text):
    """The values in order: path, description, what @schema says."""
    found, path, comment, over = [], [], [], {}
    block = None  # the indentation of a value that spans lines and has no values of its own
    for number, line in enumerate(text.splitlines(), 1):
        stripped = line.strip()
        indent = len(line) - len(line.lstrip())
        if block is not None and stripped and indent > block:
            continue
        block = None
        if stripped.startswith("#"):
            content = stripped[1:].strip()
            if content.startswith("@schema "):
                over = json.loads(content.removeprefix("@schema "))
            else:
                comment.append(content)
        elif not stripped:
            comment, over = [], {}
        elif not stripped.startswith("- "):
            key = stripped.split(":")[0]
            path = path[:indent // 2] + [key]
            if not comment:
                raise SystemExit(f"values.yaml:{number}: {'.'.join(path)} has no comment")
            found.append((list(path), " ".join(comment), over))
            if over.get("open") or over.get("pool"):
                block = indent
            comment, over = [], {}
    return found


def lookup(values, path):
    for key in path:
        values = values[key]
    return values


def plain(default, over):
    """The schema of a value without values of its own below it."""
    if isinstance(default, bool):
        schema = {"type": "boolean"}
    elif isinstance(default, int):
        schema = {"type": "integer", "minimum": 0}
    elif isinstance(default, list):
        schema = {"type": "array"}
        if default and isinstance(default[0], dict):
            schema["items"] = {"type": "object"}
        elif default:
            schema["items"] = {"type": type(default[0]).__name__.replace("str", "string").replace("int", "integer")}
    elif isinstance(default, dict):
        schema = {"type": "object"}
    else:
        schema = {"type": "string"}
    schema.update({key: value for key, value in over.items() if key not in ("open", "pool")})
    return schema


def schema_of(values, found):
    root = {"type": "object", "additionalProperties": False, "properties": {}}
    nodes = {(): root}
    for path, description, over in found:
        default = lookup(values, path)
        if isinstance(default, dict) and default and not over.get("open") and not over.get("pool"):
            node = {"type": "object", "additionalProperties": False, "properties": {}}
        elif over.get("pool"):
            node = {"type": "object", "propertyNames": {"pattern": "^[a-z0-9]([a-z0-9-]*[a-z0-9])?$"},
                    "additionalProperties": {"anyOf": [{"$ref": "#/properties/poolDefaults"}, {"type": "null"}]}}
        else:
            node = plain(default, over)
        nodes[tuple(path)] = node
        nodes[tuple(path[:-1])]["properties"][path[-1]] = {"description": description, **node}
        nodes[tuple(path)] = nodes[tuple(path[:-1])]["properties"][path[-1]]
    return {"$schema": "http://json-schema.org/draft-07/schema#", "title": "Values of the chart longwave", **root}


def table(values, found):
    rows = ["| value | default | |", "|---|---|---|"]
    for path, description, over in found:
        default = lookup(values, path)
        parent = isinstance(default, dict) and default and not over.get("open") and not over.get("pool")
        shown = "" if parent else f"`{json.dumps(default)}`"
        text = description.replace("|", "\\|")
        name = f"**`{'.'.join(path)}`**" if parent else f"`{'.'.join(path)}`"
        rows.append(f"| {name} | {shown} | {text} |")
    return "\n".join(rows)


def outputs():
    text = (CHART / "values.yaml").read_text()
    values, found = yaml.safe_load(text), entries(text)
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    head = (CHART / "README.head.md").read_text()
    readme = (head.replace("{{version}}", chart["version"]).replace("{{kubeVersion}}", chart["kubeVersion"])
              + table(values, found) + "\n")
    schema = json.dumps(schema_of(values, found), indent=1) + "\n"
    return {CHART / "README.md": readme, CHART / "values.schema.json": schema}


def main():
    wrong = [path for path, content in outputs().items()
             if not path.exists() or path.read_text() != content]
    if "--check" in sys.argv[1:]:
        for path in wrong:
            print(f"{path}: not what helm/generate.py writes; run it", file=sys.stderr)
        return 1 if wrong else 0
    for path, content in outputs().items():
        path.write_text(content)
    return 0


if __name__ == "__main__":
    sys.exit(main())
