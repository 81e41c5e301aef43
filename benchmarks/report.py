"""README's tables of figures, from benchmarks/results: `python benchmarks/report.py [--check]`.

On a GPU the newest run of benchmarks/decode.py counts of every machine, model and dtype, at a batch
of one and the shortest context from 1024 tokens on; where there is none, the table says so. On a
CPU the newest race of benchmarks/cpu_decode.py counts of every processor. `--check` changes
nothing; its exit code is 1 if README is not what would be written.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
NOT_MEASURED = "not yet measured on a GPU"
SHAPES = ("vicuna-7b", "llama-3.1-8b", "qwen3-8b", "llama-3.2-1b")
STEPS = ("AR step", "draft step", "verify", "round", "streamed round")
CONTEXT = 1024
AR, SAMPLED, OURS = "autoregressive", "sampled", ("chain", "tree", "sampled chain")
HEAD = (
    "machine",
    "command",
    "model, context",
    *(f"{step}: ms, % of copy" for step in STEPS),
    "host ms",
    "AR tokens/s",
    "drafting, times AR",
    "others, times AR",
)
CPU_HEAD = ("machine", "decoder", "tokens/s", "speed-up", "tokens per verify pass")
CPU_NAMES = {
    "native": "autoregressive (`max_depth=0`)",
    "llama.cpp": "llama.cpp",
    "transformers": "transformers' `generate`",
    "transformers compiled": "transformers' `generate`, static cache, compiled",
    "paper": "`paper` adapter",
    "deep_prefix": "`deep_prefix` adapter",
    "lookup": "copies alone (`lookup=3`)",
    "lookup, paper": "`paper` adapter and copies",
    "lookup, deep_prefix": "`deep_prefix` adapter and copies",
}
# What the kernels of float32, in which the race is run, are made of.
FLOAT32_VECTORS = {
    "amx": "AVX-512",
    "avx512_bf16": "AVX-512",
    "avx512": "AVX-512",
    "avx2": "AVX2",
    "portable": "portable",
}
Record = Mapping[str, Any]


def read(file: Path) -> list[Record]:
    """Records of one file, oldest first; none where there is no file."""
    if not file.exists():
        return []
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines() if line]


def newest(records: Iterable[Record]) -> list[list[Record]]:
    """The last run on a GPU of each machine, model, weights and dtype: all of its records."""
    runs: dict[tuple[str, ...], dict[str, list[Record]]] = {}
    for record in records:
        if record["driver"] is not None:
            key = tuple(record[name] for name in ("device", "shape", "weights", "dtype"))
            runs.setdefault(key, {}).setdefault(record["date"], []).append(record)
    return [by_date[max(by_date)] for by_date in runs.values()]


def table(records: Iterable[Record]) -> list[str]:
    """The lines of the table."""
    found = [row(run) for run in newest(records)]
    if not found:
        blank = [""] * (len(HEAD) - 4)
        found = [
            ["", f"`python benchmarks/decode.py --shape {shape}`", shape, NOT_MEASURED, *blank]
            for shape in SHAPES
        ]
    return [line(HEAD), line(["---"] * len(HEAD)), *map(line, found)]


def row(run: Sequence[Record]) -> list[str]:
    """The cells of one run; what it did not measure is left empty."""
    first = run[0]
    steps = chosen([record for record in run if "step" in record])
    context = next((record["context"] for record in steps.values()), None)
    raced = {record["contestant"]: record for record in run if "contestant" in record}
    model = f"{first['shape']}, {first['weights']} weights, {first['dtype']}"
    others = [name for name in raced if name not in (AR, SAMPLED, *OURS)]
    host = f"{steps['round']['breakdown_us']['host'] / 1e3:.3f}" if "round" in steps else ""
    return [
        first["device"],
        "`python benchmarks/decode.py`",
        model if context is None else f"{model}, {context}",
        *(cell(steps[step]) if step in steps else "" for step in STEPS),
        host,
        f"{raced[AR]['tokens_per_s']:.1f}" if AR in raced else "",
        times(raced, [name for name in OURS if name in raced]),
        times(raced, others),
    ]


def chosen(steps: Sequence[Record]) -> dict[str, Record]:
    """Those of a batch of one and one context, by name: the shortest context from CONTEXT on, else
    the longest.
    """
    alone = [record for record in steps if record["batch"] == 1]
    contexts = sorted({record["context"] for record in alone})
    wanted = next((c for c in contexts if c >= CONTEXT), contexts[-1] if contexts else None)
    return {record["step"]: record for record in alone if record["context"] == wanted}


def cell(step: Record) -> str:
    return f"{step['p50_us'] / 1e3:.3f}, {step['percent_of_copy']:.0f}"


def times(raced: Mapping[str, Record], names: Iterable[str]) -> str:
    return ", ".join(f"{name} {raced[name]['speedup_median']:.2f}" for name in names)


def cpu_table(records: Iterable[Record]) -> list[str]:
    """The lines of the CPUs' table: the newest race of each processor, short ones left out."""
    races = [r for r in records if "decode" in r and not r["arguments"]["quick"]]
    by_processor = {(r["device"], r["threads"]): r for r in races}
    found = [cells for race in by_processor.values() for cells in cpu_rows(race)]
    return [line(CPU_HEAD), line(["---"] * len(CPU_HEAD)), *map(line, found)]


def cpu_rows(race: Record) -> list[list[str]]:
    """The cells of one race, in the order of CPU_NAMES."""
    isa = race.get("isa")  # older records have none
    vectors = f" ({FLOAT32_VECTORS[isa]})" if isa else ""
    results = {result["name"]: result for result in race["decode"]["results"]}
    options = race["decode"]["chosen"]
    return [
        [
            f"{race['threads']} cores, {race['device']}{vectors}",
            f"{shown} ({options[name]})" if name in options else shown,
            f"{results[name]['tokens_per_s']:.0f}",
            f"{results[name]['speedup_median']:.2f}",
            f"{ratio:.2f}" if (ratio := results[name]["compression_ratio"]) else "",
        ]
        for name, shown in CPU_NAMES.items()
        if name in results
    ]


TABLES: Mapping[str, Callable[[Iterable[Record]], list[str]]] = {
    "cpu_decode": cpu_table,
    "decode": table,
}


def line(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


def updated(text: str, kind: str, name: str, lines: Sequence[str]) -> str:
    """`text` with these lines between the markers of the table `name`, one of a kind of tables.

    Raises:
        ValueError: not exactly one place for them.
    """
    start, end = f"<!-- {kind}: {name} -->", f"<!-- {kind} end -->"
    before, _, rest = text.partition(start)
    old, found, behind = rest.partition(end)
    if text.count(start) != 1 or not found or f"<!-- {kind}:" in old:
        raise ValueError(f"expected one {start} and {end} behind it")
    return before + "\n".join([start, *lines, end]) + behind


def main(arguments: list[str] | None = None) -> int:
    """Write, or check."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--check", action="store_true", help="change nothing")
    parser.add_argument("--readme", type=Path, default=ROOT / "README.md")
    parser.add_argument("--results", type=Path, default=ROOT / "benchmarks/results")
    given = parser.parse_args(arguments)
    text = given.readme.read_text(encoding="utf-8")
    new = text
    for name, made in TABLES.items():
        new = updated(new, "figures", name, made(read(given.results / f"{name}.jsonl")))
    if given.check:
        if new != text:
            print(f"{given.readme}: out of date; run: python benchmarks/report.py", file=sys.stderr)
        return int(new != text)
    given.readme.write_text(new, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
