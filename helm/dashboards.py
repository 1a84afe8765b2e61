#!/usr/bin/env python3
"""Makes Grafana's dashboards, helm/longwave/files/dashboards/*.json, of the table below.

    helm/dashboards.py          writes them
    helm/dashboards.py --check  exits 1 where one is not what it should be

A panel is (title, unit, [(query, legend)]); its title has the unit in words.
"""

import json
import pathlib
import sys

FOLDER = pathlib.Path(__file__).parent / "longwave" / "files" / "dashboards"
OF = 'namespace=~"$namespace",release=~"$release"'
JOB = OF + ',job_id=~"$job"'


def p(quantile, name, by="", of=OF):
    labels = f"le, {by}" if by else "le"
    return f"histogram_quantile({quantile}, sum by ({labels}) (rate({name}_bucket{{{of}}}[$__rate_interval])))"


def rate(name, by="", more="", of=OF):
    by = f" by ({by})" if by else ""
    return f"sum{by} (rate({name}{{{of}{more}}}[$__rate_interval]))"


def total(name, by="", of=OF):
    by = f" by ({by})" if by else ""
    return f"sum{by} ({name}{{{of}}})"


DASHBOARDS = {
    "overview": ("Longwave: overview", [
        ("Queue (tokens)", "short", [(total("longwave_queue_tokens"), "queued")]),
        ("Drain time (seconds)", "s", [(f"max(longwave_drain_seconds{{{OF}}})", "drain")]),
        ("Servers that lead (count)", "none", [(total("longwave_leader"), "leaders")]),
        ("Workers by state (count)", "none", [(total("longwave_workers", "state"), "{{state}}")]),
        ("Tokens (tokens per second)", "short", [
            (rate("longwave_tokens_committed_total"), "committed"),
            (rate("longwave_tokens_dispatched_total"), "given to workers"),
            (rate("longwave_tokens_computed_total"), "computed")]),
        ("Speed of workers (tokens per second)", "short", [(f"longwave_worker_tokens_per_second{{{OF}}}", "{{worker}}")]),
        ("Jobs that are not over (count)", "none", [(total("longwave_jobs", "state"), "{{state}}")]),
        ("Jobs over (jobs per second)", "short", [(rate("longwave_jobs_over_total", "state"), "{{state}}")]),
        ("Chunks by state (count)", "none", [(total("longwave_chunks", "state"), "{{state}}")]),
        ("What goes wrong (events per second)", "short", [
            (rate("longwave_lease_losses_total"), "leases lost"), (rate("longwave_retries_total"), "retries"),
            (rate("longwave_chunks_cut_total"), "chunks cut"), (rate("longwave_stale_reports_total"), "stale reports"),
            (rate("longwave_chunks_handed_back_total"), "handed back"),
            (rate("longwave_jobs_poisoned_total"), "jobs poisoned")]),
        ("API requests (requests per second)", "reqps", [(rate("longwave_api_request_seconds_count", "status"), "{{status}}")]),
        ("API latency (seconds)", "s", [(p(0.5, "longwave_api_request_seconds"), "median"),
                                        (p(0.99, "longwave_api_request_seconds"), "99 %")]),
        ("Scheduler's time for a chunk (seconds)", "s", [(p(0.5, "longwave_dispatch_seconds"), "median"),
                                                         (p(0.99, "longwave_dispatch_seconds"), "99 %")]),
        ("Devices that do not work (count)", "none", [
            (f"sum(1 - longwave_device_healthy{{{OF}}})", "now"),
            (f"sum(increase(longwave_device_failures_total{{{OF}}}[1h]))", "failures in an hour")]),
    ]),
    "job": ("Longwave: one job", [
        ("Progress (tokens)", "short", [(total("longwave_job_tokens", of=JOB), "of"),
                                        (total("longwave_job_tokens_committed", of=JOB), "committed")]),
        ("Speed (tokens per second)", "short", [
            (f"sum(deriv(longwave_job_tokens_committed{{{JOB}}}[5m]))", "committed")]),
        ("Time left (seconds)", "s", [
            (f"(sum(longwave_job_tokens{{{JOB}}}) - sum(longwave_job_tokens_committed{{{JOB}}})) / "
             f"(sum(deriv(longwave_job_tokens_committed{{{JOB}}}[5m])) > 0)", "left")]),
        ("Workers (count)", "none", [(total("longwave_job_workers", of=JOB), "workers")]),
        ("Chunks by state (count)", "none", [(total("longwave_job_chunks", "state", of=JOB), "{{state}}")]),
    ]),
    "links": ("Longwave: state links", [
        ("States sent (bytes per second)", "Bps", [(rate("longwave_state_sent_bytes_total", "link"), "{{link}}")]),
        ("States received (bytes per second)", "Bps", [(rate("longwave_state_received_bytes_total", "link"), "{{link}}")]),
        ("Waiting for a state, median (seconds)", "s", [(p(0.5, "longwave_state_latency_seconds", "link"), "{{link}}")]),
        ("Waiting for a state, 99 % (seconds)", "s", [(p(0.99, "longwave_state_latency_seconds", "link"), "{{link}}")]),
        ("Links given up (links per second)", "short", [(rate("longwave_link_failures_total", "link"), "{{link}}")]),
        ("States from the object store instead (chunks per second)", "short", [(rate("longwave_states_from_store_total"), "chunks")]),
        ("A chunk from assignment to boundary (seconds)", "s", [(p(0.5, "longwave_chunk_seconds"), "median"),
                                                                (p(0.99, "longwave_chunk_seconds"), "99 %")]),
        ("Chunks by result (chunks per second)", "short", [(rate("longwave_worker_chunks_total", "result"), "{{result}}")]),
        ("Workers that a leader knows (count)", "none", [(total("longwave_worker_connected"), "connected")]),
        ("Devices that work (count)", "none", [(total("longwave_device_healthy", "device"), "{{device}}")]),
    ]),
    "stores": ("Longwave: database and object store", [
        ("Database: latency (seconds)", "s", [(p(0.5, "longwave_store_seconds"), "median"), (p(0.99, "longwave_store_seconds"), "99 %")]),
        ("Database: transactions (transactions per second)", "short", [(rate("longwave_store_seconds_count"), "transactions")]),
        ("Database: errors (errors per second)", "short", [(rate("longwave_store_errors_total"), "errors")]),
        ("Term of the leader (number)", "none", [(f"max(longwave_leader_term{{{OF}}})", "term")]),
        ("Writing a boundary (seconds)", "s", [(p(0.5, "longwave_boundary_write_seconds"), "median"),
                                               (p(0.99, "longwave_boundary_write_seconds"), "99 %")]),
        ("Reading a boundary (seconds)", "s", [(p(0.5, "longwave_boundary_read_seconds"), "median"),
                                               (p(0.99, "longwave_boundary_read_seconds"), "99 %")]),
        ("Writing an output (seconds)", "s", [(p(0.5, "longwave_output_write_seconds"), "median"),
                                              (p(0.99, "longwave_output_write_seconds"), "99 %")]),
        ("Written (bytes per second)", "Bps", [(rate("longwave_objects_written_bytes_total", "kind"), "{{kind}}")]),
        ("Read (bytes per second)", "Bps", [(rate("longwave_boundary_read_bytes_total"), "boundaries")]),
        ("Boundary writes that failed (writes per second)", "short", [(rate("longwave_boundary_write_failures_total"), "failed")]),
        ("Object store: latency (seconds)", "s", [(p(0.99, "longwave_object_request_seconds"), "99 %")]),
        ("Object store: errors (errors per second)", "short", [(rate("longwave_object_request_errors_total"), "errors")]),
    ]),
}


def variable(name, query):
    return {"name": name, "type": "query", "datasource": {"type": "prometheus", "uid": "${datasource}"}, "query": query,
            "refresh": 2, "includeAll": True, "multi": True, "allValue": ".*", "current": {"text": "All", "value": "$__all"}}


def dashboard(name):
    title, panels = DASHBOARDS[name]
    variables = [{"name": "datasource", "type": "datasource", "query": "prometheus"},
                 variable("namespace", "label_values(longwave_build_info, namespace)"),
                 variable("release", 'label_values(longwave_build_info{namespace=~"$namespace"}, release)')]
    if name == "job":
        variables.append({**variable("job", f"label_values(longwave_job_tokens{{{OF}}}, job_id)"), "multi": False})
    return {
        "uid": f"longwave-{name}", "title": title, "tags": ["longwave"], "schemaVersion": 39, "editable": False,
        "refresh": "15s", "time": {"from": "now-1h", "to": "now"}, "templating": {"list": variables},
        "links": [{"title": "Longwave", "type": "dashboards", "tags": ["longwave"], "asDropdown": True, "keepTime": True}],
        "panels": [{
            "id": i + 1, "title": title, "type": "timeseries",
            "datasource": {"type": "prometheus", "uid": "${datasource}"},
            "gridPos": {"h": 8, "w": 12, "x": 12 * (i % 2), "y": 8 * (i // 2)},
            "fieldConfig": {"defaults": {"unit": unit, "min": 0, "custom": {"fillOpacity": 10, "showPoints": "never"}},
                            "overrides": []},
            "options": {"legend": {"displayMode": "list", "placement": "bottom"}, "tooltip": {"mode": "multi"}},
            "targets": [{"refId": chr(ord("A") + n), "expr": expr, "legendFormat": legend}
                        for n, (expr, legend) in enumerate(targets)],
        } for i, (title, unit, targets) in enumerate(panels)],
    }


def main():
    wrong = []
    for name in DASHBOARDS:
        path, text = FOLDER / f"{name}.json", json.dumps(dashboard(name), indent=1) + "\n"
        if "--check" in sys.argv[1:]:
            if not path.exists() or path.read_text() != text:
                wrong.append(path)
        else:
            FOLDER.mkdir(exist_ok=True)
            path.write_text(text)
    for path in wrong:
        print(f"{path}: not what helm/dashboards.py writes; run it", file=sys.stderr)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
