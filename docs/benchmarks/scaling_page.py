#!/usr/bin/env python3
"""Writes the tables and plots of docs/scaling.md: fits the model of scaling_model.py on what was measured, and
puts its predictions beside runs.

    docs/benchmarks/scaling_page.py [--check]

Reads scaling/*/results.json (tests/bench/scaling.py), pipeline*.json (tests/bench/pipeline.py), and of the other
files of this folder the models' rows. Between `<!-- NAME -->` and `<!-- end -->` in scaling.md stands what this
writes. --check writes nothing and fails where the page is not what the files say. The standard library of Python
only.
"""

import argparse
import dataclasses
import json
import math
import pathlib
import re
import statistics
import sys

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))
import gpu_page  # noqa: E402
import scaling_model as model  # noqa: E402
from gpu_page import escape, human, number, table, text  # noqa: E402

PAGE = HERE.parent / "scaling.md"
CHUNKS = [8 << 10, 16 << 10, 32 << 10, 64 << 10, 128 << 10, 256 << 10]  # to choose from
WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 760, 400, 62, 190, 74, 52


def load():
    runs = [(path.parent.name, json.loads(path.read_text()))
            for path in sorted(HERE.glob("scaling/*/results.json"))]
    rows = []
    for path in HERE.glob("h100-*.json"):
        run = json.loads(path.read_text())
        rows += [(run.get("date", ""), row) for row in gpu_page.models_of(run)
                 + gpu_page.models_of(run.get("longwave") or {})]
    rows = [row for _, row in sorted(rows, key=lambda item: item[0])]
    return runs, model.parts_of(rows), [json.loads(path.read_text()) for path in sorted(HERE.glob("pipeline*.json"))]


def percent(value):
    return f"{100 * value:.1f} %"


def ms(seconds):
    return f"{1000 * seconds:.3g}"


def sim_run(row):
    """The Run of a simulated device, without what the machine adds."""
    values = dict(part.split("=") for part in row["devices"].partition(":")[2].split(","))
    return model.Run(layers=int(values.get("layers", 24)), layer=float(values.get("layer_ms", 1)) / 1000,
                     early=float(values.get("early", 0.25)), dispatch=model.ASSUMED_DISPATCH)


def groups(run):
    """{(model, chunk): rows} with a run of one worker among them."""
    found = {}
    for row in run["rows"]:
        found.setdefault((row["model"], row["chunk"]), []).append(row)
    return {key: rows for key, rows in found.items() if any(row["workers"] == 1 for row in rows)}


def fitted(run, most_workers=math.inf):
    """[(model, chunk, way, Fit on rows of at most so many workers, all rows)]"""
    found = []
    for (name, chunk), rows in groups(run).items():
        for way in ("nccl", "zmq"):
            fit = model.fit([row for row in rows if row["workers"] <= most_workers], way)
            if fit:
                found.append((name, chunk, way, fit, rows))
    return found


# ---- the tables ----


def fit_table(runs):
    lines = []
    for folder, run in runs:
        for name, chunk, way, fit, rows in fitted(run):
            widest = max(row["workers"] for row in rows if row["way"] == way)
            lines.append([f"[{folder}](benchmarks/scaling/{folder}/results.json)", name, human(chunk), way, widest,
                          ms(fit.chunk), ms(fit.job), ms(fit.round), ms(fit.handover)])
    return table(["run", "model", "chunk", "link", "workers up to", "T, ms", "j, ms", "r, ms", "delta, ms"], lines, 4)


def links_of(runs):
    """{(model, link): Fit} of GPUs."""
    return {(name, way): fit for _, run in runs if run["devices"].startswith("cuda")
            for name, _, way, fit, _ in fitted(run)}


def predict(measured, links, shape, link, tokens, workers):
    """(chunk, Run) of the chunk length that is predicted to be fastest."""
    best = None
    for chunk in CHUNKS:
        run = model.model_run(measured, shape, chunk)
        fit = links.get((shape, link))
        run.handover, run.job = ((fit.handover, fit.job) if fit else
                                 (model.handover(shape, link), model.ASSUMED_JOB))
        run.dispatch = model.ASSUMED_DISPATCH
        chunks = math.ceil(tokens / chunk)
        if chunks >= workers or chunk == CHUNKS[0]:
            seconds = run.closed(chunks, workers)
            if best is None or seconds < best[0]:
                best = seconds, chunk, run
    return best[1:]


def prediction_table(measured, runs):
    links, lines = links_of(runs), []
    for shape in ("h3-125m", "h3-1.3b"):
        for tokens in (1 << 20, 16 << 20, 256 << 20):
            for workers in (8, 64, 512):
                cells = []
                for link in ("nccl", "zmq"):
                    chunk, run = predict(measured, links, shape, link, tokens, workers)
                    chunks = math.ceil(tokens / chunk)
                    cells += [human(chunk), number(run.seconds(chunks, workers)),
                              percent(run.efficiency(chunks, workers)), run.bound(chunks, workers)]
                    if link == "nccl":
                        wave = percent(run.efficiency(chunks, workers, wave=True))
                lines.append([shape, human(tokens), workers, *cells, wave])
    head = ["model", "tokens", "workers"]
    for link in ("NCCL", "ZeroMQ"):
        head += [f"{link}: chunk", "s", "efficiency", "lost most to"]
    return table([*head, "wavefront, NCCL"], lines, 1)


def gpu_table(measured):
    lines = []
    for shape in ("h3-125m", "h3-1.3b"):
        for chunk in (16 << 10, 64 << 10, 256 << 10):
            run = model.model_run(measured, shape, chunk)
            known = "measured" if (shape, chunk) in measured else "scaled"
            lines.append([shape, human(chunk), known, run.layers, ms(run.layer), ms(run.head), percent(run.early),
                          ms(run.chunk), f"{model.state_bytes(shape):,}",
                          *(ms(model.handover(shape, link)) for link in ("nccl", "zmq"))])
    return table(["model", "chunk", "", "L", "tau, ms", "h, ms", "e", "T, ms", "S, bytes", "delta NCCL, ms",
                  "delta ZeroMQ, ms"], lines, 3)


def beside(run, measured):
    """[(row with its efficiency, its chunks, seconds and efficiency that the model says)], fitted on the rows of at
    most 8 workers; the one worker's only once."""
    found, alone = [], set()
    for name, chunk, way, fit, rows in fitted(run, 8):
        if run["devices"].startswith("sim"):
            base = sim_run(rows[0])
        elif run["devices"].startswith("cuda"):
            base = model.model_run(measured, name, chunk)
        else:
            base = model.Run(1, 0)  # nothing is known of its layers: no wavefront
        base.head, base.job, base.handover = fit.chunk - base.layers * base.layer, fit.job, fit.handover
        several = dataclasses.replace(base, head=base.head + fit.round)
        one = {row["tokens"]: min(row["seconds"]) for row in rows if row["workers"] == 1}
        for row in rows:
            wave = row["way"] == "wave" and row["link"] == way and base.layer > 0
            key = name, chunk, row["tokens"]
            if (not wave and row["way"] not in ("one", way)) or (row["way"] == "one" and key in alone):
                continue
            if row["way"] == "one":
                alone.add(key)
            chunks = math.ceil(row["tokens"] / row["chunk"])
            predicted = (base if row["workers"] == 1 else several).seconds(chunks, row["workers"], wave)
            if row["tokens"] in one:
                row["efficiency"] = one[row["tokens"]] / row["workers"] / min(row["seconds"])
            found.append((row, chunks, predicted, base.seconds(chunks, 1) / row["workers"] / predicted))
    return found


def beside_table(runs, measured):
    lines = []
    for folder, run in runs:
        found = sorted(beside(run, measured), key=lambda item: (
            item[0]["model"], item[1], item[0]["workers"], item[0]["way"]))
        for row, chunks, predicted, efficiency in found:
            lines.append([folder, row["model"], row["way"], chunks, row["workers"], number(min(row["seconds"])),
                          number(predicted), percent(row["efficiency"]) if "efficiency" in row else "",
                          percent(efficiency)])
    return table(["run", "model", "way", "chunks", "workers", "s", "s, model", "efficiency", "model"], lines, 3)


def pipeline_table(pipelines):
    """The simulated devices of pipeline*.json: there the processors are a bound of their own."""
    lines = []
    for pipeline in pipelines:
        cores = pipeline["device"]["cores"]
        cost = statistics.median((row["server_cpu_seconds"] + row["worker_cpu_seconds"]) / row["chunks"]
                                 for row in pipeline["pipeline"] if not row["wave"])
        for row in pipeline["pipeline"]:
            run = model.Run(layers=row["layers"], layer=row["layer_ms"] / 1000,
                            dispatch=model.ASSUMED_DISPATCH, processors=cost / cores)
            fill = row["first_round_seconds"] / (row["workers"] - 1)
            run.handover = max(0.0, fill - run.layer) if row["wave"] else fill
            predicted = run.seconds(row["chunks"], row["workers"], row["wave"])
            lines.append([cores, row["workers"], f"{row['layer_ms']:g}", row["chunks"],
                          "wavefront" if row["wave"] else "", ms(run.handover), ms(cost), number(row["seconds"]),
                          number(predicted), percent(row["efficiency"]), percent(row["ideal_seconds"] / predicted)])
    return table(["processors", "workers", "layer, ms", "chunks", "way", "delta, ms", "c, ms", "s", "s, model",
                  "of ideal", "model"], lines, 0)


# ---- the plot ----


def plot(title, subtitle, lines, lowest=0.0):
    """Efficiency over workers. lines: {name: (points, measured)}."""
    most = max(workers for points, _ in lines.values() for workers, _ in points)

    def x(workers):
        return LEFT + math.log2(workers) / max(1, math.log2(most)) * (WIDTH - LEFT - RIGHT)

    def y(value):
        return HEIGHT - BOTTOM - (value - lowest) / (1 - lowest) * (HEIGHT - TOP - BOTTOM)

    out = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" '
           f'height="{HEIGHT}" role="img" aria-label="{escape(title)}">', f"<style>{gpu_page.STYLE}</style>",
           f'<rect class="ground" width="{WIDTH}" height="{HEIGHT}"/>', text(LEFT, 30, title, "title"),
           text(LEFT, 52, subtitle, "subtitle")]
    for tenth in range(0, 11):
        if tenth / 10 >= lowest and tenth % 2 == 0:
            out.append(f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y(tenth / 10):.1f}" '
                       f'y2="{y(tenth / 10):.1f}"/>')
            out.append(text(LEFT - 8, y(tenth / 10) + 4, f"{10 * tenth} %", "tick", "end"))
    for power in range(math.floor(math.log2(most)) + 1):
        out.append(text(x(1 << power), HEIGHT - BOTTOM + 18, str(1 << power), "tick", "middle"))
    out.append(f'<path class="axis line" d="M{LEFT} {TOP}V{HEIGHT - BOTTOM}H{WIDTH - RIGHT}"/>')
    out.append(text(LEFT + (WIDTH - LEFT - RIGHT) / 2, HEIGHT - 12, "workers", "tick", "middle"))
    labels = []
    colours = {}
    for name, (points, measured) in lines.items():
        key = name.replace(", model", "")
        colour = colours.setdefault(key, (gpu_page.OWN_COLOURS + gpu_page.PEER_COLOURS)[len(colours)])
        at = sorted(points)
        path = "M" + "L".join(f"{x(w):.1f} {y(max(lowest, v)):.1f}" for w, v in at)
        dash = "" if measured else " stroke-dasharray: 5 4;"
        out.append(f'<path class="line{" own" if measured else ""}" style="stroke: {colour};{dash}" d="{path}"/>')
        if measured:
            out += [f'<circle cx="{x(w):.1f}" cy="{y(max(lowest, v)):.1f}" r="3" fill="{colour}"><title>'
                    f"{escape(name)}, {w} workers: {percent(v)}</title></circle>" for w, v in at]
        labels.append((y(max(lowest, at[-1][1])), name, colour))
    for (_, name, colour), height in zip(labels, gpu_page.spread_out([label[0] for label in labels], 15)):
        out.append(text(WIDTH - RIGHT + 10, height + 4, name, "", colour=colour))
    return "\n".join(out) + "\n</svg>\n"


def plots(runs, measured):
    found = {}
    for folder, run in runs:
        for name in sorted({row["model"] for row in run["rows"]}):
            lines = {}
            for row, chunks, _, efficiency in beside(run, measured):
                if row["model"] == name and "efficiency" in row and row["workers"] > 1:
                    key = f"{row['way']}, {human(row['tokens'])}"
                    lines.setdefault(key, ([(1, 1.0)], True))[0].append((row["workers"], row["efficiency"]))
                    lines.setdefault(key + ", model", ([(1, 1.0)], False))[0].append((row["workers"], efficiency))
            if lines:
                found[f"scaling/{folder}/{name}.svg"] = plot(
                    f"Parallel efficiency: {folder}, {name}", run["devices"], lines)
    links = links_of(runs)
    lines = {}
    for shape in ("h3-125m", "h3-1.3b"):
        for tokens in (1 << 20, 16 << 20, 256 << 20):
            points = []
            for power in range(10):
                chunk, run = predict(measured, links, shape, "nccl", tokens, 1 << power)
                points.append((1 << power, run.efficiency(math.ceil(tokens / chunk), 1 << power)))
            lines[f"{shape}, {human(tokens)}"] = (points, False)
    found["scaling/predicted.svg"] = plot("Predicted parallel efficiency, NCCL",
                                          "the fastest chunk length for each number of workers", lines)
    return found


def make_page():
    runs, measured, pipelines = load()
    parts = {"one gpu": gpu_table(measured), "fit": fit_table(runs), "prediction": prediction_table(measured, runs),
             "beside": beside_table(runs, measured), "pipeline": pipeline_table(pipelines)}
    pictures = plots(runs, measured)
    parts["plots"] = [f"![{pathlib.Path(name).stem}](benchmarks/{name})" for name in pictures]
    page = PAGE.read_text()
    for name, lines in parts.items():
        page, count = re.subn(rf"(<!-- {name} -->\n).*?(<!-- end -->)",
                              lambda found: "\n".join([found[1], *lines, "", found[2]]), page, flags=re.S)
        if count != 1:
            sys.exit(f"scaling_page.py: {PAGE} has {count} times <!-- {name} -->")
    return {PAGE: page, **{HERE / name: content for name, content in pictures.items()}}


def main():
    parser = argparse.ArgumentParser(description="Writes docs/scaling.md's tables and plots")
    parser.add_argument("--check", action="store_true", help="only compare")
    options = parser.parse_args()
    made = make_page()
    old = [path for path, content in made.items() if not path.exists() or path.read_text() != content]
    if options.check:
        sys.exit(f"scaling_page.py: not what the files say: {', '.join(map(str, old))}" if old else 0)
    for path in old:
        path.write_text(made[path])
    print(f"scaling_page.py: {len(made)} files, {len(old)} new")


if __name__ == "__main__":
    main()
