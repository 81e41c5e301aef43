"""How sure a drafter must be to go on, steered by what is accepted (arXiv 2309.08168)."""

from __future__ import annotations

from dataclasses import dataclass

from kangaroo.config import DraftConfig
from kangaroo.draft.tree import DraftTree
from kangaroo.engine.state import Request


@dataclass
class DraftMemory:
    """What is remembered of a sequence between its rounds.

    Attributes:
        rate: running mean of the share of drafts that were accepted.
        drafts: of the last round, behind `num_tokens` tokens.
    """

    confidence: float
    rate: float
    drafts: list[int]
    num_tokens: int


@dataclass(frozen=True)
class Threshold:
    """The rule and its constants, as published.

    After every round that drafted, with a the share of its drafts that were accepted: the rate r
    becomes `rate_decay` r + (1 - `rate_decay`) a. The threshold is to be `step` higher where r is
    below `wanted`, else `step` lower, but as it is where the draft was as long as it may be; it
    moves 1 - `decay` of the way there.
    """

    wanted: float = 0.9
    step: float = 0.01
    rate_decay: float = 0.5
    decay: float = 0.9

    def now(self, request: Request, config: DraftConfig) -> float:
        """The threshold of a sequence in its next round; `config.confidence` at first."""
        memory = request.memory
        if not isinstance(memory, DraftMemory):
            return config.confidence
        self._settle(memory, request, config)
        return memory.confidence

    def drafted(self, request: Request, tree: DraftTree, config: DraftConfig) -> None:
        """`tree`, a chain, has been verified and is about to be committed."""
        memory = request.memory
        if not isinstance(memory, DraftMemory):
            memory = request.memory = DraftMemory(config.confidence, 0.0, [], 0)
        memory.drafts = tree.tokens[1 : 1 + tree.num_drafted]
        memory.num_tokens = len(request.tokens)

    def _settle(self, memory: DraftMemory, request: Request, config: DraftConfig) -> None:
        """Learn from the last round, once."""
        drafts, new = memory.drafts, request.tokens[memory.num_tokens :]
        memory.drafts = []
        if not drafts or not new:
            return
        kept = next((n for n, (a, b) in enumerate(zip(drafts, new, strict=False)) if a != b), None)
        num_accepted = min(len(drafts), len(new)) if kept is None else kept
        share = num_accepted / len(drafts)
        memory.rate = self.rate_decay * memory.rate + (1 - self.rate_decay) * share
        if memory.rate < self.wanted:
            move = self.step
        else:
            move = 0.0 if len(drafts) == config.depth else -self.step
        memory.confidence += (1 - self.decay) * move
