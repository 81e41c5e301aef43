"""What a certificate is about, and what a check of it finds."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import Any

from kangaroo.engine.generation import greedy_options
from kangaroo.engine.llm import KangarooForCausalLM
from kangaroo.engine.options import NEUTRAL, SAMPLING
from kangaroo.evals.bits import plain
from kangaroo.evals.recording import Recording
from kangaroo.models.adapter_io import kangaroos
from kangaroo.sampling.source import SEEDS, CounterSource

PASS, FAIL, NOT_RUN = "pass", "fail", "not run"
Options = dict[str, Any]


@dataclass(frozen=True)
class Settings:
    """How much is run.

    Attributes:
        max_new_tokens: of every continuation but those of the sampling law.
        seed: of everything that is drawn.
        num_draws: continuations per prompt and way of decoding for the sampling law.
    """

    max_new_tokens: int = 64
    seed: int = 0
    num_draws: int = 300

    def __post_init__(self) -> None:
        for name in ("max_new_tokens", "num_draws"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}: expected at least 1, got {getattr(self, name)}")
        CounterSource(self.seed)  # refuses what is no seed


@dataclass(frozen=True)
class Finding:
    """What a check found; without anything that was compared it is no proof, so no pass.

    Attributes:
        counts: of what was compared, and of what differed.
        failures: what is not as promised, in detail.
        remarks: what else deserves to be kept, such as margins.
        not_run: why nothing was compared; "" where something was.
    """

    counts: dict[str, Any] = field(default_factory=dict)
    failures: list[dict[str, Any]] = field(default_factory=list)
    remarks: list[dict[str, Any]] = field(default_factory=list)
    not_run: str = ""

    @property
    def verdict(self) -> str:
        if self.failures:
            return FAIL
        return NOT_RUN if self.not_run else PASS

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {"verdict": self.verdict} | asdict(self)


@dataclass(frozen=True)
class Subject:
    """A target, perhaps with an adapter, and prompts to try it on.

    Attributes:
        prompts: token ids.
    """

    llm: KangarooForCausalLM
    prompts: tuple[tuple[int, ...], ...]
    settings: Settings = Settings()

    def __post_init__(self) -> None:
        if not self.prompts:
            raise ValueError("prompts: expected at least one, got none")
        if self.llm.adapter is not None:
            kangaroos(self.llm.adapter)  # who drafts trees too

    @property
    def modes(self) -> dict[str, Options]:
        """Ways of decoding: options of `generate` by name; those that draft need an adapter, and
        draft whether it pays or not.
        """
        off: dict[str, Options] = {"off": {"draft": "off"}}
        if self.llm.adapter is None:
            return off
        return off | {kind: {"draft": kind, "adaptive": False} for kind in ("chain", "tree")}

    @property
    def greedy(self) -> dict[str, Any]:
        """Options of plain greedy decoding that no token ends, whatever the folder's own say."""
        plainly = greedy_options(self.llm.generation_config)
        return plainly | {"max_new_tokens": self.settings.max_new_tokens, "eos_token_id": None}

    def sampled(self, number: int, **options: Any) -> dict[str, Any]:
        """Options of sampling from the target's own rows, but for what is given here.

        Args:
            number: of the seed, counted from that of the settings.
        """
        seed = (self.settings.seed + number) % SEEDS
        neutral = {name: NEUTRAL.get(name) for name in SAMPLING} | {"top_k": 0}
        return self.greedy | neutral | {"do_sample": True, "seed": seed} | options

    def ids(self, prompt: tuple[int, ...], **options: Any) -> list[int]:
        """New tokens; `options` as in :meth:`KangarooForCausalLM.rounds`."""
        rounds = self.llm.rounds(prompt, **options)
        return [token for each in rounds for token in each.tokens]

    @cached_property
    def plain(self) -> list[Recording]:
        """Of every prompt: greedy decoding without drafting, and its logits."""
        n = self.settings.max_new_tokens
        return [plain(self.llm.model, prompt, n) for prompt in self.prompts]
