"""docs/cuda.md from what `make bench-cuda` measured (docs/cuda.json)."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, cast

ROOT = Path(__file__).parents[2]
RESULTS, PAGE = ROOT / "docs" / "cuda.json", ROOT / "docs" / "cuda.md"

HEAD = """# CUDA

`flowc build model.yaml --target ort-cuda --dtype float16` (or `bfloat16`, or `float32`) makes graphs for onnxruntime's
CUDA provider; which kernels they use, and why, is in [the tables](targets.md). A build needs no GPU: graphs in float32
and float16 are run on the CPU and compared as ever; for bfloat16 the CPU has no kernels, so that what each kernel means
in numpy stands for it, and the build says so. `flowc run --provider cuda` runs them, caches on the device.

| form | options | cache |
| --- | --- | --- |
| always right, any padding | none | aligned: grows with the tokens |
| the same over a buffer of fixed length, for captured decode | `--cache static` | shared |
| faster, for right padding alone | `--assume right-padding`, for captured decode with `--cache static` | compact |

With `--assume right-padding` a unified graph takes several new tokens over a past in a batch of one: the kernel refuses
others with an error. float32 has no GroupQueryAttention, and so no static cache.

A GPU machine needs onnxruntime-gpu in place of onnxruntime: both install into the same folder, so only one of them may
be there.

Written by `python -m tests.bench.cuda --page` from `docs/cuda.json`, which `make bench-cuda` fills.
"""


def page(found: Mapping[str, Any]) -> str:
    """The page."""
    lines = [HEAD, f"{found['device']}; onnxruntime {found['onnxruntime']}; {found['date']}.", ""]
    for name, dtypes in found["shapes"].items():
        lines += [f"## {name}", "", *_times(dtypes)]
    lines += ["## Families", "", *_families(found["families"])]
    return "\n".join(lines) + "\n"


def _times(dtypes: Mapping[str, Any]) -> Iterator[str]:
    yield "Medians in milliseconds, timed turn about in one process, everything on the device; `captured` runs as a"
    yield "CUDA graph. `fused` is `--assume right-padding --cache static`, `default` is `--cache static`; the peer is"
    yield "the graph of onnxruntime-genai's builder 0.18.0, which leaves capture off."
    yield ""
    timed = {(d, what): _times_of(calls[what]) for d, calls in dtypes.items() for what in calls}
    labels = list(dict.fromkeys(label for times in timed.values() for label in times))
    yield f"| | {' | '.join(labels)} | fused / peer | default / fused |"
    yield f"| --- |{' --- |' * (len(labels) + 2)}"
    for (dtype, what), times in timed.items():
        if not times:
            continue
        cells = [f"{times[label]:.2f}" if label in times else "" for label in labels]
        peer = timed.get((dtype, f"{what.rpartition(' ')[0]} plain"), {}).get("peer")
        ratios = f"{_ratio(times.get('fused'), peer)} | {_ratio(times.get('default'), times.get('fused'))}"
        yield f"| {dtype}, {what} | {' | '.join(cells)} | {ratios} |"
    yield ""
    yield "The peer of a ratio is the peer as it is shipped, uncaptured."
    yield ""


def _times_of(found: object) -> dict[str, float]:
    """Milliseconds by form; empty for what is no time of several forms."""
    return cast("dict[str, float]", found) if isinstance(found, dict) else {}


def _ratio(a: float | None, b: float | None) -> str:
    return f"{a / b:.2f}" if a and b else ""


def _families(families: Mapping[str, Any]) -> Iterator[str]:
    yield "Every example with seeded weights, each of its graphs run on the device and compared with what it means in"
    yield "float32: the largest error of an output, as a share of its largest number; and the operators that ran on the"
    yield "host beside those that work out shapes. Routers of experts choose otherwise where two are nearly as good,"
    yield "and tiny random models have many such."
    yield ""
    yield "| example | float32 | float16 | bfloat16 | on the host | copies |"
    yield "| --- | --- | --- | --- | --- | --- |"
    for name in dict.fromkeys(key.split()[0] for key in families):
        worst: dict[str, float] = {}
        host: set[str] = set()
        copies = 0
        for key, phases in families.items():
            if key.split()[0] != name:
                continue
            for facts in phases.values():
                if "error" in facts:
                    dtype = key.split()[1]
                    worst[dtype] = max([worst.get(dtype, 0.0), *facts["error"].values()])
                    host |= set(facts["off device"]) - SHAPES
                    copies = max(copies, facts["copies"])
        cells = [f"{worst[d]:.1e}" if d in worst else "not run" for d in ("float32", "float16", "bfloat16")]
        yield f"| {name} | {' | '.join(cells)} | {', '.join(sorted(host)) or '-'} | {copies} |"


SHAPES = {"Add", "Cast", "Concat", "Div", "Mul", "Neg", "Shape", "Squeeze", "Sub", "Unsqueeze", "Gather"}
"""Operators on the sizes of arrays, which are known on the host."""


def stale() -> list[str]:
    """Whether the page is not what the results say."""
    return [] if PAGE.read_text(encoding="utf-8") == page(json.loads(RESULTS.read_text())) else ["docs/cuda.md"]


def write() -> None:
    """Write the page."""
    PAGE.write_text(page(json.loads(RESULTS.read_text(encoding="utf-8"))), encoding="utf-8")
