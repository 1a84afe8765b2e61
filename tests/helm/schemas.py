"""The schemas of Kubernetes 1.29 to 1.34, of the Prometheus operator and of KEDA, and what they say of a manifest.

They come as TypeScript declarations that others made of the real ones: cdk8s-plus-NN of Kubernetes 1.NN's OpenAPI
document (each field names its schema: "@schema io.k8s.api.core.v1.ServiceSpec#clusterIP"), @kubernetes-models of the
operators' Go types. Checked are names of fields, what is required, and types. What has no schema is an error.
"""

import functools
import pathlib
import re

MODULES = pathlib.Path(__file__).parent / "node_modules"
VERSIONS = ("1.29", "1.30", "1.31", "1.32", "1.33", "1.34")

QUANTITIES = {"Quantity": ("quantity",), "IntOrString": ("quantity",)}
COMMENT = re.compile(r"/\*.*?\*/", re.S)
SCHEMA = re.compile(r"@schema ([\w.]+#\S+)")
TOKEN = re.compile(r"@[\w.]+#\S+|\"[^\"]*\"|'[^']*'|[A-Za-z_$][\w$.]*|=>|[^\s]")


def tokens(text):
    """The words of a declaration file; of a comment only the field that it names, as "@SCHEMA#FIELD"."""
    def field(comment):
        found = SCHEMA.search(comment.group())
        return f" @{found.group(1)} " if found else " "
    return TOKEN.findall(COMMENT.sub(field, text))


class Declarations:
    """Interfaces and type aliases of declaration files: name -> type. A type is ("any"|"string"|"int"|"bool"|
    "quantity",), ("literal", text), ("list", type), ("map", type), ("union", types), ("ref", name) or
    ("object", {field: (type, required)}, [names that it extends])."""

    def __init__(self):
        self.types = {}

    def add(self, text):
        self.tokens, self.at, self.schema = tokens(text), 0, None
        while self.at < len(self.tokens):
            token = self.take()
            if token == "export" and self.peek() == "interface":
                self.take()
                name = self.take()
                extends = []
                while self.peek() != "{":
                    word = self.take()
                    if word not in ("extends", ","):
                        extends.append(word)
                fields = self.members()
                self.types[name] = ("object", fields, extends)
            elif token == "export" and self.peek() == "type":
                self.take()
                if self.peek() == "{":  # export type { A as B, ... }
                    self.aliases()
                else:
                    name = self.take()
                    self.expect("=")
                    self.types[name] = self.type()
            elif token == "{":
                self.skip()

    def peek(self):
        while self.at < len(self.tokens) and self.tokens[self.at][0] == "@":
            self.schema = self.tokens[self.at].split("#")[1]
            self.at += 1
        return self.tokens[self.at] if self.at < len(self.tokens) else ""

    def take(self):
        token = self.peek()
        self.at += 1
        return token

    def expect(self, wanted):
        token = self.take()
        assert token == wanted, f"{token!r}, not {wanted!r}, after {self.tokens[self.at - 8:self.at]}"

    def skip(self):
        depth = 1
        while depth and self.at < len(self.tokens):
            depth += {"{": 1, "}": -1}.get(self.take(), 0)

    def aliases(self):
        self.expect("{")
        while self.peek() != "}":
            name = self.take()
            if self.peek() == "as":
                self.take()
                self.types.setdefault(self.take(), ("ref", name))
            if self.peek() == ",":
                self.take()
        self.take()

    def members(self):
        self.expect("{")
        fields = {}
        self.schema = None  # of the field that comes, once peek() has passed its comment
        while self.peek() != "}":
            name = self.take()
            if name == "readonly":
                name = self.take()
            if name == "[":  # [key: string]: T
                while self.take() != "]":
                    pass
                self.expect(":")
                value = self.type()
                fields[None] = (value, False)
            else:
                schema, self.schema = self.schema, None
                required = True
                if self.peek() == "?":
                    self.take()
                    required = False
                self.expect(":")
                name = name.strip("\"'")
                name = schema or name  # cdk8s' own is in camel case
                fields[name] = (self.type(), required)
            if self.peek() in (";", ","):
                self.take()
        self.take()
        return fields

    def type(self):
        if self.peek() == "|":
            self.take()
        found = [self.one_type()]
        while self.peek() == "|":
            self.take()
            found.append(self.one_type())
        return found[0] if len(found) == 1 else ("union", found)

    def one_type(self):
        token = self.take()
        if token == "{":
            self.at -= 1
            fields = self.members()
            kind = ("map", fields[None][0]) if set(fields) == {None} else ("object", fields, [])
        elif token == "(":
            kind = self.type()
            self.expect(")")
        elif token == "Array":
            self.expect("<")
            kind = ("list", self.type())
            self.expect(">")
        elif token[0] in "\"'":
            kind = ("literal", token[1:-1])
        else:
            kind = {"string": ("string",), "number": ("int",), "boolean": ("bool",), "any": ("any",),
                    "unknown": ("any",), "null": ("null",), "Date": ("string",),
                    **QUANTITIES}.get(token, ("ref", token))
        while self.peek() == "[":
            self.take()
            self.expect("]")
            kind = ("list", kind)
        return kind

    def fields(self, kind):
        _, fields, extends = kind
        merged = {}
        for name in extends:
            base = self.resolve(("ref", name))
            if base[0] == "object":
                merged.update(self.fields(base))
        return {**merged, **fields}

    def resolve(self, kind):
        while kind[0] == "ref":
            if kind[1] not in self.types:
                raise KeyError(f"the schema names {kind[1]}, which is nowhere")
            kind = self.types[kind[1]]
        return kind

    def errors(self, kind, value, path):
        kind = self.resolve(kind)
        what = kind[0]
        if what == "any":
            return []
        if what == "union":
            all_errors = [self.errors(one, value, path) for one in kind[1]]
            return [] if any(not errors for errors in all_errors) else min(all_errors, key=len)
        if value is None:  # the API server takes null for absent
            return []
        if what == "object":
            if not isinstance(value, dict):
                return [f"{path}: {value!r} is not an object"]
            fields, found = self.fields(kind), []
            for name, (_, required) in fields.items():
                if required and value.get(name) is None:
                    found.append(f"{path}.{name}: required")
            for name, one in value.items():
                if name in fields:
                    found += self.errors(fields[name][0], one, f"{path}.{name}")
                elif None in fields:
                    found += self.errors(fields[None][0], one, f"{path}.{name}")
                else:
                    found.append(f"{path}.{name}: there is no such field")
            return found
        if what == "list":
            if not isinstance(value, list):
                return [f"{path}: {value!r} is not a list"]
            return [error for i, one in enumerate(value)
                    for error in self.errors(kind[1], one, f"{path}[{i}]")]
        if what == "map":
            if not isinstance(value, dict):
                return [f"{path}: {value!r} is not a map"]
            return [error for key, one in value.items()
                    for error in self.errors(kind[1], one, f"{path}.{key}")]
        good = {"string": isinstance(value, str),
                "int": isinstance(value, int) and not isinstance(value, bool),
                "bool": isinstance(value, bool),
                "quantity": isinstance(value, (int, str)) and not isinstance(value, bool),
                "literal": what == "literal" and value == kind[1],
                "null": False}[what]
        wanted = kind[1] if what == "literal" else what
        return [] if good else [f"{path}: {value!r} is not {wanted}"]


@functools.cache
def kubernetes(version):
    """(declarations, {(apiVersion, kind): interface}) of Kubernetes 1.NN."""
    folder = MODULES / f"cdk8s-plus-{version.split('.')[1]}" / "lib" / "imports"
    declared = Declarations()
    declared.add((folder / "k8s.d.ts").read_text())
    code = (folder / "k8s.js").read_text()
    kinds = {(api, kind): f"{name}Props" for name, api, kind in re.findall(
        r"\n(Kube\w+)\.GVK = \{\s*apiVersion: '([^']+)',\s*kind: '([^']+)'", code)}
    if not kinds:  # newer ones
        kinds = {(api, kind): f"{name}Props" for name, api, kind in re.findall(
            r"\nclass (Kube\w+) extends [^{]*\{.*?GVK = \{\s*apiVersion: '([^']+)',\s*kind: '([^']+)'", code, re.S)}
    assert ("apps/v1", "Deployment") in kinds, version
    return declared, kinds


@functools.cache
def operators(version):
    """The same of the operators' kinds; what they take of Kubernetes is that of `version`."""
    core, _ = kubernetes(version)
    found = {"TypeMeta": ("object", {"apiVersion": (("string",), True), "kind": (("string",), True)}, [])}
    kinds = {}
    for group, local in groups().items():
        found.update(local.types)
        kinds.update({(group, name[1:]): name for name, kind in local.types.items()
                      if kind[0] == "object" and "kind" in kind[1]})
    text = (MODULES / f"cdk8s-plus-{version.split('.')[1]}" / "lib" / "imports" / "k8s.d.ts").read_text()
    for schema, name in re.findall(
            r"@schema (io\.[\w.]+)\n \*/\nexport (?:declare )?(?:interface|class|enum) (\w+)", text):
        # io.k8s.api.core.v1.SecretKeySelector is IIoK8sApiCoreV1SecretKeySelector there.
        alias = "I" + "".join(part[0].upper() + part[1:] for part in schema.split("."))
        found.setdefault(alias, QUANTITIES.get(name, ("core", name)))
    return Operators(found, core), kinds


@functools.cache
def groups():
    """The operators' declarations: API group and version -> Declarations."""
    found = {}
    for package, group in (("keda", "keda.sh/v1alpha1"), ("prometheus-operator", "monitoring.coreos.com/v1")):
        found[group] = Declarations()
        for path in sorted((MODULES / "@kubernetes-models" / package / group).glob("*.d.ts")):
            found[group].add(path.read_text())
    return found


def errors(manifest, version):
    """What Kubernetes `version` and the operators' schemas refuse in a manifest; one line each."""
    key = (manifest.get("apiVersion"), manifest.get("kind"))
    path = f"{manifest.get('kind')}/{manifest.get('metadata', {}).get('name')}"
    declared, kinds = kubernetes(version)
    if key in kinds:
        body = {name: value for name, value in manifest.items() if name not in ("apiVersion", "kind")}
        return declared.errors(("ref", kinds[key]), body, path)
    declared, kinds = operators(version)
    if key in kinds:
        return declared.errors(("ref", kinds[key]), manifest, path)
    return [f"{path}: there is no schema for {key[0]} {key[1]} in {version}"]


class Operators(Declarations):
    """The operators' types, which go over into Kubernetes' at ("core", name)."""

    def __init__(self, types, core):
        self.types, self.core = types, core

    def errors(self, kind, value, path):
        kind = self.resolve(kind)
        if kind[0] == "core":
            return self.core.errors(("ref", kind[1]), value, path)
        return super().errors(kind, value, path)
