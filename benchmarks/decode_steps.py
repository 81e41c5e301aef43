"""The steps of a round behind a given context, each alone, and whole rounds, all in turns."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median
from time import perf_counter
from typing import Any

import torch

from benchmarks.decode_case import WARM_UP, Case, peak_bytes
from benchmarks.harness import Setting, quantiles
from benchmarks.launches import launches_of
from benchmarks.subjects import Subject
from benchmarks.traffic import Counter, Traffic
from kangaroo.config import DraftConfig
from kangaroo.draft.device_chains import DeviceChainDrafter
from kangaroo.draft.steps import StepOpByOp
from kangaroo.draft.tree import DraftTree, tensors
from kangaroo.draft.whole import chain_drafter
from kangaroo.engine.capture import captured_rounds
from kangaroo.engine.decode import Decoder, Round
from kangaroo.engine.graphs import GraphDecoder
from kangaroo.engine.state import DecodeState, Request
from kangaroo_kernels.draft_head import DraftHead
from kangaroo_kernels.draft_step import DraftStep
from kangaroo_kernels.exit_states import ExitStates

WIDE = 16  # rows of one tile of the kernels


@dataclass(frozen=True)
class Step:
    """What is timed.

    Attributes:
        rows: that go through the target's layers, of all sequences.
        traffic: its bytes, of the committed slots of every sequence.
    """

    name: str
    rows: int
    run: Callable[[], object]
    traffic: Callable[[Sequence[int]], Traffic]


class Rig:
    """Sequences whose caches hold random keys and values of `case.context` tokens: no prefill."""

    def __init__(self, subject: Subject, case: Case):
        model, adapter = subject.model, subject.adapter
        config = DraftConfig(adapter.config.exit_layer, max_depth=case.depth, confidence=0.0)
        self.subject, self.case = subject, case
        drafter, runtime = chain_drafter(model, adapter, config), captured_rounds(model)
        self.decoder = (
            GraphDecoder(drafter, runtime) if runtime else Decoder(model, drafter, config)
        )
        self.state = filled(self.decoder, case)
        device = model.weights.norm.device
        self.count = Counter(model.config, adapter.config, model.weights.norm.itemsize)
        self.captured = DeviceChainDrafter(
            model, adapter, config, head=DraftHead(model.weights.lm_head)
        )
        # What enters rounds that draft nothing: there is no adapter's norm behind.
        self.plain = StepOpByOp(model, None, self.captured.head, config.exit_layer)
        self.chain = self.captured.new_chains(self.state, case.depth).nodes
        self.root = torch.zeros(case.batch, 1, dtype=torch.int64, device=device)
        self.trees = chains(case.batch, case.depth + 1)
        self.accepted = tensors(self.trees, device)
        shape = (case.batch, case.depth + 1, model.config.vocab_size)
        self.logits = torch.randn(shape, device=device)
        self.h_deep = torch.randn_like(self.state.hidden(0, case.depth + 1))

    def ar_step(self) -> object:
        """A token of every sequence through all layers and the head."""
        state, model = self.state, self.subject.model
        split, num_layers = self.decoder.config.exit_layer, model.config.num_layers
        state.forget_nodes()
        deep = state.deep_kv
        h = self._enter(self.plain).h
        h = model.layers(h, split, num_layers, deep, deep.chain(1))
        return model.logits(h)

    def draft_step(self) -> None:
        """Shared layers, adapter, head and the best token, behind the nodes there are."""
        states, own = self._enter(self.captured.steps), self.state.adapter_kv
        self.captured.steps.top1(states, own.rows, own.chain(1), self.chain)
        own.num_nodes += 1

    def one_draft_step(self) -> object:
        """The first of a round."""
        self.state.forget_nodes()
        return self.draft_step()

    def draft(self) -> object:
        """A whole chain, as rounds draft it."""
        self.state.forget_nodes()
        return self.decoder.drafter.draft(self.state, [self.case.depth] * self.case.batch)

    def draft_unread(self) -> object:
        """The same work without the host, which reads every token in a round: no graph can."""
        self.state.forget_nodes()
        for _ in range(self.case.depth):
            self.draft_step()
        return self._enter(self.captured.steps)

    def verify(self, trees: list[DraftTree]) -> object:
        """Nodes through the remaining layers and the head."""
        self.state.forget_nodes()
        return self.decoder.verify(self.state, trees)

    def accept(self) -> object:
        """Which nodes are kept, and what the adapter learns of all of them; where a graph is
        captured, as captured rounds do it.
        """
        self.state.forget_nodes()
        verdict = self.subject.model.kernels.verify_tree(self.logits, *self.accepted)
        if self.root.is_cuda:
            self.captured.refresh(self.state, self.h_deep, self.accepted[0])
        else:
            successors = [tree.tokens for tree in self.trees]
            self.decoder.drafter.verified(self.state, self.trees, self.h_deep, successors)
        return verdict

    def steps(self) -> list[Step]:
        """All of them; those of a round are "draft", "verify" and "accept"."""
        depth, batch, count = self.case.depth, self.case.batch, self.count
        wide, nodes = chains(batch, WIDE), depth + 1
        draft = self.draft_unread if self.root.device.type == "cuda" else self.draft

        def verify(name: str, trees: list[DraftTree]) -> Step:
            width = len(trees[0])
            return Step(
                name,
                batch * width,
                lambda: self.verify(trees),
                lambda lengths: count.verify(lengths, width),
            )

        return [
            Step("AR step", batch, self.ar_step, count.ar_step),
            Step("draft step", batch, self.one_draft_step, count.draft_step),
            Step("draft", batch, draft, lambda lengths: count.draft(lengths, depth)),
            verify("verify", self.trees),
            verify(f"verify {WIDE}", wide),
            Step(
                "accept", batch * nodes, self.accept, lambda lengths: count.refresh(lengths, nodes)
            ),
        ]

    def round(self) -> list[Round]:
        """What a user pays for: draft, verify, commit, and the host."""
        return self.decoder.round(self.state)

    def _enter(self, step: DraftStep) -> ExitStates:
        """The next node of every sequence through the shared layers."""
        state, kv = self.state, self.state.shallow_kv
        out = state.exit_states[:, 1 + kv.num_nodes : 2 + kv.num_nodes]
        states = step.enter(self.root, kv.rows, kv.chain(1), out)
        kv.num_nodes += 1
        return states


def chains(batch: int, num_nodes: int) -> list[DraftTree]:
    return [DraftTree.chain([0] * num_nodes) for _ in range(batch)]


def filled(decoder: Decoder, case: Case) -> DecodeState:
    """`case.batch` sequences, with noise for keys and values, written where they lie."""
    state = decoder.new_state(case.batch, case.num_slots)
    for cache in state.caches:
        cache.storage.normal_()
    state.exit_states.normal_()
    lengths = [case.context] * case.batch
    state.settle(lengths, list(lengths))
    vocab_size = decoder.model.config.vocab_size
    tokens = torch.randint(vocab_size, (case.batch, case.context + 1)).tolist()
    num_left = case.num_slots - case.context - 1
    state.requests.extend(Request(ids, num_left) for ids in tokens)
    return state


@torch.inference_mode()
def measure(
    subject: Subject, case: Case, setting: Setting, copy_gb_per_s: float
) -> list[dict[str, Any]]:
    """One figure per step, and the round's with where its time goes; in turns.

    The context grows by what the rounds add; bytes are counted where it is.
    """
    on_gpu = setting.device.type == "cuda"
    if on_gpu:
        torch.cuda.reset_peak_memory_stats(setting.device)
    rig = Rig(subject, case)
    steps = rig.steps()
    samples = {step.name: setting.prepare(step.run, [()]) for step in steps}
    taken: dict[str, list[float]] = {step.name: [] for step in steps}
    for _ in range(WARM_UP):
        rig.round()
    rounds, lengths = [], []
    for _ in range(case.repeats):
        lengths.append(list(rig.state.prefix_lens))
        for name, sample in samples.items():
            taken[name].append(sample())
        rounds.append(timed_round(rig, lengths[-1]))
    middle = lengths[len(lengths) // 2]
    figures = [
        figure(step.name, step.rows, taken[step.name], step.traffic(middle).num_bytes)
        for step in steps
    ]
    p50_us = {each["step"]: each["p50_us"] for each in figures}
    whole = figure(
        "round",
        case.batch * (case.depth + 1),
        [r.microseconds for r in rounds],
        int(median(r.num_bytes for r in rounds)),
    )
    whole |= {
        "breakdown_us": breakdown(p50_us, whole["p50_us"]),
        "tokens_per_round": sum(r.num_tokens for r in rounds) / len(rounds),
        "launches": launches_of(rig.round) if on_gpu else None,
        "peak_bytes": peak_bytes(setting.device),
    }
    found = [*figures, whole]
    if case.batch == 1:
        found.append(figure("streamed round", whole["rows"], stream(rig), whole["num_bytes"]))
    for each in found:
        each["percent_of_copy"] = round(100 * each["gb_per_s"] / copy_gb_per_s, 2)
        each |= {"context": case.context, "batch": case.batch, "depth": case.depth}
    return found


@dataclass(frozen=True)
class TimedRound:
    """A round of all sequences: its bytes by what was drafted."""

    microseconds: float
    num_bytes: int
    num_tokens: int


def timed_round(rig: Rig, lengths: Sequence[int]) -> TimedRound:
    """A round behind `lengths` committed slots, from an idle device to an idle device."""
    on_gpu = rig.root.device.type == "cuda"
    if on_gpu:
        torch.cuda.synchronize()
    started = perf_counter()
    done = rig.round()
    if on_gpu:
        torch.cuda.synchronize()
    seconds = perf_counter() - started
    depth = max(r.num_drafted for r in done)
    num_bytes = rig.count.round(lengths, depth).num_bytes
    return TimedRound(1e6 * seconds, num_bytes, sum(len(r.tokens) for r in done))


def stream(rig: Rig) -> list[float]:
    """Microseconds from one round to the next of a sequence, as `generate` runs them: where rounds
    can be launched ahead, the host reads the last one beside the next.
    """
    case, samples = rig.case, list[float]()
    tokens = rig.state.requests[0].tokens[: case.context + 1]
    rounds = rig.decoder.generate(Request(list(tokens), case.num_slots - len(tokens)))
    for _ in range(WARM_UP):
        next(rounds)
    for _ in range(case.repeats):
        started = perf_counter()
        next(rounds)
        samples.append(1e6 * (perf_counter() - started))
    rounds.close()
    return samples


def figure(name: str, rows: int, samples_us: Sequence[float], num_bytes: int) -> dict[str, Any]:
    """Quantiles, and the bandwidth of the median."""
    p20, p50, p80 = quantiles(samples_us)
    return {
        "step": name,
        "rows": rows,
        "p20_us": round(p20, 3),
        "p50_us": round(p50, 3),
        "p80_us": round(p80, 3),
        "repeats": len(samples_us),
        "num_bytes": num_bytes,
        "gb_per_s": round(num_bytes / p50 / 1e3, 3),
    }


def breakdown(p50_us: dict[str, float], round_us: float) -> dict[str, float]:
    """Where a round's time goes: its steps as they take alone, and the host what is left over."""
    parts = {name: p50_us[name] for name in ("draft", "verify", "accept")}
    return parts | {"host": round(round_us - sum(parts.values()), 3)}
