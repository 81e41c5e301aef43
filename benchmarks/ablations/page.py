"""docs/ABLATIONS.md: the tables between its markers, written from the results."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import mean
from typing import Any

from benchmarks.ablations.judging import KINDS, QUARTERS
from benchmarks.ablations.rows import Settings
from benchmarks.ablations.tables import BOTH, PAPER, STREAM, TABLES, TREE
from benchmarks.report import line, updated

Records = Sequence[Mapping[str, Any]]
Found = Mapping[str, Records]  # by the row's name
CONFIDENCES, GAMMAS = (0.0, 0.2, 0.4, 0.6, 0.8), (1, 2, 4, 6)


def spread(values: Sequence[float]) -> str:
    """The mean, and from the least to the largest."""
    if len(values) == 1:
        return f"{values[0]:.2f}"
    return f"{mean(values):.2f} ({min(values):.2f} to {max(values):.2f})"


def ratio_of(record: Mapping[str, Any], kind: str) -> float:
    """CR under the record's best rule."""
    return float(record["texts"][kind]["best"][2])


def values_of(records: Records, confidence: float, depth: int, place: int) -> list[float]:
    """Of every seed, on code: a number of this stopping rule."""
    rules = (rule for record in records for rule in record["texts"]["code"]["rules"])
    return [rule[place] for rule in rules if rule[:2] == [confidence, depth]]


def rows_table(names: Sequence[str], found: Found) -> list[str]:
    """A line for each row, with its seeds."""
    head = ("", "seeds", "loss", *(f"CR, {kind}" for kind in KINDS), "CR of 6 drafts, code")
    head += ("speed-up, code", "added parameters", "a step reads", "a round rewrites with")
    head += ("core minutes",)
    lines = [line(head), line(["---"] * len(head))]
    for name in names:
        if records := found[name]:
            code = [record["texts"]["code"] for record in records]
            cells = [
                name,
                ", ".join(str(record["seed"]) for record in records),
                spread([record["loss"] for record in records]),
                *(spread([ratio_of(record, kind) for record in records]) for kind in KINDS),
                spread([text["full_ratio"] for text in code]),
                spread([text["best"][4] for text in code]),
                *(f"{records[0][n]:,}" for n in ("parameters", "step_parameters")),
                f"{records[0]['refresh_parameters']:,}",
                spread([record["cpu_s"] / 60 for record in records]),
            ]
            lines.append(line(cells))
        else:
            lines.append(line([name, "not yet measured", *[""] * (len(head) - 2)]))
    return lines


def rules_table(
    found: Found,
    head: str,
    rules: Sequence[tuple[float, int]],
    named: Sequence[str],
) -> list[str]:
    """CR and predicted speed-up on code of the same adapters under these stopping rules."""
    lines = [line((head, *named)), line(["---"] * (1 + len(named)))]
    for name in BOTH:
        for label, place in (("CR", 2), ("drafts a round", 3), ("speed-up", 4)):
            cells = []
            for confidence, depth in rules:
                values = values_of(found[name], confidence, depth, place)
                cells.append(spread(values) if values else "not yet measured")
            lines.append(line((f"{name}: {label}", *cells)))
    return lines


def thresholds(found: Found) -> list[str]:
    """By confidence, at the paper's depth."""
    rules = [(confidence, 6) for confidence in CONFIDENCES]
    return rules_table(found, "confidence, depth 6", rules, [f"{c}" for c in CONFIDENCES])


def gammas(found: Found) -> list[str]:
    """By depth: fixed drafts, and those that end where the drafter is unsure."""
    rules = [(confidence, depth) for depth in GAMMAS for confidence in (0.0, 0.4)]
    named = [f"{depth}, {kind}" for depth in GAMMAS for kind in ("fixed", "dynamic (0.4)")]
    return rules_table(found, "depth", rules, named)


def gain(found: Found) -> list[str]:
    """Every row's CR over the paper's, seed by seed."""
    paper = {record["seed"]: record for record in found[PAPER]}
    lines = [line(("CR over the paper's, of equal seeds", *KINDS)), line(["---"] * 3)]
    for name in (name for name in TABLES["prefix"] if name != PAPER):
        pairs = [
            (record, paper[record["seed"]]) for record in found[name] if record["seed"] in paper
        ]
        if pairs:
            cells = [
                spread([ratio_of(own, kind) / ratio_of(base, kind) for own, base in pairs])
                for kind in KINDS
            ]
            lines.append(line((name, *cells)))
    return lines


def trees(found: Found) -> list[str]:
    """CR of chains and trees of equal depth, and drafted tokens a round."""
    lines = []
    for name in TREE:
        by_rule: dict[float, dict[str, list[tuple[float, float]]]] = {}
        for record in found[name]:
            for row in record["trees"]:
                ratios = by_rule.setdefault(row["confidence"], {}).setdefault(row["name"], [])
                ratios.append((row["compression_ratio"], row["drafted_per_round"]))
        for confidence, drafted in by_rule.items():
            if not lines:
                lines = [line(("CR (drafted a round)", *drafted))]
                lines.append(line(["---"] * (1 + len(drafted))))
            cells = []
            for pairs in drafted.values():
                ratio, count = zip(*pairs, strict=True)
                cells.append(f"{spread(ratio)}, {mean(count):.1f}")
            lines.append(line((f"{name}, confidence {confidence}", *cells)))
    return lines or ["Not yet measured."]


def streams(found: Found) -> list[str]:
    """CR along a stream of prose: as trained, and learning from what was verified."""
    head = ("CR on prose", *(f"quarter {n + 1}" for n in range(QUARTERS)))
    lines = [line(head), line(["---"] * len(head))]
    for name in STREAM:
        for way in ("frozen", "learning") if found[name] else ():
            quarters = zip(*(record["stream"][way] for record in found[name]), strict=True)
            lines.append(line((f"{name}: {way}", *map(spread, quarters))))
    return lines if len(lines) > 2 else ["Not yet measured."]


def drafters(race: Mapping[str, Any] | None) -> list[str]:
    """What benchmarks/drafters.py has recorded of each drafter."""
    if race is None:
        return ["Not yet measured."]
    head = ("drafter", "added parameters", "KB a draft step reads", "sure", "CR", "drafts a round")
    head += ("drafting, of a plain round", "speed-up")
    lines = [line(head), line(["---"] * len(head))]
    for row in race["results"]:
        cells = [f"{row['added_parameters']:,}", f"{row['bytes_per_draft_step'] / 1e3:,.0f}"]
        cells += [str(row["confidence"]), f"{row['compression_ratio']:.2f}"]
        cells += [f"{row['drafts_per_round']:.2f}", f"{row['draft_over_plain_round']:.2f}"]
        lines.append(line((row["name"], *cells, f"{row['speedup_median']:.2f}")))
    return lines


def tables(found: Found) -> dict[str, list[str]]:
    """Lines by marker."""
    makers: dict[str, Callable[[Found], list[str]]] = {
        "gain": gain,
        "threshold": thresholds,
        "gamma": gammas,
        "tree": trees,
        "stream": streams,
    }
    rows = {
        name: rows_table(list(table), found) for name, table in TABLES.items() if name not in makers
    }
    return rows | {name: make(found) for name, make in makers.items()}


def write_page(
    page: Path, found: Found, settings: Settings, race: Mapping[str, Any] | None
) -> None:
    """Put every table between its markers.

    Args:
        race: the last record of benchmarks/drafters.py.

    Raises:
        ValueError: a marker is missing, or there twice.
    """
    text = page.read_text(encoding="utf-8")
    given = (
        f"{settings.num_steps} steps of {settings.batch_size} x {settings.seq_len} tokens, "
        f"{settings.num_prompts} prompts of each kind, {settings.new_tokens} tokens each."
    )
    every = tables(found) | {"drafters": drafters(race), "settings": [given]}
    for name, lines in every.items():
        text = updated(text, "ablation", name, lines)
    page.write_text(text, encoding="utf-8")
