"""`benchmarks/report.py`: README has the newest figures of each machine, and of a GPU it says where
there are none.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks import report
from benchmarks.report import CPU_HEAD, HEAD, NOT_MEASURED

START, CPU_START = "<!-- figures: decode -->", "<!-- figures: cpu_decode -->"
END = "<!-- figures end -->"
GPU = {"device": "NVIDIA H200", "driver": "570.1", "shape": "Vicuna-7B", "weights": "random"}
GPU |= {"dtype": "bfloat16", "date": "2026-12-01T10:00:00+00:00"}


def steps(context: int, batch: int = 1, **fields: Any) -> list[dict[str, Any]]:
    """Steps of a run: the context is the time, so that a cell says where it is from."""
    found = [
        GPU
        | {"step": step, "context": context, "batch": batch, "p50_us": float(context)}
        | {"percent_of_copy": 87.6}
        | fields
        for step in report.STEPS
    ]
    found[report.STEPS.index("round")]["breakdown_us"] = {"host": 321.0}
    return found


def contestant(name: str, speedup: float, **fields: Any) -> dict[str, Any]:
    return GPU | {"contestant": name, "tokens_per_s": 299.97, "speedup_median": speedup} | fields


def write(folder: Path, records: list[dict[str, Any]], between: str = "old\n") -> list[str]:
    places = f"{CPU_START}\n{END}\n\n{START}\n{between}{END}"
    (folder / "README.md").write_text(f"before\n\n{places}\n\nbehind\n")
    results = folder / "results"
    results.mkdir(exist_ok=True)
    lines = [json.dumps(record) + "\n" for record in records]
    (results / "decode.jsonl").write_text("".join(lines))
    return ["--readme", str(folder / "README.md"), "--results", str(results)]


def cells(folder: Path, start: str = START, columns: int = len(HEAD)) -> list[list[str]]:
    text = (folder / "README.md").read_text()
    assert text.startswith("before\n\n")
    assert text.endswith("\n\nbehind\n")
    rows = text.split(start)[1].split(END)[0].strip().splitlines()
    found = [[cell.strip() for cell in row.strip("|").split("|")] for row in rows]
    assert {len(row) for row in found} == {columns}
    return found[2:]


def test_readme_is_up_to_date() -> None:
    assert report.main(["--check"]) == 0


def test_without_a_gpu_record_it_says_so(tmp_path: Path) -> None:
    """Figures of a CPU are no figures of a GPU."""
    on_cpu = [record | {"driver": None, "device": "AMD"} for record in steps(2048)]
    assert report.main(write(tmp_path, on_cpu)) == 0
    assert [row[3] for row in cells(tmp_path)] == [NOT_MEASURED] * len(report.SHAPES)
    assert report.main(["--readme", str(tmp_path / "README.md"), "--results", "nowhere"]) == 0
    assert NOT_MEASURED in (tmp_path / "README.md").read_text()


def test_the_newest_run_of_each_model_counts(tmp_path: Path) -> None:
    later, older = "2026-12-02T10:00:00+00:00", "2026-11-01T10:00:00+00:00"
    records = [
        *steps(128, date=later),
        *steps(2048, date=later),
        *steps(2048, batch=4, date=later, p50_us=9.0),
        *steps(8192, date=later),
        *steps(2048, date=older, p50_us=7.0),
        GPU | {"context": 32768, "batch": 16, "not_measured": "no room", "date": later},
        contestant("autoregressive", 1.0, date=later),
        contestant("chain", 1.875, date=later),
        contestant("tree", 2.125, date=later),
        contestant("transformers", 0.28, date=later),
        GPU | {"missing": {"vLLM": "not installed"}, "date": later},
        *steps(100, shape="Qwen3-8B"),
    ]
    assert report.main(write(tmp_path, records)) == 0
    vicuna, qwen = cells(tmp_path)
    assert vicuna == [
        "NVIDIA H200",
        "`python benchmarks/decode.py`",
        "Vicuna-7B, random weights, bfloat16, 2048",
        *["2.048, 88"] * len(report.STEPS),
        "0.321",
        "300.0",
        "chain 1.88, tree 2.12",
        "transformers 0.28",
    ]
    assert qwen[2:4] == ["Qwen3-8B, random weights, bfloat16, 100", "0.100, 88"]
    assert qwen[9:] == ["", "", ""]


def race(date: str, device: str, tokens_per_s: float, **fields: Any) -> dict[str, Any]:
    """A CPU's race, drafting at twice the speed of plain decoding."""
    results = [
        {"name": "deep_prefix", "tokens_per_s": 2 * tokens_per_s, "speedup_median": 2.004}
        | {"compression_ratio": 3.5},
        {"name": "native", "tokens_per_s": tokens_per_s, "speedup_median": 1.0}
        | {"compression_ratio": 1.0},
        {"name": "llama.cpp", "tokens_per_s": 90.4, "speedup_median": 0.904}
        | {"compression_ratio": None},
    ]
    decode = {"results": results, "chosen": {"llama.cpp": "KV f16"}}
    fields = {"arguments": {"quick": False}, "decode": decode} | fields
    return {"date": date, "device": device, "threads": 2, "isa": "amx"} | fields


def test_the_newest_whole_race_of_each_cpu_counts(tmp_path: Path) -> None:
    arguments = write(tmp_path, [])
    records = [
        race("2026-11-24", "Xeon", 70.0),
        race("2026-11-25", "EPYC", 50.0, isa=None),
        race("2026-11-26", "Xeon", 100.0),
        race("2026-11-27", "Xeon", 1.0, arguments={"quick": True}),
        {"date": "2026-11-28", "device": "Xeon", "bits": {}},
    ]
    lines = "".join(json.dumps(record) + "\n" for record in records)
    (tmp_path / "results/cpu_decode.jsonl").write_text(lines)
    assert report.main(arguments) == 0
    rows = cells(tmp_path, CPU_START, len(CPU_HEAD))
    xeon, epyc = "2 cores, Xeon (AVX-512)", "2 cores, EPYC"
    assert rows[:3] == [
        [xeon, "autoregressive (`max_depth=0`)", "100", "1.00", "1.00"],
        [xeon, "llama.cpp (KV f16)", "90", "0.90", ""],
        [xeon, "`deep_prefix` adapter", "200", "2.00", "3.50"],
    ]
    assert [row[0] for row in rows[3:]] == [epyc] * 3


def test_check_says_whether_readme_is_what_would_be_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = write(tmp_path, steps(2048))
    before = (tmp_path / "README.md").read_text()
    assert report.main([*arguments, "--check"]) == 1
    assert "out of date" in capsys.readouterr().err
    assert (tmp_path / "README.md").read_text() == before
    report.main(arguments)
    assert report.main([*arguments, "--check"]) == 0


@pytest.mark.parametrize(
    "text",
    [
        "",
        START,
        f"{END} {START}",
        f"{START} {END} {START} {END}",
        f"{START} {CPU_START} {END}",
    ],
)
def test_a_readme_without_one_place_for_the_table_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="expected one"):
        report.updated(text, "figures", "decode", [])
