"""Train tiny-py's language model from nothing: `python -m kangaroo.zoo.pretrain --out DIR --minutes
90`.
"""

from __future__ import annotations

import copy
import logging
import math
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import torch
import torch.nn.functional as F
import typer
from torch import Tensor, nn
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from kangaroo.train.memory import keep_freed_memory
from kangaroo.zoo import corpus
from kangaroo.zoo.muon import Muon

logger = logging.getLogger(__name__)

HELD_OUT_WINDOW = 1024  # tokens


@dataclass(frozen=True)
class PretrainConfig:
    """The recipe. Progress is a fraction of the time budget, so that one recipe fits any
    machine.
    """

    minutes: float = 90.0
    vocab_size: int = 4096
    hidden_size: int = 192
    intermediate_size: int = 512
    num_layers: int = 16
    head_dim: int = 64
    context_len: int = 1024
    tokens_per_step: int = 4096
    # (from this progress on, num_layers / depth_divisor layers, windows of this many tokens)
    phases: tuple[tuple[float, int, int], ...] = ((0.0, 2, 256), (0.33, 1, 256), (0.75, 1, 1024))
    matrix_lr: float = 0.02
    other_lr: float = 3e-3
    warmup_steps: int = 40
    decay_from: float = 0.45
    seed: int = 0


def new_model(config: PretrainConfig, bos_id: int, eos_id: int) -> LlamaForCausalLM:
    """A Llama of the first phase's depth, tied embeddings, residual branches that start at zero."""
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=config.vocab_size,
            hidden_size=config.hidden_size,
            intermediate_size=config.intermediate_size,
            num_hidden_layers=config.num_layers // config.phases[0][1],
            num_attention_heads=config.hidden_size // config.head_dim,
            num_key_value_heads=config.hidden_size // config.head_dim,
            max_position_embeddings=config.context_len,
            tie_word_embeddings=True,
            bos_token_id=bos_id,
            eos_token_id=eos_id,
        )
    )
    for block in model.model.layers:
        nn.init.zeros_(block.self_attn.o_proj.weight)
        nn.init.zeros_(block.mlp.down_proj.weight)
    return model


def stack_layers(model: LlamaForCausalLM, num_layers: int) -> None:
    """Grow by repeating the whole stack (G_stack, arXiv 2405.15319): shallow steps are cheap, and
    little is forgotten.
    """
    layers = model.model.layers
    while len(layers) < num_layers:
        layers.append(copy.deepcopy(layers[len(layers) - model.config.num_hidden_layers]))
        layers[-1].self_attn.layer_idx = len(layers) - 1
    model.config.num_hidden_layers = num_layers


def make_optimizers(model: LlamaForCausalLM, config: PretrainConfig) -> list[torch.optim.Optimizer]:
    """Muon for the matrices of the layers, AdamW for embedding and norms; base rates kept as
    `base_lr`.
    """
    matrices = [p for p in model.model.layers.parameters() if p.ndim == 2]
    others = [p for p in model.parameters() if not any(p is m for m in matrices)]
    both: list[torch.optim.Optimizer] = [
        Muon(matrices, lr=config.matrix_lr),
        torch.optim.AdamW(others, lr=config.other_lr, betas=(0.9, 0.95), weight_decay=0.0),
    ]
    for group in (g for opt in both for g in opt.param_groups):
        group["base_lr"] = group["lr"]
    return both


def lr_factor(config: PretrainConfig, progress: float, step: int) -> float:
    """Linear warm-up in steps, a plateau, then linear decay to zero in progress."""
    decay = min(1.0, (1.0 - progress) / (1.0 - config.decay_from))
    return min(1.0, (step + 1) / config.warmup_steps) * max(decay, 0.0)


def loss_of(model: LlamaForCausalLM, rows: Tensor) -> Tensor:
    """Mean cross-entropy in nats of rows [B, T + 1]."""
    hidden = model.model(rows[:, :-1], use_cache=False).last_hidden_state
    return F.cross_entropy(model.lm_head(hidden).float().flatten(0, 1), rows[:, 1:].flatten())


@torch.no_grad()
def held_out_loss(model: LlamaForCausalLM, rows: Tensor, batch_size: int = 4) -> float:
    """Nats per token over windows [N, T + 1]."""
    losses = [loss_of(model, batch).item() * len(batch) for batch in rows.split(batch_size)]
    return sum(losses) / len(rows)


def endless_batches(
    stream: Tensor, length: int, batch_size: int, bos_id: int, rng: torch.Generator
) -> Iterator[Tensor]:
    """Batches [batch_size, length + 1]; every window once per epoch, cut anew each epoch."""
    while True:
        rows = corpus.windows(stream, length, bos_id, rng)
        yield from rows[: len(rows) // batch_size * batch_size].split(batch_size)


class Pretraining:
    """The model being trained, its data, and where it stands in the recipe."""

    def __init__(self, config: PretrainConfig, out: Path, device: str, start_from: Path | None):
        torch.manual_seed(config.seed)
        self.config, self.out, self.device = config, out, device
        self.rng = torch.Generator().manual_seed(config.seed)
        train_texts, held_texts = corpus.split(corpus.stdlib_files())
        self.tokenizer = (
            PreTrainedTokenizerFast.from_pretrained(start_from)
            if start_from
            else corpus.train_tokenizer(train_texts, config.vocab_size)
        )
        self.bos_id = self.tokenizer.bos_token_id
        self.stream = corpus.token_stream(self.tokenizer, train_texts)
        held_stream = corpus.token_stream(self.tokenizer, held_texts)
        self.held_out = corpus.windows(held_stream, HELD_OUT_WINDOW, self.bos_id).to(device)
        self.model: LlamaForCausalLM = (
            LlamaForCausalLM.from_pretrained(start_from, dtype=torch.float32)
            if start_from
            else new_model(config, self.bos_id, self.tokenizer.eos_token_id)
        )
        self.model.to(device)  # type: ignore[arg-type]  # transformers wraps `to` without its types
        self.phase = self.step = 0
        self.enter_phase(0)

    @property
    def num_tokens(self) -> int:
        return self.step * self.config.tokens_per_step

    def save(self) -> None:
        """Write model and tokenizer to `out` as a Hugging Face folder."""
        self.model.save_pretrained(self.out)
        self.tokenizer.save_pretrained(self.out)

    def enter_phase(self, phase: int) -> None:
        """Grow the model and lengthen the windows as the recipe says."""
        _, divisor, length = self.config.phases[phase]
        stack_layers(self.model, self.config.num_layers // divisor)
        if phase == 0 or divisor != self.config.phases[phase - 1][1]:
            self.optimizers = make_optimizers(self.model, self.config)
        batch_size = self.config.tokens_per_step // length
        self.batches = endless_batches(self.stream, length, batch_size, self.bos_id, self.rng)
        self.phase = phase
        logger.info(
            "step %d: %d layers, windows of %d", self.step, len(self.model.model.layers), length
        )

    def train_step(self, progress: float) -> float:
        """One batch; returns its loss in nats per token."""
        later = self.phase + 1
        if later < len(self.config.phases) and progress >= self.config.phases[later][0]:
            self.enter_phase(later)
        loss = loss_of(self.model, next(self.batches).to(self.device))
        loss.backward()
        for opt in self.optimizers:
            for group in opt.param_groups:
                group["lr"] = group["base_lr"] * lr_factor(self.config, progress, self.step)
            opt.step()
            opt.zero_grad()
        self.step += 1
        return loss.item()


def train(config: PretrainConfig, out: Path, device: str, start_from: Path | None = None) -> float:
    """Train, save model (bfloat16) and tokenizer to `out` as a Hugging Face folder; returns the
    held-out loss. No time: nothing is written.

    Raises:
        RuntimeError: training diverged; nothing but the last good checkpoint is in `out`.
    """
    run = Pretraining(config, out, device, start_from)
    start, budget = time.monotonic(), 60 * config.minutes
    while (elapsed := time.monotonic() - start) < budget:
        progress = elapsed / budget
        loss = run.train_step(progress)
        if run.step % 20 == 0:
            logger.info(
                "step %d tokens %d progress %.3f loss %.3f",
                run.step,
                run.num_tokens,
                progress,
                loss,
            )
        if run.step % 400 == 0:
            logger.info(
                "held-out, first 16 windows: %.4f", held_out_loss(run.model, run.held_out[:16])
            )
            run.save()
    if run.step:  # what is measured is what is written
        run.model.bfloat16().float()
    held_loss = held_out_loss(run.model, run.held_out)
    if not math.isfinite(held_loss):
        raise RuntimeError(f"training diverged: held-out loss {held_loss}")
    if run.step:
        run.model.bfloat16()
        run.save()
    logger.info(
        "steps %d tokens %d held-out %.4f nats per token", run.step, run.num_tokens, held_loss
    )
    return held_loss


def main(
    out: Path,
    minutes: float = 90.0,
    start_from: Path | None = None,
    threads: int = 0,
    device: str = "cpu",
    seed: int = 0,
) -> None:
    """Train tiny-py and write it to OUT; --start-from DIR goes on from weights written before;
    with --minutes 0 it only says their held-out loss.
    """
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    keep_freed_memory()
    if threads:
        torch.set_num_threads(threads)
    config = PretrainConfig(minutes=minutes, seed=seed)
    if start_from:
        # Grown already: a lower peak, so that little is forgotten. Short windows train faster.
        phases = ((0.0, 1, 256), (0.6, 1, HELD_OUT_WINDOW))
        config = replace(config, phases=phases, matrix_lr=0.01, other_lr=1.5e-3)
    train(config, out, device, start_from)


if __name__ == "__main__":
    typer.run(main)
