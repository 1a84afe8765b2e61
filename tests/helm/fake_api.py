"""As much of a Kubernetes API server as Helm's install, upgrade, rollback and uninstall need.

It keeps objects in memory, checks each against the schemas of its version, fills in what a cluster does (clusterIP,
volumeName), and refuses changes of what is immutable. No controllers: nothing runs.
"""

import base64
import copy
import http.server
import json
import re
import threading
import urllib.parse

import yaml

import schemas

# (apiVersion, kind, resource)
RESOURCES = [
    ("v1", "Secret", "secrets"), ("v1", "ConfigMap", "configmaps"), ("v1", "Service", "services"),
    ("v1", "ServiceAccount", "serviceaccounts"), ("v1", "PersistentVolumeClaim", "persistentvolumeclaims"),
    ("v1", "Pod", "pods"), ("apps/v1", "Deployment", "deployments"), ("policy/v1", "PodDisruptionBudget", "poddisruptionbudgets"),
    ("networking.k8s.io/v1", "NetworkPolicy", "networkpolicies"), ("networking.k8s.io/v1", "Ingress", "ingresses"),
    ("autoscaling/v2", "HorizontalPodAutoscaler", "horizontalpodautoscalers"),
    ("keda.sh/v1alpha1", "ScaledObject", "scaledobjects"),
    ("monitoring.coreos.com/v1", "ServiceMonitor", "servicemonitors"), ("monitoring.coreos.com/v1", "PodMonitor", "podmonitors"),
    ("monitoring.coreos.com/v1", "PrometheusRule", "prometheusrules"),
]

# kind -> paths that never change once they are there.
IMMUTABLE = {
    "Deployment": ["spec.selector"],
    "Service": ["spec.clusterIP"],
    "PersistentVolumeClaim": ["spec.accessModes", "spec.storageClassName", "spec.volumeName", "spec.volumeMode", "spec.selector"],
    "Secret": ["type"],
}

# Where a strategic merge patch joins lists by a key; all other lists are replaced.
MERGE_KEYS = {"containers": "name", "initContainers": "name", "volumes": "name", "env": "name", "volumeMounts": "mountPath",
              "imagePullSecrets": "name", "topologySpreadConstraints": "topologyKey"}


def get(value, path):
    for key in path.split("."):
        value = value.get(key) if isinstance(value, dict) else None
    return value


def merge_patch(old, patch, strategic):
    """JSON merge patch, or Kubernetes' strategic one as far as this chart's objects go."""
    if patch.get("$patch") == "replace":
        return {key: value for key, value in patch.items() if key != "$patch"}
    new = dict(old)
    for key, value in patch.items():
        if key.startswith("$setElementOrder/"):
            continue
        if key.startswith("$retainKeys"):
            new = {kept: one for kept, one in new.items() if kept in value}
        elif value is None:
            new.pop(key, None)
        elif isinstance(value, dict):
            new[key] = merge_patch(new[key] if isinstance(new.get(key), dict) else {}, value, strategic)
        elif strategic and isinstance(value, list) and (key in MERGE_KEYS or key == "ports"):
            by = MERGE_KEYS.get(key) or ("containerPort" if any("containerPort" in one for one in value) else "port")
            found = {one[by]: one for one in new.get(key) or []}
            for one in value:
                if one.get("$patch") == "delete":
                    found.pop(one[by], None)
                else:
                    found[one[by]] = merge_patch(found.get(one[by], {}), one, strategic)
            order = [one if isinstance(one, str) else one.get(by) for one in patch.get(f"$setElementOrder/{key}", [])]
            new[key] = sorted(found.values(), key=lambda one: order.index(one[by]) if one[by] in order else len(order))
        else:
            new[key] = value
    return new


def protobuf(data):
    """The fields of a message, [(number, bytes or int)]; as far as strings, maps and small numbers go."""
    at, found = 0, []

    def varint():
        nonlocal at
        value = shift = 0
        while True:
            value |= (data[at] & 127) << shift
            shift += 7
            at += 1
            if data[at - 1] < 128:
                return value

    while at < len(data):
        tag = varint()
        value = varint()
        if tag & 7 == 2:
            value, at = data[at:at + value], at + value
        found.append((tag >> 3, value))
    return found


def parse(body, content_type):
    """An object sent as JSON or, by Helm for the secrets of its releases, as protobuf."""
    if "protobuf" not in content_type:
        return json.loads(body)
    raw = dict(protobuf(body.removeprefix(b"k8s\0")))[2]
    new = {"apiVersion": "v1", "kind": "Secret", "metadata": {"labels": {}}, "data": {}}
    for number, value in protobuf(raw):
        if number == 1:
            for field, content in protobuf(value):
                if field == 1:
                    new["metadata"]["name"] = content.decode()
                elif field == 11:
                    key, text = (part.decode() for _, part in protobuf(content))
                    new["metadata"]["labels"][key] = text
        elif number == 2:
            key, content = (part for _, part in protobuf(value))
            new["data"][key.decode()] = base64.b64encode(content).decode()
        elif number == 3:
            new["type"] = value.decode()
    return new


class Cluster:
    """The server, on a port of its own. `objects` is {(resource, namespace, name): object}."""

    def __init__(self, version="1.32"):
        self.version, self.objects, self.refusals, self.lock = version, {}, [], threading.Lock()
        self.serial = 0
        cluster = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True

            def log_message(self, *_):
                pass

            def handle_any(self):
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                with cluster.lock:
                    status, answer = cluster.answer(self.command, self.path, body, self.headers.get("Content-Type", ""))
                content = json.dumps(answer).encode()
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = handle_any

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"
        self.thread = threading.Thread(target=self.server.serve_forever, daemon=True)
        self.thread.start()

    def close(self):
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()

    def of_kind(self, kind):
        """Name -> object, Helm's own secrets left out."""
        return {one["metadata"]["name"]: one for one in self.objects.values()
                if one["kind"] == kind and not one["metadata"]["name"].startswith("sh.helm.")}

    def answer(self, method, target, body, content_type):
        url = urllib.parse.urlsplit(target)
        query = urllib.parse.parse_qs(url.query)
        path = url.path.rstrip("/")
        if path == "/version":
            minor = self.version.split(".")[1]
            return 200, {"major": "1", "minor": minor, "gitVersion": f"v{self.version}.0"}
        if path == "/api":
            return 200, {"kind": "APIVersions", "versions": ["v1"]}
        if path == "/apis":
            groups = sorted({api for api, _, _ in RESOURCES if "/" in api})
            return 200, {"kind": "APIGroupList", "apiVersion": "v1", "groups": [
                {"name": api.split("/")[0], "versions": [{"groupVersion": api, "version": api.split("/")[1]}],
                 "preferredVersion": {"groupVersion": api, "version": api.split("/")[1]}} for api in groups]}
        found = re.fullmatch(r"/(?:api/(v1)|apis/([^/]+/[^/]+))(?:/(.*))?", path)
        if not found:
            return self.no(404, "NotFound", f"{path} is not here")
        api, rest = found[1] or found[2], found[3]
        if not rest:
            return 200, {"kind": "APIResourceList", "groupVersion": api, "resources": [
                {"name": name, "singularName": kind.lower(), "namespaced": True, "kind": kind,
                 "verbs": ["create", "get", "list", "patch", "update", "delete"]}
                for one, kind, name in RESOURCES if one == api]}
        found = re.fullmatch(r"namespaces/([^/]+)/([^/]+)(?:/([^/]+))?", rest)
        if not found:
            return self.no(404, "NotFound", f"{path} is not here")
        return self.object_request(method, api, *found.groups(), query, body, content_type)

    def object_request(self, method, api, namespace, resource, name, query, body, content_type):
        kind = next((kind for one, kind, plural in RESOURCES if (one, plural) == (api, resource)), None)
        if kind is None:
            return self.no(404, "NotFound", f"{api} {resource} is not here")
        key = (resource, namespace, name)
        old = self.objects.get(key)
        if method == "GET" and name is None:
            wanted = [one.split("=") for one in query.get("labelSelector", [""])[0].split(",") if "=" in one]
            items = [one for (plural, space, _), one in self.objects.items() if (plural, space) == (resource, namespace)
                     and all(one["metadata"].get("labels", {}).get(label) == value for label, value in wanted)]
            return 200, {"kind": f"{kind}List", "apiVersion": api, "metadata": {}, "items": items}
        if method == "POST":
            new = parse(body, content_type)
            name = new["metadata"]["name"]
            if (resource, namespace, name) in self.objects:
                return self.no(409, "AlreadyExists", f"{resource} {name} is there already")
            return self.store((resource, namespace, name), None, new, 201)
        if method == "PATCH" and content_type.startswith("application/apply-patch"):
            return self.store(key, old, yaml.safe_load(body), 200 if old else 201)
        if old is None:
            return self.no(404, "NotFound", f"{resource} {name} is not here")
        if method == "GET":
            return 200, old
        if method == "DELETE":
            del self.objects[key]
            return 200, {"kind": "Status", "apiVersion": "v1", "status": "Success"}
        if method == "PUT":
            return self.store(key, old, parse(body, content_type), 200)
        return self.store(key, old, merge_patch(old, json.loads(body), "strategic" in content_type), 200)

    def store(self, key, old, new, status):
        resource, namespace, name = key
        found = schemas.errors({field: value for field, value in new.items() if field != "status"}, self.version)
        if found and not name.startswith("sh.helm."):
            return self.no(422, "Invalid", "; ".join(found))
        new = copy.deepcopy(new)
        new["metadata"].setdefault("namespace", namespace)
        self.serial += 1
        new["metadata"]["resourceVersion"] = str(self.serial)
        new["metadata"]["uid"] = old["metadata"]["uid"] if old else f"uid-{self.serial}"
        if new["kind"] == "Service":
            new["spec"].setdefault("clusterIP", old["spec"]["clusterIP"] if old else f"10.0.0.{self.serial % 250 + 1}")
        if new["kind"] == "PersistentVolumeClaim":
            for field, value in (("volumeName", f"pv-{self.serial}"), ("storageClassName", "standard")):
                new["spec"].setdefault(field, old["spec"][field] if old else value)
        for path in IMMUTABLE.get(new["kind"], ()) if old else ():
            if get(old, path) != get(new, path):
                return self.no(422, "Invalid", f"{resource} {name}: {path} is immutable: "
                               f"{get(old, path)!r} to {get(new, path)!r}")
        refused = self.admission(new)
        if refused:
            return self.no(422, "Invalid", f"{resource} {name}: {refused}")
        self.objects[key] = new
        return status, new

    def admission(self, new):
        """What is wrong beyond the schema: Kubernetes' own check of strategies, and KEDA's of who else scales; None if nothing."""
        if new["kind"] == "Deployment" and get(new, "spec.strategy.type") == "Recreate" and get(new, "spec.strategy.rollingUpdate"):
            return "spec.strategy.rollingUpdate: may not be specified when strategy `type` is 'Recreate'"
        if new["kind"] == "ScaledObject":
            for name, hpa in self.of_kind("HorizontalPodAutoscaler").items():
                if (hpa["spec"]["scaleTargetRef"]["name"] == new["spec"]["scaleTargetRef"]["name"]
                        and hpa["metadata"].get("annotations", {}).get("validations.keda.sh/hpa-ownership") != "false"):
                    return f"the workload is already managed by the hpa '{name}'"
        return None

    def no(self, code, reason, message):
        if code == 422:
            self.refusals.append(message)
        return code, {"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code, "reason": reason,
                      "message": message}
