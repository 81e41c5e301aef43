"""What commands show for people: rich tables and lines."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from rich import box
from rich.table import Table
from rich.text import Text

from kangaroo.evals.paired import Comparison, speeds

if TYPE_CHECKING:
    from kangaroo.engine.stats import Speculation
    from kangaroo.evals.tuning import Tuning
    from kangaroo.train.plan import Plan
    from kangaroo.train.progress import TrainReport


def summary_line(speculation: Speculation) -> str:
    """How one continuation went."""
    parts = [
        f"{speculation.num_tokens} tokens in {speculation.seconds.decode:.2f} s",
        f"{speculation.tokens_per_s:.0f} tokens/s",
        f"prefill {1e3 * speculation.seconds.prefill:.0f} ms",
        f"{speculation.compression_ratio:.2f} tokens per verify pass",
    ]
    if speculation.num_drafted:
        rate = 100 * speculation.acceptance_rate
        parts.append(f"{rate:.0f} % of {speculation.num_drafted} drafted tokens accepted")
    return ", ".join(parts)


def comparison_table(comparison: Comparison) -> Table:
    """Both ways of decoding one prompt, and whether they agree."""
    report = speeds(comparison)
    table = _table("", "tokens/s", "speed-up", "tokens per verify pass", "prefill ms")
    table.add_row(
        "autoregressive",
        f"{report['ar_tokens_per_s']:.1f}",
        "1.00",
        "1.00",
        f"{1e3 * report['ar_prefill_s']:.1f}",
    )
    table.add_row(
        "speculative",
        f"{report['tokens_per_s']:.1f}",
        f"{report['speedup']:.2f}",
        f"{report['compression_ratio']:.2f}",
        f"{1e3 * report['prefill_s']:.1f}",
    )
    table.caption = (
        f"{len(comparison.token_ids)} tokens, median of {len(comparison.speculative)} paired runs, "
        f"ids {_verdict(comparison.identical)}"
    )
    return table


def bench_table(
    prompts: Sequence[str], comparisons: Sequence[Comparison], totals: dict[str, Any]
) -> Table:
    """One row per prompt, and the total."""
    table = _table("prompt", "tokens", "AR tokens/s", "tokens/s", "speed-up", "CR", "ids")
    rows = [
        (Text(" ".join(prompt.split())[:32]), speeds(comparison), len(comparison.token_ids))
        for prompt, comparison in zip(prompts, comparisons, strict=True)
    ]
    for name, report, num_tokens in [*rows, (Text("total"), totals, totals["num_tokens"])]:
        if report is totals:
            table.add_section()
        table.add_row(
            name,
            str(num_tokens),
            f"{report['ar_tokens_per_s']:.1f}",
            f"{report['tokens_per_s']:.1f}",
            f"{report['speedup']:.2f}",
            f"{report['compression_ratio']:.2f}",
            _verdict(report["identical"]),
        )
    table.caption = f"median speed-up of the prompts: {totals['median_speedup']:.2f}"
    return table


def train_lines(report: TrainReport) -> list[str]:
    """How a training run ended."""
    if not report.completed:
        return [
            f"interrupted behind step {report.num_steps}; the same command with --resume continues"
        ]
    lines = [
        f"wrote {report.out} after {report.num_steps} steps, {report.tokens_per_s:.0f} tokens/s"
    ]
    if report.kept_step not in (None, report.num_steps):
        lines.append(f"the adapter is the one after {report.kept_step} steps, the best of all")
    if report.held_out is not None:
        agreement = ", ".join(f"{100 * a:.1f} %" for a in report.held_out.agreement)
        distances = ", ".join(map(str, report.held_out.deltas))
        lines.append(f"held-out top-1 agreement at distance {distances}: {agreement}")
    if report.best is not None:
        lines.append(
            f"max_depth {report.best.max_depth}, confidence {report.best.confidence}: "
            f"{report.best.compression_ratio:.2f} tokens per verify pass on held-out text"
        )
    return lines


def plan_lines(plan: Plan) -> list[str]:
    """What a training run would do, as comments of a YAML file."""
    lines = [
        f"adapter: {plan.num_parameters} parameters",
        f"windows: {plan.num_windows} an epoch, {plan.num_held_out} held out",
        f"steps: {plan.num_steps}, which is {plan.num_epochs:.2f} epochs",
        f"features of all windows: {plan.feature_bytes / 1e6:.1f} MB",
        f"time: {plan.seconds:.0f} s, at {plan.seconds_per_step:.3g} s a step; "
        "evaluation comes on top",
    ]
    return [f"# {line}" for line in lines]


def env_parts(report: dict[str, Any]) -> list[Table | Text]:
    """Versions, machine and extension, the kernels, then notes."""
    facts = _table("", "")
    for group in ("versions", "machine", "target"):
        for name, value in report[group].items():
            facts.add_row(name, _fact(value))
    for name, value in (report["extension"] or {"extension": "missing"}).items():
        facts.add_row(f"C++ {name}", _fact(value))
    kernels = _table("kernel", "served by", "refused")
    for op, kernel in report["kernels"].items():
        refused = "\n".join(kernel["refused"].values())
        kernels.add_row(op, kernel["serves"] or "nothing", Text(refused))
    return [facts, kernels, *(Text(line) for line in report["notes"])]


def certificate_parts(certificate: dict[str, Any]) -> list[Table | Text]:
    """The verdict of every check, what it counted and, of each that failed, the first failure."""
    table = _table("check", "verdict", "counted")
    lines = []
    for name, check in certificate["checks"].items():
        counts = ", ".join(
            f"{_number(n)} {what.replace('_', ' ')}" for what, n in check["counts"].items()
        )
        table.add_row(name, check["verdict"].upper(), Text(check["not_run"] or counts))
        for failure in check["failures"][:1]:
            others = len(check["failures"]) - 1
            lines.append(Text(f"{name}: {failure}" + f" (and {others} more)" * bool(others)))
    verdict = f"verdict: {certificate['verdict'].upper()}; drafting {certificate['drafting']}"
    return [table, *lines, Text(verdict)]


def tuning_parts(tuning: Tuning, num_rows: int = 10) -> list[Table | Text]:
    """The fastest candidates, the fastest of every adapter and kind; what the first achieved."""
    table = _table("adapter", "rule", "CR", "drafts a round", "tokens/s")
    seen = set()
    for place, candidate in enumerate(tuning.candidates):
        options = candidate.options
        kind = candidate.adapter, options["draft"], "lookup" in options
        if place < num_rows or kind not in seen:
            table.add_row(
                candidate.adapter or "none",
                ", ".join(f"{name} {value}" for name, value in options.items()),
                f"{candidate.compression_ratio:.2f}",
                f"{candidate.drafts_per_round:.2f}",
                f"{candidate.tokens_per_s:.1f}",
            )
        seen.add(kind)
    choice, achieved = tuning.choice, tuning.achieved
    found = [
        f"predicted {choice.tokens_per_s:.1f} tokens/s, CR {choice.compression_ratio:.2f}; "
        f"achieved {achieved['tokens_per_s']:.1f}, CR {achieved['compression_ratio']:.2f}",
        f"without drafting {achieved['ar_tokens_per_s']:.1f} tokens/s, speed-up "
        f"{achieved['speedup']:.2f}, ids {_verdict(achieved['identical'])}",
    ]
    return [table, *map(Text, found)]


def _number(value: float) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def _fact(value: Any) -> Text:
    if isinstance(value, list):
        value = ", ".join(str(item) for item in value) or "none"
    return Text("none" if value is None else str(value))


def _verdict(identical: bool) -> str:
    return "identical" if identical else "DIFFERENT"


def _table(*columns: str) -> Table:
    table = Table(box=box.SIMPLE_HEAD, show_header=any(columns))
    for place, column in enumerate(columns):
        table.add_column(column, justify="left" if place == 0 or len(columns) < 4 else "right")
    return table
