"""A drafter that goes on learning from what is written while it works (online speculative decoding,
arXiv 2310.07177).

Verification never reads the drafter, so the output stays what it is (with
`draft_sampling="rejection"` its law does), and drafts come nearer to it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor

from kangaroo.config import DraftConfig
from kangaroo.draft.kangaroo import KangarooDrafter
from kangaroo.engine.decode import Decoder
from kangaroo.engine.llm import KangarooForCausalLM
from kangaroo.engine.state import DecodeState, Request
from kangaroo.models.adapter import Adapter
from kangaroo.models.adapter_io import kangaroos, save_adapter
from kangaroo.models.fingerprint import fingerprint
from kangaroo.models.llama import Llama
from kangaroo.train.config import LossConfig, OptimConfig, at_least
from kangaroo.train.run import exit_scale, new_optimizer
from kangaroo.train.student import AdapterStudent, Student
from kangaroo.train.target import States
from kangaroo.train.trainer import apply_gradient, deltas_of, drafting_loss


@dataclass(frozen=True)
class OnlineConfig:
    """How a drafter learns while it works.

    Attributes:
        every: finished sequences that one optimiser step is made of.
        max_len: tokens of a sequence that are looked at, its first and its last ones: bounds time
            and memory.
        lr: learning rate, the same in every step.
        loss: see `LossConfig`. By default half of it is the target's best token: with the whole
            distribution alone drafts get less sure as they get better on new text, and stop sooner.
    """

    every: int = 8
    max_len: int = 1024
    lr: float = 3e-4
    loss: LossConfig = field(default_factory=lambda: LossConfig(soft=0.5, hard=0.5))

    def __post_init__(self) -> None:
        at_least(self, "every", 1)
        at_least(self, "max_len", 2)
        _ = self.optim  # refuses what is no rate

    @property
    def optim(self) -> OptimConfig:
        """The optimiser's."""
        return OptimConfig(lr=self.lr, min_lr_ratio=1.0, warmup_steps=0)


class Teacher(Protocol):
    """The target, as a learner asks it; `train.target.FrozenTarget` is one."""

    head: Tensor

    def states(self, ids: Tensor) -> States:
        """Of ids [1, T] int64."""
        ...


class Learner:
    """Trains `student` on finished sequences, a few at a time.

    Args:
        rope: [2, P, D / 2] float32.
        max_depth: see `NewAdapter`.
        seed: of the deltas.
        optimizer: to go on with; None: a new one.
    """

    def __init__(
        self,
        teacher: Teacher,
        student: Student,
        rope: Tensor,
        config: OnlineConfig,
        *,
        max_depth: int,
        seed: int = 0,
        optimizer: torch.optim.Optimizer | None = None,
    ):
        self.teacher, self.student, self.rope, self.config = teacher, student, rope, config
        self.max_depth, self.seed, self.num_steps = max_depth, seed, 0
        self._optimizer = optimizer
        self._waiting: list[tuple[list[int], int]] = []  # tokens of slots; how many, last, teach

    def observe(self, token_ids: Sequence[int] | Tensor, prompt_len: int) -> float | None:
        """A sequence has ended: its tokens [prompt_len + new], of which the target wrote those
        behind `prompt_len`. With the `config.every`-th that waits, :meth:`learn`; its loss.

        Raises:
            ValueError: no token of the sequence is new, or one stands outside the vocabulary.
            FloatingPointError: as :meth:`learn`.
        """
        given = torch.as_tensor(token_ids)
        if given.ndim != 1:
            raise ValueError(f"token_ids: expected one sequence [T], got {list(given.shape)}")
        tokens: list[int] = given.tolist()
        if not 0 < prompt_len < len(tokens):
            raise ValueError(f"prompt_len: expected 1 to {len(tokens) - 1}, got {prompt_len}")
        size = len(self.teacher.head)
        if not 0 <= min(tokens) <= max(tokens) < size:
            raise ValueError(f"token_ids: expected numbers in [0, {size}), got {tokens}")
        # Slot s teaches the token behind it, if that is new; the last leads to none that is known.
        slots, most, num_new = tokens[:-1], self.config.max_len, len(tokens) - prompt_len
        if len(slots) > most:  # the first token is what attention falls back on
            slots, num_new = [tokens[0], *slots[1 - most :]], min(num_new, most - 1)
        self._waiting.append((slots, num_new))
        return self.learn() if len(self._waiting) == self.config.every else None

    @torch.inference_mode(False)
    @torch.enable_grad()
    def learn(self) -> float:
        """One optimiser step on the sequences that wait; the mean loss of their new tokens.

        Raises:
            ValueError: none waits.
            FloatingPointError: the loss is not finite; the drafter stays as it is.
        """
        waiting, self._waiting = self._waiting, []
        if not waiting:
            raise ValueError("learn: expected a sequence that waits, got none")
        module, device = self.student.module, self.rope.device
        module.zero_grad()
        deltas = deltas_of(self.student, self.max_depth, self.seed, self.num_steps)
        num_losses = sum(count for _, count in waiting) * len(deltas)
        total, scale = torch.zeros((), device=device), 0.0
        for slots, count in waiting:
            states = self.teacher.states(torch.tensor([slots]))
            trained = torch.arange(len(slots), device=device)[None] >= len(slots) - count
            if self._optimizer is None:
                scale = scale or exit_scale(states, trained).item()
            seen = states, trained, self.teacher.head, self.rope
            loss = drafting_loss(self.student, *seen, deltas=deltas, weights=self.config.loss)
            (loss / num_losses).backward()
            total += loss.detach() / num_losses
        if not total.isfinite():
            raise FloatingPointError(f"loss: expected a finite number, got {total.item()}")
        if self._optimizer is None:
            self._optimizer = new_optimizer(self.student, self.config.optim, scale)
        apply_gradient(module, self._optimizer, self.config.optim, self.num_steps)
        self.num_steps += 1
        return total.item()


class OnlineLearner(Learner):
    """Trains the adapter of an engine, in place, while it serves: tell it of every sequence that
    has ended, and it takes steps between them.

    Args:
        config: None: the defaults.

    Attributes:
        deployed, own: the engine's adapter, and the copy in float32 that is trained.

    Raises:
        ValueError: the engine has no adapter, or another drafter's.
    """

    @torch.inference_mode(False)
    def __init__(self, llm: KangarooForCausalLM, config: OnlineConfig | None = None):
        if llm.adapter is None:
            raise ValueError("adapter: expected one that can learn, got none")
        self.llm, self.deployed = llm, kangaroos(llm.adapter)
        self.own = Adapter(self.deployed.config)
        self.own.load_state_dict(self.deployed.state_dict())
        super().__init__(
            EngineTeacher(llm.model, self.own.config.exit_layer),
            AdapterStudent(self.own.to(llm.device)),
            llm.model.rope,
            OnlineConfig() if config is None else config,
            max_depth=self.own.config.max_depth,
        )

    def learn(self) -> float:
        """See Learner; between two rounds, for the next one drafts with what was learnt."""
        loss = super().learn()
        with torch.no_grad():
            for name, p in self.own.named_parameters():
                self.deployed.get_parameter(name).copy_(p)
        return loss

    def save(self, path: str | Path) -> None:
        """Write the adapter as it is now to folder `path`, with the stopping rule that it has.

        Raises:
            ValueError: as save_adapter.
        """
        marks = fingerprint(self.llm.path, self.own.config.exit_layer)
        save_adapter(Path(path), self.own, self.llm.model.config, marks)


class EngineTeacher:
    """The target of an engine, by its own prefill."""

    def __init__(self, model: Llama, exit_layer: int):
        self.model, self.head = model, model.weights.lm_head
        self.config = DraftConfig(exit_layer, max_depth=0)

    @torch.no_grad()
    def states(self, ids: Tensor) -> States:
        """See Teacher."""
        kept = _KeptStates(self.model, self.config)
        behind = [*ids[0].tolist(), 0]  # prefill leaves the last token to the first round
        Decoder(self.model, kept, self.config).prefill(Request(behind, 1))
        exit_states, last = torch.cat(kept.exit, 1), torch.cat(kept.last, 1)
        weights, eps = self.model.weights, self.model.config.rms_norm_eps
        ids = ids.to(last.device)
        return States(
            exit_states.float(),
            last.float(),
            self.model.kernels.rms_norm(last, weights.norm, eps),
            ids,
            self.model.embed(ids.roll(-1, dims=1)).float(),
        )


class _KeptStates(KangarooDrafter):
    """Drafts nothing.

    Attributes:
        exit, last: states of the prompt's slots, chunk by chunk, each [1, N, C].
    """

    def __init__(self, model: Llama, config: DraftConfig):
        super().__init__(model, None, config)
        self.exit, self.last = list[Tensor](), list[Tensor]()

    def prefill(self, state: DecodeState, h: Tensor, h_deep: Tensor) -> None:
        """The states are kept."""
        self.exit.append(h)
        self.last.append(h_deep)
