"""The decode loop: draft, verify, commit. Nothing else lives here."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from time import perf_counter

import torch
from torch import Tensor

from kangaroo.config import DraftConfig, ModelConfig
from kangaroo.draft.base import Drafter
from kangaroo.draft.pace import Pace
from kangaroo.draft.tree import DraftTree, tensors
from kangaroo.engine.state import DecodeState, PastKeyValues, Request, SequenceError
from kangaroo.engine.stopping import until
from kangaroo.models.llama import Llama
from kangaroo.sampling.sampler import by_kernels, draws_of
from kangaroo_kernels import UnsupportedError
from kangaroo_kernels.verify_tree import Verdict

# Prompt tokens per pass: bounds the memory of activations, which do not grow with the prompt. The
# largest are the MLP's gates and ups: 1024 x 28672 numbers, 58.7 MB, for Llama-3.1-8B in 16 bits.
# With so many rows a GPU's libraries are bound by arithmetic; the kernels of rounds read the
# weights once a tile of rows, so for them a longer pass saves nothing.
PREFILL_CHUNK, LIBRARY_CHUNK = 256, 1024


@dataclass(frozen=True)
class Round:
    """What one round added to a sequence.

    Attributes:
        tokens: the accepted draft tokens, then the bonus token; cut where the sequence ends.
        num_drafted: tokens drafted, all of a tree's; num_accepted: how many of `tokens` were.
        seconds: host time of draft, verify and commit, shared among the sequences of the round.
        logits: [len(tokens), V] float32, what each of `tokens` was chosen from; None: not kept.
        scores: the same as the sequence's processors shaped it.
    """

    tokens: list[int]
    num_drafted: int
    num_accepted: int
    seconds: tuple[float, float, float]
    logits: Tensor | None = None
    scores: Tensor | None = None


class Decoder:
    """Lossless self-speculative decoding; `max_depth=0` makes it autoregressive.

    Args:
        keep_logits, keep_scores: rounds carry what their tokens were chosen from.
    """

    def __init__(
        self,
        model: Llama,
        drafter: Drafter,
        config: DraftConfig,
        *,
        keep_logits: bool = False,
        keep_scores: bool = False,
    ):
        self.model, self.drafter, self.config = model, drafter, config
        self.keep_logits, self.keep_scores = keep_logits, keep_scores
        drafts = config.depth or config.lookup
        self.pace = Pace(config, drafter.costs()) if config.adaptive and drafts else None

    @torch.inference_mode()
    def generate(self, request: Request, past: PastKeyValues | None = None) -> Iterator[Round]:
        """Decode one sequence until it ends; `past` saves prefill, and holds the sequence then.

        Yields the rounds, each of at least one token.

        Raises:
            ValueError: empty prompt, token outside the vocabulary, or a context longer than the
                target's; while decoding, logits that are not finite.
            UnsupportedError: the context would reach past the target's sliding window.
        """
        check_context(self.model.config, request)
        state = self.prefill(request, past)
        if past is not None:
            past.state = state
        while request.num_left > 0:
            yield from self.round(state)

    def round(self, state: DecodeState) -> list[Round]:
        """Draft, verify and commit once, in every sequence of `state`; none of them has ended.

        What raises in a sampler or a criterion leaves every sequence as it was.
        """
        state.forget_nodes()
        started = perf_counter()
        depth = self.depth(state)
        max_depths = [min(depth, request.num_left - 1) for request in state.requests]
        trees = self.drafter.draft(state, max_depths)
        drafted = perf_counter()
        logits, h_deep = self.verify(state, trees)
        verdict, scores = self.judge(state, trees, logits)
        verified = perf_counter()
        paths, tokens, num_accepted = kept(state, trees, verdict)
        self.drafter.verified(state, trees, h_deep, successors_of(trees, paths, tokens))
        state.commit(verdict, paths, tokens, self.model.kernels)
        if self.pace is not None:
            num_passes = max(tree.num_passes for tree in trees)
            self.pace.book(state.requests, num_passes, len(trees[0]), sum(map(len, tokens)))
        seconds = (drafted - started, verified - drafted, perf_counter() - verified)
        share = seconds[0] / len(trees), seconds[1] / len(trees), seconds[2] / len(trees)
        return [
            Round(
                tokens[b],
                tree.num_drafted,
                num_accepted[b],
                share,
                logits[b, paths[b]] if self.keep_logits else None,
                scores_of(logits[b], paths[b], scores[b]) if self.keep_scores else None,
            )
            for b, tree in enumerate(trees)
        ]

    def depth(self, state: DecodeState) -> int:
        """Draft tokens along one path at most, in the next round."""
        return self.config.depth if self.pace is None else self.pace.depth(state.requests)

    def prefill(self, request: Request, past: PastKeyValues | None = None) -> DecodeState:
        """All prompt tokens but the last go through every layer, as far as they are not in `past`;
        the last is the first root.
        """
        state = self.new_state(1, len(request.tokens) + request.num_left)
        state.settle([0], [0])
        state.requests.append(request)
        start = 0
        if past is not None and past.state is not None:
            start = state.resume(past.state, request.tokens)
        exit_layer, num_layers = self.config.exit_layer, self.model.config.num_layers
        history = torch.tensor([request.tokens[start:-1]], device=state.exit_states.device)
        layers = partial(self.model.layers, prefill=True)
        chunk = PREFILL_CHUNK if self.model.prefill_kernels is None else LIBRARY_CHUNK
        for tokens in history.split(chunk, dim=1) if history.numel() else ():
            nodes = state.shallow_kv.chain(tokens.shape[1])
            h = layers(self.model.embed(tokens), 0, exit_layer, state.shallow_kv, nodes)
            h_deep = layers(h, exit_layer, num_layers, state.deep_kv, nodes)
            self.drafter.prefill(state, h, h_deep)
            state.exit_states[:, 0] = h[:, -1]
            own, done = state.adapter_kv, state.shallow_kv.slots.committed[0] + tokens.shape[1]
            state.settle([done], [own.slots.committed[0] + own.num_nodes])
        return state

    def new_state(self, batch: int, num_slots: int) -> DecodeState:
        """Room for `batch` sequences of `num_slots` tokens."""
        adapter_kv = self.drafter.new_cache(batch, num_slots)
        like = self.model.weights.norm
        return DecodeState.empty(self.model.config, self.config.exit_layer, adapter_kv, like)

    def verify(self, state: DecodeState, trees: list[DraftTree]) -> tuple[Tensor, Tensor]:
        """All nodes through layers [E, L) at once: logits [B, N, V] and last states [B, N, C]."""
        num_nodes, num_layers = len(trees[0]), self.model.config.num_layers
        h, nodes = state.hidden(0, num_nodes), state.nodes(state.deep_kv, trees, num_nodes)
        h = self.model.layers(h, self.config.exit_layer, num_layers, state.deep_kv, nodes)
        return self.model.logits(h), h

    def judge(
        self, state: DecodeState, trees: list[DraftTree], logits: Tensor
    ) -> tuple[Verdict, list[list[Tensor]]]:
        """Which nodes are kept, and the target's own token behind them; of sequences with a sampler
        also the scores [1, V] of those nodes, if they are to be kept.
        """
        scores: list[list[Tensor]] = [[] for _ in trees]
        samplers = [request.sampler for request in state.requests]
        if all(map(by_kernels, samplers)):
            verdict = self.walk(state.requests, trees, logits)
        else:
            each = []
            for b, sampler in enumerate(samplers):
                request, tree, rows = state.requests[b], trees[b], logits[b : b + 1]
                if sampler is None or by_kernels(sampler):
                    each.append(self.walk([request], [tree], rows))
                else:
                    wanted = scores[b] if self.keep_scores else None
                    try:
                        ends = request.eos_ids
                        each.append(sampler.verify(request.tokens, tree, rows, wanted, ends))
                    except ValueError as error:
                        raise SequenceError(str(error), b) from error
            verdict = Verdict(*map(torch.cat, zip(*each, strict=True)))
        for b, sampler in enumerate(samplers if self.keep_scores else ()):
            if sampler is not None and sampler.draw:
                path = verdict.path[b, : int(verdict.path_len[b])].tolist()
                scores[b] = sampler.scores(state.requests[b].tokens, trees[b], path, logits[b])
        return verdict, scores

    def walk(self, requests: list[Request], trees: list[DraftTree], logits: Tensor) -> Verdict:
        """Along the tokens that kernels choose: the most probable, or drawn ones."""
        kernels, device = self.model.kernels, logits.device
        tokens, parents = tensors(trees, device)
        samplers = [request.sampler for request in requests]
        if not any(samplers):
            return kernels.verify_tree(logits, tokens, parents)
        roots = [request.prefix_len for request in requests]
        positions = [[root + d for d in t.depths] for root, t in zip(roots, trees, strict=True)]
        places = torch.tensor(positions, dtype=torch.int32, device=device)
        drawn, _ = kernels.draw_tokens(logits, draws_of(samplers, device), places)
        return kernels.verify_tree(logits, tokens, parents, choices=drawn[..., 0])


def scores_of(logits: Tensor, path: list[int], shaped: list[Tensor]) -> Tensor:
    """[len(path), V]: the rows that a sampler shaped, or those of `logits` [N, V] as they are."""
    return torch.cat(shaped[: len(path)]) if shaped else logits[path]


def kept(
    state: DecodeState, trees: list[DraftTree], verdict: Verdict
) -> tuple[list[list[int]], list[list[int]], list[int]]:
    """Of every sequence: the nodes that it keeps, its new tokens, equally many, and how many of
    them were drafted. What is left for it to say is counted down, once all criteria were asked.

    Raises:
        ValueError: logits that are not finite; who has a sampler looks at them itself.
    """
    paths, lengths = verdict.path.tolist(), verdict.path_len.tolist()
    new, left, num_accepted = [], [], []
    for b, bonus in enumerate(verdict.bonus.tolist()):
        request, length = state.requests[b], lengths[b]
        tokens = [trees[b].tokens[node] for node in paths[b][1:length]]
        tokens += [bonus] if bonus >= 0 else []
        history, device = request.tokens, verdict.path.device
        tokens, ended = until(history, tokens, request.eos_ids, request.criteria, device)
        if bonus < 0 and not ended:
            raise not_finite(len(history) + len(tokens), b)
        new.append(tokens)
        left.append(0 if ended else request.num_left - len(tokens))
        num_accepted.append(min(length - 1, len(tokens)))
    for request, num_left in zip(state.requests, left, strict=True):
        request.num_left = num_left
    return [path[: len(t)] for path, t in zip(paths, new, strict=True)], new, num_accepted


def successors_of(
    trees: list[DraftTree], paths: list[list[int]], tokens: list[list[int]]
) -> list[list[int]]:
    """Of every tree, the token behind each node of its path; 0 behind the others."""
    successors = [[0] * len(tree) for tree in trees]
    for row, path, new in zip(successors, paths, tokens, strict=True):
        for node, token in zip(path, new, strict=True):
            row[node] = token
    return successors


def not_finite(num_tokens: int, number: int) -> SequenceError:
    """No token can follow `num_tokens`."""
    said = f"the logits are not finite: the largest behind {num_tokens} tokens"
    return SequenceError(said, number)


def check_context(model: ModelConfig, request: Request) -> None:
    """Refuse, before anything is computed, what the target cannot do; see
    :meth:`Decoder.generate`.
    """
    prompt, num_new = request.tokens, request.num_left
    if not prompt:
        raise ValueError("prompt: expected at least one token, got none")
    if bad := [token for token in prompt if not 0 <= token < model.vocab_size]:
        raise ValueError(f"prompt: expected tokens in [0, {model.vocab_size}), got {bad[0]}")
    if num_new < 0:
        raise ValueError(f"max_new_tokens: expected at least 0, got {num_new}")
    total_len = len(prompt) + num_new
    if total_len > model.max_seq_len:
        raise ValueError(
            f"max_new_tokens: expected at most {model.max_seq_len - len(prompt)} behind "
            f"{len(prompt)} prompt tokens (the target's context is {model.max_seq_len}), "
            f"got {num_new}"
        )
    if model.sliding_window is not None and total_len > model.sliding_window:
        raise UnsupportedError(
            f"sliding-window attention is not supported: {total_len} tokens would reach past "
            f"the target's window of {model.sliding_window}"
        )
