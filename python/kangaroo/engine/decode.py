"""The decode loop: draft, verify, commit. Nothing else lives here."""

from __future__ import annotations

from collections.abc import Iterator, Sequence, Set
from dataclasses import dataclass
from math import isfinite
from time import perf_counter

import torch
from torch import Tensor

from kangaroo.config import DraftConfig, ModelConfig
from kangaroo.draft.base import Drafter
from kangaroo.draft.tree import DraftTree
from kangaroo.engine.state import DecodeState
from kangaroo.engine.stopping import Criterion, until
from kangaroo.models.llama import Llama
from kangaroo.sampling.sampler import Sampler
from kangaroo_kernels import UnsupportedError
from kangaroo_kernels.verify_tree import Verdict

PREFILL_CHUNK = 256  # prompt tokens per pass: bounds the memory of activations


@dataclass(frozen=True)
class Round:
    """What one round added.

    Attributes:
        tokens: the accepted draft tokens, then the bonus token; cut where the sequence ends.
        num_drafted: tokens drafted, all of a tree's; num_accepted: how many of `tokens` were.
        seconds: host time of draft, verify and commit.
    """

    tokens: list[int]
    num_drafted: int
    num_accepted: int
    seconds: tuple[float, float, float]


class Decoder:
    """Lossless self-speculative decoding of one sequence; `max_depth=0` makes it autoregressive.

    Without a `sampler` every token is the target's argmax.
    """

    def __init__(
        self, model: Llama, drafter: Drafter, config: DraftConfig, sampler: Sampler | None = None
    ):
        self.model, self.drafter, self.config, self.sampler = model, drafter, config, sampler

    @torch.inference_mode()
    def generate(
        self,
        prompt: Sequence[int],
        max_new_tokens: int,
        eos_ids: Set[int] = frozenset(),
        criteria: Sequence[Criterion] = (),
    ) -> Iterator[Round]:
        """Continue `prompt` by `max_new_tokens` tokens, or up to and including the first of
        `eos_ids` or the first at which one of `criteria` says so.

        Yields the rounds, each of at least one token.

        Raises:
            ValueError: empty prompt, token outside the vocabulary, or a context longer than the
                target's; while decoding, logits that are not finite.
            UnsupportedError: the context would reach past the target's sliding window.
        """
        check_context(self.model.config, prompt, max_new_tokens)
        state = self.prefill(prompt, max_new_tokens)
        while max_new_tokens > 0:
            started = perf_counter()
            tree = self.drafter.draft(state, min(self.config.depth, max_new_tokens - 1))
            drafted = perf_counter()
            logits, h_deep = self.verify(state, tree)
            verdict = self.judge(state, tree, logits)
            verified = perf_counter()
            path = verdict.path[0, : int(verdict.path_len)]
            tokens = [tree.tokens[node] for node in path[1:].tolist()] + verdict.bonus.tolist()
            if self.sampler is None:  # who has one may repair logits, and looks at what it draws
                chosen = torch.tensor(tokens, device=logits.device)
                check_finite(logits[0, path, chosen].tolist())
            tokens, ended = until(state.tokens, tokens, eos_ids, criteria, logits.device)
            self.drafter.verified(state, tree, h_deep)
            state.commit(verdict, tokens, self.model.kernels)
            committed = perf_counter()
            seconds = (drafted - started, verified - drafted, committed - verified)
            yield Round(tokens, len(tree) - 1, min(len(path) - 1, len(tokens)), seconds)
            max_new_tokens = 0 if ended else max_new_tokens - len(tokens)

    def prefill(self, prompt: Sequence[int], max_new_tokens: int) -> DecodeState:
        """All prompt tokens but the last go through every layer; the last is the first root."""
        model, exit_layer, num_layers = (
            self.model,
            self.config.exit_layer,
            self.model.config.num_layers,
        )
        adapter_kv = self.drafter.new_cache(len(prompt) + max_new_tokens)
        state = DecodeState.empty(model.config, exit_layer, adapter_kv, like=model.weights.norm)
        history = torch.tensor([prompt[:-1]], dtype=torch.int64, device=state.positions.device)
        for tokens in history.split(PREFILL_CHUNK, dim=1) if history.numel() else ():
            num_nodes = tokens.shape[1]
            nodes = state.shallow_kv.chain(num_nodes, state.positions)
            h = state.exit_hidden.next_hidden(num_nodes)
            model.layers(model.embed(tokens), 0, exit_layer, state.shallow_kv, nodes, out=h)
            h = model.layers(h, exit_layer, num_layers, state.deep_kv, nodes)
            self.drafter.prefill(state, h)
            for cache in (state.shallow_kv, state.deep_kv, state.exit_hidden, state.adapter_kv):
                cache.commit(cache.length)
        state.tokens = list(prompt)
        return state

    def verify(self, state: DecodeState, tree: DraftTree) -> tuple[Tensor, Tensor]:
        """All nodes through layers [E, L) at once: logits [1, N, V] and last states [1, N, C]."""
        h = state.exit_hidden.hidden(state.prefix_len, state.prefix_len + len(tree))
        nodes = state.nodes(state.deep_kv, tree)
        h = self.model.layers(
            h, self.config.exit_layer, self.model.config.num_layers, state.deep_kv, nodes
        )
        return self.model.logits(h), h

    def judge(self, state: DecodeState, tree: DraftTree, logits: Tensor) -> Verdict:
        """Which nodes are kept, and the target's own token behind them."""
        if self.sampler is not None:
            return self.sampler.verify(state.tokens, tree, logits)
        return self.model.kernels.verify_tree(logits, *tree.tensors(logits.device))


def check_finite(chosen: list[float]) -> None:
    """Refuse a token whose own logit, the greatest of its row, is no finite number."""
    if not all(map(isfinite, chosen)):
        raise ValueError(f"the logits are not finite: {chosen} are the greatest of their rows")


def check_context(model: ModelConfig, prompt: Sequence[int], max_new_tokens: int) -> None:
    """Refuse, before anything is computed, what the target cannot do; see
    :meth:`Decoder.generate`.
    """
    if not prompt:
        raise ValueError("prompt: expected at least one token, got none")
    if bad := [token for token in prompt if not 0 <= token < model.vocab_size]:
        raise ValueError(f"prompt: expected tokens in [0, {model.vocab_size}), got {bad[0]}")
    if max_new_tokens < 0:
        raise ValueError(f"max_new_tokens: expected at least 0, got {max_new_tokens}")
    total_len = len(prompt) + max_new_tokens
    if total_len > model.max_seq_len:
        raise ValueError(
            f"max_new_tokens: expected at most {model.max_seq_len - len(prompt)} behind "
            f"{len(prompt)} prompt tokens (the target's context is {model.max_seq_len}), "
            f"got {max_new_tokens}"
        )
    if model.sliding_window is not None and total_len > model.sliding_window:
        raise UnsupportedError(
            f"sliding-window attention is not supported: {total_len} tokens would reach past "
            f"the target's window of {model.sliding_window}"
        )
