"""The paper's ablations and ours, on tiny-py: `python benchmarks/ablation.py TABLE ...`.

Every row trains an adapter of some shape with every seed, on the same windows for equally many
steps, and judges it on held-out code and on English prose: compression ratio and predicted speed-up
(`kangaroo.costs`) of greedy continuations, replayed with the stopping rule that is fastest for it,
and the ratio of drafts that always go to the full depth. A row that is in the results already, with
the same settings and seed, is not trained again. `page` writes what is known to docs/ABLATIONS.md
and plots it.
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict, replace
from pathlib import Path
from time import process_time
from typing import Any

import torch
from transformers.utils import logging

sys.path.insert(0, str(Path(__file__).parents[1]))  # for `benchmarks` when run as a file

from benchmarks.ablations.bench import Bench, trained
from benchmarks.ablations.judging import KINDS, Judged, judged, stream, trees
from benchmarks.ablations.page import write_page
from benchmarks.ablations.plots import draw
from benchmarks.ablations.rows import Row, Settings
from benchmarks.ablations.students import Shape
from benchmarks.ablations.tables import TABLES, rows_of
from benchmarks.provenance import ROOT, append, machine
from benchmarks.report import read
from kangaroo.train.memory import keep_freed_memory

Known = dict[tuple[str, int], dict[str, Any]]
DRAFTERS = ROOT / "benchmarks/results/drafters.jsonl"


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("tables", nargs="+", choices=[*TABLES, "page"])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--steps", type=int, default=Settings.num_steps)
    parser.add_argument("--batch-size", type=int, default=Settings.batch_size)
    parser.add_argument("--prompts", type=int, default=Settings.num_prompts)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument(
        "--states", type=Path, default=ROOT / "build/ablation", help="a folder of some gigabytes"
    )
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks/results/ablation.jsonl")
    parser.add_argument("--page", type=Path, default=ROOT / "docs/ABLATIONS.md")
    return parser.parse_args()


def key_of(row: Row, seed: int, settings: Settings) -> tuple[str, int]:
    """What a record is of."""
    return json.dumps([asdict(row), asdict(settings)], sort_keys=True), seed


def known(out: Path) -> Known:
    """Records by what they are of; the newest. Records from before a field of `Row` was there are
    of its default.
    """
    found = {}
    for record in read(out):
        row, settings = json.loads(record["key"])
        row = asdict(Row()) | row
        row["shape"] = asdict(Shape()) | row["shape"]
        key = json.dumps([row, settings], sort_keys=True)
        found[key, record["seed"]] = dict(record)
    return found


def summary(own: Judged) -> dict[str, Any]:
    """Of one kind of text, for JSON: rules are [confidence, depth, ratio, drafts, speed-up]."""
    rules = [
        [
            r.confidence,
            r.max_depth,
            *(round(x, 4) for x in (r.compression_ratio, r.drafts_per_round, r.speedup)),
        ]
        for r in own.table
    ]
    best = max(rules, key=lambda rule: rule[4])
    return {
        "best": best,
        "full_ratio": round(own.full_ratio, 4),
        "agreement": round(own.agreement, 4),
        "rules": rules,
    }


def measure(bench: Bench, row: Row, seed: int) -> dict[str, Any]:
    """Train and judge one row."""
    started, run = process_time(), bench.run(row, seed)
    loss = trained(run)
    cost = run.student.cost(bench.config)
    found: dict[str, Any] = {
        "texts": {kind: summary(own) for kind, own in judged(bench, run).items()}
    }
    if row.judged == "trees":
        found["trees"] = trees(bench, run)
    if row.judged == "stream":
        found["stream"] = stream(bench, run)
    record = machine(torch.device("cpu")) | {
        "benchmark": "ablation",
        "key": key_of(row, seed, bench.settings)[0],
        "seed": seed,
        "loss": round(loss, 4),
        "parameters": sum(p.numel() for p in run.student.module.parameters()),
        "step_parameters": cost.shallow + cost.adapter + cost.head,
        "refresh_parameters": cost.refresh,
        "cpu_s": round(process_time() - started, 1),
    }
    return record | found


def main() -> int:
    """Train what is not known, print, append."""
    given = parse()
    torch.set_num_threads(given.threads)
    logging.disable_progress_bar()
    keep_freed_memory()
    settings = replace(
        Settings(), num_steps=given.steps, batch_size=given.batch_size, num_prompts=given.prompts
    )
    found = known(given.out)
    wanted = rows_of([table for table in given.tables if table != "page"])
    missing = [
        (name, row, seed)
        for seed in given.seeds
        for name, row in wanted.items()
        if key_of(row, seed, settings) not in found
    ]
    bench = Bench(settings, given.states) if missing else None
    for name, row, seed in missing:
        assert bench is not None
        record = measure(bench, row, seed) | {"name": name}
        append(record, given.out)
        code, prose = (record["texts"][kind]["best"] for kind in KINDS)
        print(
            f"{name:32} seed {seed}  loss {record['loss']:.3f}  CR {code[2]:.2f} code "
            f"{prose[2]:.2f} prose, speed-up {code[4]:.2f} {prose[4]:.2f}",
            flush=True,
        )
    if "page" in given.tables:
        records = known(given.out)
        keys = {
            name: [records[k] for s in given.seeds if (k := key_of(row, s, settings)) in records]
            for name, row in rows_of(TABLES).items()
        }
        races = read(DRAFTERS)
        write_page(given.page, keys, settings, races[-1] if races else None)
        draw(given.page.with_name("ablations.svg"), keys)
    return 0


if __name__ == "__main__":
    sys.exit(main())
