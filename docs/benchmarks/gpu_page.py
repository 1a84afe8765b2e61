#!/usr/bin/env python3
"""Turns the JSON files of this folder into gpu.md and its plots, gpu-*.svg.

    docs/benchmarks/gpu_page.py [--folder FOLDER] [--check]

The files are what gpu-check and tests/bench/gpu_peers.py write. Of each device and kind, and of what is
in it, the newest is shown in full, the others in a line each. --check writes nothing and fails where the page is not what
the files say. The standard library of Python only.
"""

import argparse
import json
import math
import pathlib
import sys

HERE = pathlib.Path(__file__).resolve().parent
KINDS = ("gpu-peers", "gpu-check")
OURS = ("SsmConv", "H3Mix", "LongConv")
SHORT = {"bfloat16": "bf16", "float16": "fp16", "float32": "fp32"}


def human(n):
    for size, unit in ((1 << 20, "M"), (1 << 10, "K")):
        if n >= size and n % size == 0:
            return f"{n // size}{unit}"
    return f"{n:,}"


def number(value):
    """Three digits or more."""
    if not isinstance(value, float):
        return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)
    if value == 0 or not math.isfinite(value):
        return str(value)
    if abs(value) < 1e-3:
        return f"{value:.1e}"
    digits = max(0, 2 - math.floor(math.log10(abs(value))))
    return f"{value:,.{digits}f}"


def series_name(row):
    return f"{row['op']} {SHORT.get(row['dtype'], row['dtype'])}"


def series(rows, wanted=lambda row: True):
    """{name: {length: row}}, in the order they come."""
    found = {}
    for row in rows:
        if "ps_per_token_channel" in row and wanted(row):
            found.setdefault(series_name(row), {})[row["length"]] = row
    return found


# ---- plots ----

WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 880, 470, 62, 190, 74, 52
STYLE = """
:root { color-scheme: light dark; }
text { font-family: system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif;
  font-size: 12px; fill: #1c232b; font-variant-numeric: tabular-nums; }
.ground { fill: #ffffff; } .title { font-size: 18px; font-weight: 600; }
.subtitle { font-size: 13px; fill: #5d6873; } .tick { font-size: 11.5px; fill: #5d6873; }
.grid { stroke: #e9ebed; } .axis { stroke: #a9b1b9; }
.floor { stroke: #7a858f; stroke-dasharray: 5 4; }
.line { fill: none; stroke-width: 1.6; } .own { stroke-width: 2.8; }
@media (prefers-color-scheme: dark) {
  .ground { fill: #14181d; } text { fill: #e4e8ec; } .subtitle, .tick { fill: #98a3ae; }
  .grid { stroke: #252c34; } .axis { stroke: #4c5863; } }
"""
OWN_COLOURS = ("#1f6091", "#2a8577", "#5b8fc7", "#4f7f5d", "#3c6a8c")
PEER_COLOURS = ("#b4532a", "#8a4fa3", "#a8801c", "#c2476a", "#7a6652", "#8f6b3a")


def escape(text):
    return str(text).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;").replace('"', "&quot;")


def text(x, y, content, css="", anchor="start", colour=None):
    fill = f' style="fill: {colour}"' if colour else ""
    return (f'<text x="{x:.1f}" y="{y:.1f}" class="{css}" text-anchor="{anchor}"{fill}>'
            f"{escape(content)}</text>")


def spread_out(heights, gap):
    """Heights of labels at least `gap` apart, in the same order, near where they were wanted."""
    order = sorted(range(len(heights)), key=lambda i: heights[i])
    placed = [heights[i] for i in order]
    for _ in range(200):
        moved = False
        for i in range(1, len(placed)):
            short = gap - (placed[i] - placed[i - 1])
            if short > 1e-6:
                placed[i - 1] -= short / 2
                placed[i] += short / 2
                moved = True
        if not moved:
            break
    result = [0.0] * len(heights)
    for i, height in zip(order, placed):
        result[i] = height
    return result


def plot(title, subtitle, lines, floor=None):
    """An SVG of ps per token and channel over length, both logarithmic. lines: {name: {length: row}}."""
    points = {name: sorted((n, r["ps_per_token_channel"]) for n, r in rows.items())
              for name, rows in lines.items() if rows}
    lengths = [n for line in points.values() for n, _ in line]
    values = [v for line in points.values() for _, v in line] + ([floor] if floor else [])
    low, high = math.log2(min(lengths)), math.log2(max(lengths))
    if high == low:
        low, high = low - 1, high + 1
    bottom, top = math.floor(math.log10(min(values)) * 2) / 2, math.ceil(math.log10(max(values)) * 2) / 2
    if top == bottom:
        top += 0.5

    def x(n):
        return LEFT + (math.log2(n) - low) / (high - low) * (WIDTH - LEFT - RIGHT)

    def y(v):
        return HEIGHT - BOTTOM - (math.log10(v) - bottom) / (top - bottom) * (HEIGHT - TOP - BOTTOM)

    out = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" '
           f'height="{HEIGHT}" role="img" aria-label="{escape(title)}">', f"<style>{STYLE}</style>",
           f'<rect class="ground" width="{WIDTH}" height="{HEIGHT}"/>', text(LEFT, 30, title, "title"),
           text(LEFT, 52, subtitle, "subtitle")]
    for decade in range(math.floor(bottom), math.ceil(top) + 1):
        for factor in (1, 2, 5):
            v = factor * 10.0**decade
            if bottom - 1e-9 <= math.log10(v) <= top + 1e-9:
                out.append(f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y(v):.1f}" '
                           f'y2="{y(v):.1f}"/>')
                out.append(text(LEFT - 8, y(v) + 4, f"{v:g}", "tick", "end"))
    for power in range(math.ceil(low), math.floor(high) + 1):
        if power % 2 == 0 or high - low < 8:
            at = x(2.0**power)
            out.append(f'<line class="grid" x1="{at:.1f}" x2="{at:.1f}" y1="{TOP}" y2="{HEIGHT - BOTTOM}"/>')
            out.append(text(at, HEIGHT - BOTTOM + 18, human(1 << power), "tick", "middle"))
    out.append(f'<path class="axis line" d="M{LEFT} {TOP}V{HEIGHT - BOTTOM}H{WIDTH - RIGHT}"/>')
    out.append(text(LEFT + (WIDTH - LEFT - RIGHT) / 2, HEIGHT - 12, "tokens of a sequence", "tick", "middle"))

    labels = []  # (wanted height, content, colour, css)
    if floor:
        out.append(f'<line class="floor" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y(floor):.1f}" '
                   f'y2="{y(floor):.1f}"/>')
        labels.append((y(floor), f"floor: a copy, {floor:.2f}", None, "tick"))
    counts = {True: 0, False: 0}
    for name, line in points.items():
        own = name.startswith(OURS)
        colours = OWN_COLOURS if own else PEER_COLOURS
        colour = colours[counts[own] % len(colours)]
        counts[own] += 1
        path = "M" + "L".join(f"{x(n):.1f} {y(v):.1f}" for n, v in line)
        out.append(f'<path class="line{" own" if own else ""}" style="stroke: {colour}" d="{path}"/>')
        for n, v in line:
            out.append(f'<circle cx="{x(n):.1f}" cy="{y(v):.1f}" r="{3 if own else 2.2}" fill="{colour}">'
                       f"<title>{escape(name)}, {human(n)} tokens: {number(float(v))} ps</title></circle>")
        labels.append((y(line[-1][1]), name, colour, ""))
    for (_, content, colour, css), height in zip(labels, spread_out([l[0] for l in labels], 15)):
        out.append(text(WIDTH - RIGHT + 10, height + 4, content, css, colour=colour))
    return "\n".join(out) + "\n</svg>\n"


# ---- tables ----


def table(head, rows, left=1):
    """Markdown; the first `left` columns are text, the others numbers."""
    lines = ["| " + " | ".join(head) + " |",
             "|" + "".join("---|" if i < left else "---:|" for i in range(len(head)))]
    lines += ["| " + " | ".join(str(cell).replace("|", "\\|").replace("\n", " ") for cell in row) + " |"
              for row in rows]
    return lines


def by_length(lines, cell=lambda row: number(float(row["ps_per_token_channel"]))):
    lengths = sorted({n for rows in lines.values() for n in rows})
    return table(["tokens", *lines],
                 [[human(n), *(cell(rows[n]) if n in rows else "" for rows in lines.values())]
                  for n in lengths])


def times_faster(own, peers):
    """How many times longer each peer takes than `own` at the same length."""
    lengths = sorted(n for n in own if any(n in rows for rows in peers.values()))
    return table(["tokens", *peers],
                 [[human(n), *(number(rows[n]["ps_per_token_channel"] / own[n]["ps_per_token_channel"])
                               if n in rows else "" for rows in peers.values())] for n in lengths])


def any_table(rows):
    """Rows of whatever scalars they have."""
    rows = [row for row in rows if isinstance(row, dict)]
    keys = list(dict.fromkeys(key for row in rows for key, value in row.items()
                              if isinstance(value, (str, int, float))))
    return table([key.replace("_", " ") for key in keys],
                 [[number(row[key]) if key in row else "" for key in keys] for row in rows])


# ---- the page ----


def about(name, run):
    device = run.get("device", {})
    words = [str(device.get("name", "unknown device"))]
    for key, label in (("driver_version", "driver"), ("cuda", "CUDA"), ("torch", "torch")):
        if device.get(key):
            words.append(f"{label} {device[key]}")
    changes = " with uncommitted changes" if run.get("changes") else ""
    return (f"{', '.join(words)}; commit `{str(run.get('commit', '?'))[:12]}`{changes}, "
            f"{str(run.get('date', '?'))[:10]}; [{name}]({name})")


def models_of(run):
    """What `longwave bench model` wrote: one object, or rows of them."""
    model = run.get("model") or {}
    return model.get("rows") or ([model] if model else [])


def failures(rows):
    bad = [row for row in rows if row.get("failed") or row.get("reason")]
    return [f"- {row['op']}{' ' + SHORT.get(row['dtype'], row['dtype']) if row.get('dtype') else ''}, "
            f"{human(row['length'])} tokens: {row.get('failed') or row.get('reason')}" for row in bad]


def peers_section(name, run, plots):
    stem = pathlib.Path(name).stem
    ops = (run.get("longwave") or {}).get("ops") or {}
    own_rows, peer_rows = ops.get("rows", []), run.get("peers", [])
    lines = series(own_rows, lambda row: row["op"].startswith(OURS) and "gates" not in row["op"])
    peers = series(peer_rows)
    out = ["## Beside the peers, in one run", "", about(name, run), ""]
    ceilings = run.get("ceilings") or {}
    floor = None
    if ceilings:
        floor = 4e3 / ceilings["copy_gigabytes_per_second"]
        out += [f"A copy moves {number(float(ceilings['copy_gigabytes_per_second']))} GB/s (read and "
                f"written), a bf16 product of 8192 x 8192 matrices runs at "
                f"{number(float(ceilings['matmul_teraflops']))} TFLOP/s. What reads and writes two bytes a "
                f"token and channel cannot take less than {floor:.2f} ps.", ""]
    if lines or peers:
        shown = {k: v for k, v in lines.items() if k.endswith("bf16")} | {
            k: v for k, v in peers.items() if k.endswith("bf16")}
        plots[f"gpu-{stem}-bf16.svg"] = plot(
            "Time per token and channel over the sequence's length",
            f"picoseconds, bf16, 768 channels, forward; {run['device'].get('name', '')}",
            shown or lines | peers, floor)
        out += [f"![Picoseconds per token and channel over length](gpu-{stem}-bf16.svg)", "",
                "Picoseconds per token and channel:", "", *by_length(lines | peers), ""]
    for own in ("SsmConv dual bf16", "LongConv bf16", "LongConv fp16"):
        if own in lines and peers:
            out += [f"How many times longer the peers take than {own}:", "",
                    *times_faster(lines[own], peers), ""]
    if run.get("generation"):
        out += ["Generation:", "", *any_table(run["generation"]), ""]
    models = models_of(run.get("longwave") or {})
    if models:
        out += ["Longwave's models in the same run:", "", *any_table(models), ""]
    missing = failures(peer_rows) + failures(ops.get("failures", [])) + [
        f"- {text}" for text in run.get("left_out", [])]
    if missing:
        out += ["Left out or failed:", "", *missing, ""]
    return out


def check_section(name, run, plots):
    stem = pathlib.Path(name).stem
    out = ["## Tests and operators", "", about(name, run), ""]
    if run.get("tests"):
        out += table(["tests", "passed", "skipped", "failed", "seconds"],
                     [[t["program"], t["passed"], t["skipped"], t["failed"], t["seconds"]]
                      for t in run["tests"]])
        out += ["", *(f"- failed: {test}" for t in run["tests"] for test in t["failures"]), ""]
    if run.get("sanitizers"):
        out += table(["compute-sanitizer", "tool", "clean", "found", "seconds"],
                     [[t["program"], t["tool"], "yes" if t["clean"] else "NO", t["found"], t["seconds"]]
                      for t in run["sanitizers"]], 2)
        out.append("")
    ops = run.get("ops") or {}
    rows = ops.get("rows", [])
    lines = series(rows, lambda row: row["op"].startswith(OURS) and row["length"] > 1)
    copy = next((row for row in rows if row["op"] == "copy"), None)
    if lines:
        short = {k: v for k, v in lines.items() if not k.startswith("LongConv") and len(v) > 1}
        long = {k: v for k, v in lines.items() if k.startswith("LongConv") and len(v) > 1}
        floor = 4e3 / copy["gigabytes_per_second"] if copy else None
        for part, title, shown in (("ssm", "SsmConv and H3Mix", short), ("long", "LongConv", long)):
            if not shown:
                continue
            plots[f"gpu-{stem}-{part}.svg"] = plot(
                f"{title}: time per token and channel", "picoseconds, forward; "
                f"{run.get('device', {}).get('name', '')}", shown, floor)
            out += [f"![{title}](gpu-{stem}-{part}.svg)", "", *by_length(shown), ""]
    if rows:
        out += ["Every row. Times are medians between events on the device, the cache flushed before each "
                "run; bytes are arrays read and written once, operations the useful ones.", ""]
        out += table(["operator", "type", "batch", "tokens", "channels", "ps per token and channel",
                      "fastest to slowest", "GB/s", "TFLOP/s", "times as fast as", "relative error"],
                     [[row["op"], SHORT.get(row["dtype"], row["dtype"]), row["batch"], human(row["length"]),
                       row["channels"], number(float(row["ps_per_token_channel"])),
                       f"{number(float(row['ps_fastest']))} to {number(float(row['ps_slowest']))}",
                       number(float(row["gigabytes_per_second"])), number(float(row["teraflops"])),
                       f"{number(float(row['ratio']))} {row['baseline']}",
                       number(float(row["relative_error"]))] for row in rows], 2)
        out.append("")
    models = models_of(run)
    if models:
        out += ["Models:", "", *any_table(models), ""]
    missing = failures(ops.get("failures", []))
    if missing:
        out += ["Failed:", "", *missing, ""]
    return out


def runs_of(folder):
    """(name, run) of every JSON file of a known kind, newest first."""
    found = []
    for path in sorted(folder.glob("*.json")):
        run = json.loads(path.read_text())
        if isinstance(run, dict) and run.get("kind") in KINDS:
            found.append((path.name, run))
    return sorted(found, key=lambda item: str(item[1].get("date", "")), reverse=True)


def what_is_in(run):
    """A run is older than another only where that has all that it has."""
    parts = [key for key in ("tests", "sanitizers", "ops", "model", "generation") if run.get(key)]
    return tuple(parts + sorted({row["op"] for row in run.get("peers", [])}))


def make_page(folder):
    """{file name: content}"""
    runs, plots, shown, older = runs_of(folder), {}, set(), []
    out = ["<!-- Made by gpu_page.py from the JSON files of this folder: edit those, not this. -->",
           "# On a GPU", "",
           "`./dev gpu-bundle` makes a folder for a machine with a GPU; `gpu-check` in it runs the tests and "
           "the benches, `tests/bench/gpu_peers.py` times the peers beside them. Their JSON files stand in "
           "this folder, and `gpu_page.py` makes this page of them.", ""]
    if not runs:
        out += ["No run is committed yet.", ""]
    for kind, section in (("gpu-peers", peers_section), ("gpu-check", check_section)):
        for name, run in runs:
            if run["kind"] != kind:
                continue
            key = (kind, run.get("device", {}).get("name"), what_is_in(run))
            if key in shown:
                older.append((name, run))
                continue
            shown.add(key)
            out += section(name, run, plots)
    if older:
        out += ["## Earlier runs", "", *(f"- {about(name, run)}" for name, run in older), ""]
    return {"gpu.md": "\n".join(out).rstrip() + "\n", **plots}


def main():
    parser = argparse.ArgumentParser(description="Makes gpu.md and its plots")
    parser.add_argument("--folder", type=pathlib.Path, default=HERE)
    parser.add_argument("--check", action="store_true")
    options = parser.parse_args()
    page = make_page(options.folder)
    old = {path.name for path in options.folder.glob("gpu-*.svg")}
    if options.check:
        wrong = sorted(old - set(page)) + [
            name for name, content in page.items()
            if not (options.folder / name).exists() or (options.folder / name).read_text() != content]
        if wrong:
            sys.exit(f"gpu_page.py: {', '.join(wrong)}: not what the JSON files say; run gpu_page.py")
        return
    for name in old - set(page):
        (options.folder / name).unlink()
    for name, content in page.items():
        (options.folder / name).write_text(content)
    print(f"gpu_page.py: {', '.join(page)}")


if __name__ == "__main__":
    main()
