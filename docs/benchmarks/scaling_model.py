"""How long a run over several workers takes: the recurrence that scaling.md explains, its parameters for the
models that there are, and their fit on what was measured. Times are in seconds."""

import dataclasses
import math
import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).parents[2] / "tests" / "bench"))
from random_model import D_STATE, SHAPES  # noqa: E402

# Until a run over several GPUs says it: a message between two workers on one host, seconds and bytes a second.
ASSUMED_LINKS = {"nccl": (60e-6, 100e9), "zmq": (200e-6, 2e9)}
ASSUMED_JOB = 0.010  # seconds of a job that do not depend on its length: what simulated devices' took on a disk
ASSUMED_DISPATCH = 0.4e-3  # of the scheduler's thread, a chunk
STATE_SHARE = 0.5  # of the mixer's time, for the pass over k and v that makes the state alone


@dataclasses.dataclass
class Run:
    """A sequence of `chunks` on `workers`: see scaling.md for the letters."""
    layers: int
    layer: float  # tau
    head: float = 0  # h: of a chunk, outside of the layers
    early: float = 0.25  # e
    handover: float = 0  # delta
    job: float = 0  # j
    dispatch: float = 0  # g
    processors: float = 0  # c / cores: of simulated devices, which share them

    @property
    def chunk(self):
        return self.layers * self.layer + self.head

    def seconds(self, chunks, workers, wave=False):
        free, before, out = [0.0] * workers, None, [0.0] * self.layers
        early, late = self.early * self.layer, (1 - self.early) * self.layer
        for k in range(chunks):
            now = max(free[k % workers], k * self.dispatch)
            for layer in range(self.layers):
                came = before[layer] + self.handover if before else 0.0
                if wave:
                    now = max(now, came) + self.layer
                    out[layer] = now
                else:
                    out[layer] = max(now + early, came)
                    now = out[layer] + late
            free[k % workers] = now + self.head
            before, out = out, before or [0.0] * self.layers
        return self.job + max(max(free), chunks * self.processors)

    def closed(self, chunks, workers, wave=False):
        """The formula: right where nothing but one of its bounds matters."""
        shift = self.handover + (self.layer if wave else 0)
        rounds = math.ceil(chunks / workers)
        return self.job + max(rounds * self.chunk + (chunks - 1) % workers * shift,
                              self.chunk + (chunks - 1) * max(shift, self.dispatch),
                              chunks * self.processors)

    def efficiency(self, chunks, workers, wave=False):
        return self.seconds(chunks, 1) / workers / self.seconds(chunks, workers, wave)

    def bound(self, chunks, workers):
        """What takes most of what is lost."""
        if workers * self.dispatch > max(self.chunk, workers * self.handover):
            return "scheduler"
        if workers * self.handover > self.chunk:
            return "chain"
        rounds = math.ceil(chunks / workers)
        losses = {"rounds": (rounds - chunks / workers) * self.chunk, "job": self.job,
                  "fill": (workers - 1) * self.handover}
        return max(losses, key=losses.get)


def state_bytes(shape):
    """What is on the chain: a layer's SSM state. The halo does not wait for the chunk before."""
    return SHAPES[shape][0] * D_STATE * 4


def handover(shape, link):
    latency, bandwidth = ASSUMED_LINKS[link]
    return latency + state_bytes(shape) / bandwidth


# ---- what one GPU takes ----


def parts_of(rows):
    """The newest measured row of each shape and chunk, `longwave bench model` score."""
    return {(row["shape"], row["chunk"]): row for row in rows if row.get("task") == "score"}


def model_run(measured, shape, chunk):
    """A Run of `shape` in chunks of `chunk`, on one H100, without links. measured: parts_of(). A shape that was
    not measured is h3-125m's: products as the square of d_model, all else in proportion to it."""
    known = {size: row for (name, size), row in measured.items() if name == shape}
    source = shape if known else "h3-125m"
    known = known or {size: row for (name, size), row in measured.items() if name == source}
    size = min(known, key=lambda size: abs(math.log(size / chunk)))
    row = known[size]
    wide = SHAPES[shape][0] / SHAPES[source][0]
    share = 1 / (row["tokens"] * SHAPES[source][1])  # of a token and layer
    parts = row["part_seconds"]
    products = {name: parts[name] * share * wide * wide for name in ("qkv gemm", "out gemm", "mlp")}
    mix = parts["mix"] * share * wide
    state = parts.get("state", 0) * share * wide or STATE_SHARE * mix
    per_token = sum(products.values()) + mix + state
    head = (parts["loss"] + parts["embedding"] + parts["last norm"]) / row["tokens"] * wide
    return Run(layers=SHAPES[shape][1], layer=per_token * chunk + launch(measured), head=head * chunk,
               early=(products["qkv gemm"] + state) / per_token)


def launch(measured):
    """Seconds of a layer that do not depend on the chunk: what h3-125m takes longer in short chunks."""
    rows = sorted((chunk, row) for (shape, chunk), row in measured.items() if shape == "h3-125m")
    if len(rows) < 2:
        return 0.0
    (_, short), (_, long) = rows[0], rows[-1]
    more = short["seconds"] / short["tokens"] - long["seconds"] / long["tokens"]
    return max(0.0, more / (1 / rows[0][0] - 1 / rows[-1][0]) / SHAPES["h3-125m"][1])


# ---- the fit on runs of tests/bench/scaling.py ----


@dataclasses.dataclass
class Fit:
    chunk: float  # T
    job: float  # j
    round: float  # r
    handover: float  # delta


def fit(rows, way):
    """Of rows of one model, chunk and kind of device: T and j from the runs of one worker, r and delta, 0 or more,
    by least squares of relative errors over those of `way`. None where either are missing."""
    chunks = {id(row): math.ceil(row["tokens"] / row["chunk"]) for row in rows}
    alone = [row for row in rows if row["workers"] == 1 and chunks[id(row)] > 1]
    more = [row for row in rows if row["way"] == way and row["workers"] > 1]
    if not alone or not more:
        return None
    longest = max(alone, key=lambda row: row["tokens"])
    chunk = ((longest["last_commit_seconds"] - longest["first_commit_seconds"]) / (chunks[id(longest)] - 1))
    job = max(0.0, min(min(row["seconds"]) - chunks[id(row)] * chunk for row in alone))
    equations = []  # rounds r + steps delta = excess, all over the run's time
    for row in more:
        rounds, steps = math.ceil(chunks[id(row)] / row["workers"]), (chunks[id(row)] - 1) % row["workers"]
        excess = min(row["seconds"]) - job - rounds * chunk
        equations.append([value / min(row["seconds"]) for value in (rounds, steps, excess)])
    each, handover = least_squares(equations)
    return Fit(chunk, job, each, handover)


def least_squares(equations):
    """(x, y), neither below 0, for equations a x + b y = c."""
    aa, ab, bb, ac, bc = (sum(values) for values in zip(*(
        (a * a, a * b, b * b, a * c, b * c) for a, b, c in equations)))
    determinant = aa * bb - ab * ab
    if determinant > 1e-9 * aa * bb:
        x, y = (bb * ac - ab * bc) / determinant, (aa * bc - ab * ac) / determinant
        if x >= 0 and y >= 0:
            return x, y
    only_x, only_y = max(0.0, ac / aa) if aa else 0.0, max(0.0, bc / bb) if bb else 0.0
    return min(((only_x, 0.0), (0.0, only_y)), key=lambda found: sum(
        (a * found[0] + b * found[1] - c)**2 for a, b, c in equations))
