"""docs/ablations.svg: what docs/ABLATIONS.md says in numbers, as far as it is measured."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from statistics import mean
from typing import Any

import matplotlib as mpl

mpl.use("svg")
import matplotlib.pyplot as plt
from matplotlib.axes import Axes

from benchmarks.ablations.judging import KINDS
from benchmarks.ablations.page import CONFIDENCES, GAMMAS, Found, ratio_of, values_of
from benchmarks.ablations.tables import BOTH, EXIT, EXIT_LAYER, TABLES

COLOURS = {"paper": "#0072b2", "deep_prefix": "#d55e00", "code": "#0072b2", "prose": "#e69f00"}
CR, SPEEDUP = 2, 4  # places in a rule of a record
LABEL = "predicted speed-up, code"


def draw(path: Path, found: Found) -> None:
    """Four panels; the same file for the same records."""
    style = {"svg.hashsalt": "kangaroo", "font.size": 9, "axes.spines.top": False}
    with mpl.rc_context(style | {"axes.spines.right": False}):
        figure, axes = plt.subplots(2, 2, figsize=(10, 7), layout="constrained")
        rules(axes[0, 0], found)
        depths(axes[0, 1], found)
        bars(axes[1, 0], found)
        exits(axes[1, 1], found)
        figure.savefig(path, metadata={"Date": None})
        plt.close(figure)


def band(axes: Axes, x: Sequence[float], values: Sequence[Sequence[float]], **style: Any) -> None:
    """Means of seeds, and from the least to the largest."""
    kept = [(place, own) for place, own in zip(x, values, strict=True) if own]
    places, all_seeds = [place for place, _ in kept], [own for _, own in kept]
    axes.plot(places, [mean(own) for own in all_seeds], marker="o", markersize=3, **style)
    low, high = ([end(own) for own in all_seeds] for end in (min, max))
    axes.fill_between(places, low, high, color=style.get("color"), alpha=0.15, linewidth=0)


def rules(axes: Axes, found: Found) -> None:
    """By confidence, at the paper's depth."""
    for name in BOTH:
        values = [values_of(found[name], confidence, 6, SPEEDUP) for confidence in CONFIDENCES]
        band(axes, CONFIDENCES, values, color=COLOURS[name], label=name)
    axes.set(xlabel="confidence that ends a draft (depth 6)", ylabel=LABEL)
    axes.legend(frameon=False)


def depths(axes: Axes, found: Found) -> None:
    """By depth: fixed drafts, and those that end where the drafter is unsure."""
    for name in BOTH:
        for confidence, dashes, way in ((0.0, ":", "fixed"), (0.4, "-", "dynamic (0.4)")):
            values = [values_of(found[name], confidence, depth, SPEEDUP) for depth in GAMMAS]
            style = {"color": COLOURS[name], "linestyle": dashes, "label": f"{name}, {way}"}
            band(axes, GAMMAS, values, **style)
    axes.set(xlabel="depth", ylabel=LABEL, xticks=GAMMAS)
    axes.legend(frameon=False)


def bars(axes: Axes, found: Found) -> None:
    """CR by what verified slots are made of."""
    names = [name for name in TABLES["prefix"] if found[name]]
    for n, kind in enumerate(KINDS):
        seeds = [[ratio_of(record, kind) for record in found[name]] for name in names]
        middle = [mean(own) for own in seeds]
        spans = [
            [m - min(own) for m, own in zip(middle, seeds, strict=True)],
            [max(own) - m for m, own in zip(middle, seeds, strict=True)],
        ]
        places = [place + 0.4 * n for place in range(len(names))]
        axes.barh(places, middle, 0.38, xerr=spans, color=COLOURS[kind], label=kind)
    axes.set_yticks([place + 0.2 for place in range(len(names))], names)
    axes.invert_yaxis()
    axes.set(xlabel="CR, fastest rule", xlim=(1, None))
    axes.legend(frameon=False)


def exits(axes: Axes, found: Found) -> None:
    """By the exit layer of the paper's adapter: CR and predicted speed-up."""
    layers = [row.shape.exit_layer for row in EXIT_LAYER.values()]
    for place, dashes, label in ((CR, ":", "CR"), (SPEEDUP, "-", "predicted speed-up")):
        values = [
            [record["texts"]["code"]["best"][place] for record in found[name]]
            for name in EXIT_LAYER
        ]
        band(axes, layers, values, color=COLOURS["paper"], linestyle=dashes, label=label)
    axes.axvline(EXIT, color="#999999", linewidth=0.5)
    axes.set(xlabel="exit layer of 16 (paper's adapter)", xticks=layers)
    axes.legend(frameon=False)
