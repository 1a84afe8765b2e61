"""The plot of one run of autoscale.py: queue, workers and drain seconds over time, as SVG."""

import math
import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2] / "docs" / "benchmarks"))
import gpu_page  # noqa: E402
from gpu_page import text  # noqa: E402

WIDTH, LEFT, RIGHT, TOP, PANEL, GAP = 880, 70, 150, 70, 150, 34
STYLE = gpu_page.STYLE + ".line { stroke-width: 2.2; } .target { stroke: #7a858f; stroke-dasharray: 5 4; }\n"
TITLES = {"hpa": "A burst of 50 jobs of a million tokens, scaled by an HPA from 1 to 32 workers",
          "keda": "The same burst, scaled by KEDA from 0 to 32 workers",
          "trickle": "The burst, and then a job every 25 s: the pool shrinks while it works"}


def step(most):
    """A round number that divides 0 to `most` into 3 to 6 parts."""
    size = 10 ** math.floor(math.log10(most))
    return next(part * size for part in (0.2, 0.25, 0.5, 1, 2) if most / (part * size) <= 6)


def plot(run):
    samples = run["samples"]
    end = samples[-1]["at"]
    panels = [("queue, million tokens", [("queued", "#1f6091", [(s["at"], s["queue_tokens"] / 1e6) for s in samples
                                                               if s["queue_tokens"] is not None])]),
              ("workers", [("pods", "#b4532a", [(s["at"], s["pods"]) for s in samples]),
                           ("with work", "#2a8577", [(s["at"], s["working"]) for s in samples])]),
              ("drain, seconds", [("drain", "#8a4fa3", [(s["at"], min(s["drain_seconds"], 600)) for s in samples
                                                       if s["drain_seconds"] is not None])])]
    height = TOP + 3 * PANEL + 2 * GAP + 46

    def x(at):
        return LEFT + at / end * (WIDTH - LEFT - RIGHT)

    out = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}" '
           f'role="img" aria-label="{TITLES[run["policy"]]}">', f"<style>{STYLE}</style>",
           f'<rect class="ground" width="{WIDTH}" height="{height}"/>', text(LEFT, 30, TITLES[run["policy"]], "title"),
           text(LEFT, 51, f'drained after {run["drained_seconds"]:.0f} s; {run["chunks_computed_again"]} of '
                          f'{run["chunks"]} chunks computed again', "subtitle")]
    for number, (title, lines) in enumerate(panels):
        top = TOP + number * (PANEL + GAP)
        most = max(1e-9, *(value for _, _, points in lines for _, value in points))
        part = step(most)
        scale = PANEL / (math.ceil(most / part) * part)
        for i in range(math.ceil(most / part) + 1):
            y = top + PANEL - i * part * scale
            out.append(f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>')
            out.append(text(LEFT - 8, y + 4, f"{i * part:g}", "tick", "end"))
        out.append(text(LEFT, top - 8, title + (", cut at 600" if number == 2 and most >= 600 else ""), "tick"))
        if number == 2:
            y = top + PANEL - 120 * scale
            out.append(f'<line class="target" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>')
            out.append(text(WIDTH - RIGHT + 10, y + 4, "target, 120", "tick"))
        for i, (name, colour, points) in enumerate(lines):
            path = "M" + "L".join(f"{x(at):.1f} {top + PANEL - value * scale:.1f}" for at, value in points)
            out.append(f'<path class="line" style="stroke: {colour}" d="{path}"/>')
            out.append(text(WIDTH - RIGHT + 10, top + 14 + 16 * i, name, colour=colour))
    part = step(end)
    for i in range(int(end / part) + 1):
        out.append(text(x(i * part), height - 26, f"{i * part:g}", "tick", "middle"))
    out.append(text(LEFT + (WIDTH - LEFT - RIGHT) / 2, height - 8, "seconds since the burst", "tick", "middle"))
    return "\n".join(out) + "\n</svg>\n"
