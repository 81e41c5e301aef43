"""Which adapter, and which rule of drafting, is the fastest on this machine and these prompts.

Costs are measured by width, acceptance once with deep drafts; every rule for chains is then a
replay. Trees, and copies of what the text repeats, cannot be replayed: each rule is decoded.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import median
from time import perf_counter
from typing import Any

from kangaroo.config import MAX_TREE_NODES
from kangaroo.engine.decode import Round
from kangaroo.engine.generation import eos_list, greedy_options
from kangaroo.engine.llm import KangarooForCausalLM
from kangaroo.engine.stats import Speculation
from kangaroo.evals.paired import compare, total, warm_up
from kangaroo.evals.tracing import greedy_trace
from kangaroo.models.adapter_io import kangaroos
from kangaroo.train.simulate import Trace, replay

FORMAT, VERSION = "kangaroo-tuning", 1
CONFIDENCES = tuple(tenth / 10 for tenth in range(10))
TREE_BUDGETS = (8, 16, 32)  # nodes
LOOKUPS = (2, 3, 4)  # tokens that must stand in the text before
TIMED_ROUNDS, TURNS = 6, 5
STEPS = 4  # of every adapter
FIXED = {"adaptive": False}


@dataclass(frozen=True)
class Settings:
    """How much is run.

    Attributes:
        max_new_tokens: of every continuation.
        max_depth: of the deepest chain that is measured.
        tree_budgets: nodes of the trees that are tried.
        lookups: of the copies that are tried in front of an adapter's fastest rule.
    """

    max_new_tokens: int = 64
    max_depth: int = 8
    tree_budgets: tuple[int, ...] = TREE_BUDGETS
    lookups: tuple[int, ...] = LOOKUPS

    def __post_init__(self) -> None:
        if self.max_new_tokens < 2:
            raise ValueError(f"max_new_tokens: expected at least 2, got {self.max_new_tokens}")
        if not 1 <= self.max_depth < MAX_TREE_NODES:
            raise ValueError(f"max_depth: expected 1 to {MAX_TREE_NODES - 1}, got {self.max_depth}")


@dataclass(frozen=True)
class RoundTimes:
    """Seconds of a round of one sequence by how many tokens of a chain it drafts, from 0 on, where
    it is autoregressive; medians.

    Attributes:
        draft, verify: the drafter's steps; one pass over so many nodes and the root.
        host: what comes behind: the verdict is read, caches are committed.
    """

    draft: tuple[float, ...]
    verify: tuple[float, ...]
    host: tuple[float, ...]

    def round_s(self, num_drafted: int) -> float:
        """All of it."""
        return self.draft[num_drafted] + self.verify[num_drafted] + self.host[num_drafted]

    @property
    def costs(self) -> tuple[float, float]:
        """What adaptive drafting goes by, `DraftConfig.costs`: of the deepest draft, each part
        shared equally among its tokens.
        """
        deepest, step = len(self.draft) - 1, self.round_s(0)
        draft, verify = (
            max(0.0, stage[-1] - stage[0]) / deepest / step for stage in (self.draft, self.verify)
        )
        return draft, verify


@dataclass(frozen=True)
class Candidate:
    """A way of decoding, and what is to be expected of it.

    Attributes:
        adapter: its name; "" where nothing is drafted.
        options: of `generate`.
        compression_ratio: committed tokens per verify pass; drafts_per_round: drafted ones.
        tokens_per_s: prefill left out.
    """

    adapter: str
    options: dict[str, Any]
    compression_ratio: float
    drafts_per_round: float
    tokens_per_s: float


@dataclass(frozen=True)
class Tuning:
    """What was measured, and what follows.

    Attributes:
        times: by adapter.
        candidates: all of them, the fastest first.
        achieved: of decoding with the first of them and without drafting in turns; see
            :func:`kangaroo.evals.paired.total`.
    """

    times: dict[str, RoundTimes]
    candidates: list[Candidate]
    achieved: dict[str, Any]

    @property
    def choice(self) -> Candidate:
        return self.candidates[0]

    @property
    def options(self) -> dict[str, Any]:
        """The choice for `generate`, with the costs that adaptive drafting is to go by."""
        if self.choice.options["draft"] == "off":
            return self.choice.options
        return self.choice.options | {"costs": list(self.times[self.choice.adapter].costs)}

    def best_chain(self, adapter: str) -> Candidate:
        """The fastest that drafts chains with this adapter, and copies nothing."""
        return next(
            c
            for c in self.candidates
            if (c.adapter, c.options["draft"]) == (adapter, "chain") and "lookup" not in c.options
        )

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "format": FORMAT,
            "version": VERSION,
            "adapter": self.choice.adapter,
            "options": self.options,
            "predicted": asdict(self.choice),
            "achieved": self.achieved,
            "candidates": [asdict(candidate) for candidate in self.candidates],
            "times": {name: asdict(times) for name, times in self.times.items()},
        }


def ranked(candidates: Iterable[Candidate]) -> list[Candidate]:
    """The fastest first; of equally fast ones that which drafts less."""
    return sorted(candidates, key=lambda c: (-c.tokens_per_s, c.drafts_per_round))


def chains(
    adapter: str, trace: Trace, times: RoundTimes, confidences: Iterable[float] = CONFIDENCES
) -> list[Candidate]:
    """Every rule of `confidences` x depths that `times` and `trace` reach."""
    found, num_tokens = [], sum(trace.num_slots)
    for confidence in confidences:
        for max_depth in range(1, min(len(trace.agree), len(times.draft) - 1) + 1):
            drafts = replay(trace, confidence, max_depth)
            found.append(
                Candidate(
                    adapter,
                    {"draft": "chain", "max_depth": max_depth, "confidence": confidence},
                    num_tokens / len(drafts),
                    sum(drafts) / len(drafts),
                    num_tokens / sum(map(times.round_s, drafts)),
                )
            )
    return found


def measured(llm: KangarooForCausalLM, prompt: Sequence[int], settings: Settings) -> RoundTimes:
    """Rounds of every depth in turns, behind as much of `prompt` as leaves room for them."""
    depths = range(settings.max_depth + 1)
    taken: list[list[tuple[float, float, float]]] = [[] for _ in depths]
    for _ in range(TURNS):
        for depth in depths:
            rule: dict[str, Any] = {"draft": "off"}
            if depth:
                rule = FIXED | {"draft": "chain", "max_depth": depth, "confidence": 0.0}
            num_new = TIMED_ROUNDS * (depth + 1) + depth
            ids = prompt[: llm.model.config.max_seq_len - num_new]
            options = greedy(llm, num_new) | {"eos_token_id": None} | rule
            rounds = llm.rounds(ids, **options)
            taken[depth] += [each.seconds for each in rounds if each.num_drafted == depth]
    draft, verify, host = (
        tuple(median(seconds[stage] for seconds in of_depth) for of_depth in taken)
        for stage in range(3)
    )
    return RoundTimes(draft, verify, host)


def decoded(
    adapter: str,
    llm: KangarooForCausalLM,
    prompts: Sequence[list[int]],
    max_new_tokens: int,
    rule: dict[str, Any],
) -> Candidate:
    """By a rule that is not replayed. Rounds count by the median time of those that have drafted as
    much: a copy is longer than the drafts beside it. The time is that from round to round, for the
    host looks for copies, and launches, between what a round counts as its own.
    """
    options, rounds = greedy(llm, max_new_tokens) | FIXED, list[Round]()
    seconds: dict[int, list[float]] = {}
    for prompt in prompts:
        last = None
        for each in llm.rounds(prompt, **options, **rule):
            now = perf_counter()  # the first has prefill in front
            taken = sum(each.seconds) if last is None else now - last
            seconds.setdefault(each.num_drafted, []).append(taken)
            rounds.append(each)
            last = now
    done, total_s = Speculation.of(rounds), sum(len(s) * median(s) for s in seconds.values())
    drafts = done.num_drafted / done.num_rounds
    num_tokens = sum(len(each.tokens) for each in rounds)
    return Candidate(adapter, rule, done.compression_ratio, drafts, num_tokens / total_s)


def tune(
    llms: Mapping[str, KangarooForCausalLM],
    prompts: Sequence[list[int]],
    settings: Settings,
    on_step: Callable[[str], None],
) -> Tuning:
    """Measure, replay, choose, and decode with the choice.

    Args:
        llms: the target with each adapter, by name.
        on_step: is told what comes next, `STEPS` times an adapter and once more.

    Raises:
        ValueError: as :meth:`KangarooForCausalLM.rounds`.
    """
    times: dict[str, RoundTimes] = {}
    found: list[Candidate] = []
    for name, llm in llms.items():
        on_step(f"{name}: costs")
        warm_up(llm, prompts[0], **greedy(llm, settings.max_new_tokens))
        times[name] = measured(llm, prompts[0], settings)
        on_step(f"{name}: chains")
        own = chains(name, traced(llm, prompts, settings), times[name])
        this = name, llm, prompts, settings.max_new_tokens
        on_step(f"{name}: trees")
        own += [decoded(*this, {"draft": "tree", "max_nodes": n}) for n in settings.tree_budgets]
        on_step(f"{name}: copies")
        fastest = ranked(own)[0].options
        found += own + [decoded(*this, fastest | {"lookup": n}) for n in settings.lookups]
    plain_s = median(each.round_s(0) for each in times.values())
    found = ranked([Candidate("", {"draft": "off"}, 1.0, 0.0, 1 / plain_s), *found])
    choice = found[0]
    llm = llms.get(choice.adapter) or next(iter(llms.values()))
    rule = choice.options | (FIXED if choice.adapter else {})
    on_step("the choice")
    options = greedy(llm, settings.max_new_tokens) | rule
    return Tuning(times, found, total([compare(llm, prompt, 1, **options) for prompt in prompts]))


def traced(llm: KangarooForCausalLM, prompts: Sequence[list[int]], settings: Settings) -> Trace:
    """What any rule would draft behind `prompts`; the target has an adapter.

    Raises:
        ValueError: it has none, or another drafter's.
    """
    if llm.adapter is None:
        raise ValueError("adapter: expected one to tune, got none")
    ends = eos_list(llm.generation_config.eos_token_id)
    return greedy_trace(
        llm.model,
        kangaroos(llm.adapter),
        prompts,
        settings.max_new_tokens,
        max_depth=settings.max_depth,
        eos_ids=frozenset(ends),
    )


def greedy(llm: KangarooForCausalLM, max_new_tokens: int) -> dict[str, Any]:
    """Options of greedy decoding, whatever the folder's own say."""
    return greedy_options(llm.generation_config) | {"max_new_tokens": max_new_tokens}
