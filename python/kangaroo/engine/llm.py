"""Token ids in, token ids out, with the meanings transformers gives its options."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import AutoTokenizer, GenerationConfig, PreTrainedTokenizerBase
from transformers.generation.streamers import BaseStreamer
from transformers.utils.generic import ModelOutput

from kangaroo.config import DraftConfig
from kangaroo.draft.branching import BranchingDrafter
from kangaroo.draft.kangaroo import KangarooDrafter
from kangaroo.draft.sampled import SampledBranchingDrafter, SampledDrafter
from kangaroo.draft.whole import chain_drafter
from kangaroo.engine.decode import Decoder, check_context
from kangaroo.engine.drafting import DRAFT_OPTIONS, draft_config
from kangaroo.engine.generation import Plan, plan, samplers
from kangaroo.engine.loading import load_engine
from kangaroo.engine.stats import Rounds, Speculation
from kangaroo.models.adapter import Adapter
from kangaroo.models.llama import Llama
from kangaroo.sampling.sampler import Sampler
from kangaroo_kernels import Backend, UnsupportedError


@dataclass
class GenerateOutput(ModelOutput):
    """What `return_dict_in_generate=True` returns.

    Attributes:
        sequences: [num_return_sequences, T + new] int64, prompt and continuation.
        speculation: how drafting went, in all of them together.
    """

    sequences: Tensor | None = None
    speculation: Speculation | None = None


class KangarooForCausalLM:
    """A target and its adapter. `max_depth=0` decodes without drafting; the tokens are the same.

    Attributes:
        path: the target's folder; its tokenizer is loaded from there when first used.
        generation_config: the defaults of :meth:`generate`, the folder's own.
    """

    def __init__(
        self, model: Llama, adapter: Adapter | None, path: Path, generation_config: GenerationConfig
    ):
        self.model, self.adapter = model, adapter
        self.path, self.generation_config = path, generation_config

    @classmethod
    def from_pretrained(
        cls,
        target: str | Path,
        adapter: str | Path | None = None,
        *,
        dtype: torch.dtype | str | None = None,
        device: torch.device | str = "cpu",
        backend: Backend | str = "auto",
    ) -> KangarooForCausalLM:
        """Load a target and the adapter that drafts for it.

        Args:
            target: a local Hugging Face folder, or "tiny-py", the model in the package.
            adapter: its folder, or the name of one in the target's folder `adapters`. None: no
                drafting, but for "tiny-py", which takes its "deep_prefix".
            dtype: a torch dtype or its name; "auto": the checkpoint's; None: float32 on the CPU,
                elsewhere "auto".
            device: where to run.
            backend: of the kernels: "auto", "reference", "native", "triton" or "cuda".

        Raises:
            ValueError: a folder, file, tensor or argument is missing or wrong, or the adapter was
                made for another target.
            UnsupportedError: the family, the dtype, the device or the backend is not supported.
        """
        path, model, loaded = load_engine(target, adapter, dtype, device, backend)
        return cls(model, loaded, path, _generation_config(path))

    @property
    def device(self) -> torch.device:
        return self.model.weights.norm.device

    @cached_property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        """The folder's tokenizer.

        Raises:
            ValueError: there is none that transformers can read.
        """
        try:
            tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(
                self.path, local_files_only=True, trust_remote_code=False
            )
        except (OSError, ValueError, ImportError, KeyError, TypeError) as error:
            raise ValueError(
                f"{self.path}: no usable tokenizer: {' '.join(str(error).split())}"
            ) from error
        return tokenizer

    def generate(
        self,
        input_ids: Tensor | Sequence[int],
        generation_config: GenerationConfig | None = None,
        *,
        streamer: BaseStreamer | None = None,
        **options: Any,
    ) -> Tensor | GenerateOutput:
        """Continue one prompt, greedily or, with `do_sample=True`, by drawing.

        Args:
            input_ids: [1, T] int64, or a list of T ids.
            generation_config: above the folder's, below `options`.
            streamer: `put` gets the prompt [1, T], then the tokens [n] of each round, on the CPU;
                `end` is called in any case, exceptions included.
            options: fields of GenerationConfig (`max_new_tokens`, `eos_token_id`, `do_sample`,
                `temperature`, `return_dict_in_generate`, ...), `logits_processor`,
                `prefix_allowed_tokens_fn`, `stopping_criteria`, an `attention_mask` of ones, and
                Kangaroo's own `draft`, `max_depth`, `confidence`, `seed`, `draft_sampling`; see
                :meth:`rounds`.

        Returns:
            [num_return_sequences, T + new] int64 on the device of `input_ids`, an end-of-sequence
            token included and padded behind it; with `return_dict_in_generate=True` a
            :class:`GenerateOutput`.

        Raises:
            ValueError, UnsupportedError: as :meth:`rounds`, before anything is computed.
        """
        try:
            prompt, sequences, wanted = self._start(input_ids, generation_config, options)
            if streamer is not None:
                if len(sequences) > 1:
                    raise UnsupportedError("streamer: expected num_return_sequences=1")
                streamer.put(torch.tensor([prompt]))
            for rounds in sequences:
                for latest in rounds:
                    if streamer is not None:
                        streamer.put(torch.tensor(latest.tokens))
        finally:
            if streamer is not None:
                streamer.end()
        device = input_ids.device if isinstance(input_ids, Tensor) else self.device
        ids = padded([prompt + rounds.tokens for rounds in sequences], wanted.pad_id).to(device)
        if not wanted.return_dict:
            return ids
        first, *others = (rounds.speculation for rounds in sequences)
        return GenerateOutput(ids, sum(others, start=first))

    def rounds(
        self,
        input_ids: Tensor | Sequence[int],
        generation_config: GenerationConfig | None = None,
        **options: Any,
    ) -> Rounds:
        """The rounds of :meth:`generate` as they are decoded, and what speculation did so far.

        Args:
            draft: "chain" (default), "tree", or "off", which is `max_depth=0`.
            max_depth: draft tokens along one path at most; 0: none. By default the adapter's.
            confidence: drafting stops behind a token less probable than this. By default the
                adapter's for chains and 0.4 for trees.
            draft_top_k, max_nodes, tree_widths: of trees alone; see DraftConfig.
            exit_layer: must be the adapter's; free where nothing is drafted.
            seed: of all that is drawn, in [0, 2^64): the same tokens for the same seed, whatever
                else is decoded and however it is drafted. By default from torch's own generator, so
                that `torch.manual_seed` settles it.
            draft_sampling: "coupled" (default); or "rejection", speculative sampling: it keeps a
                little more of each draft and has the same law, but the tokens for a seed change
                with every option of drafting.

        Raises:
            ValueError: an option that does not exist, has no effect or has an impossible value; no
                adapter to draft with; prompt and `max_new_tokens` exceed the target's context.
            UnsupportedError: more than one sequence, padding, beams and others.
        """
        sequences = self._start(input_ids, generation_config, options)[1]
        if len(sequences) > 1:
            raise UnsupportedError("num_return_sequences: rounds are those of one sequence")
        return sequences[0]

    def _start(
        self,
        input_ids: Tensor | Sequence[int],
        generation_config: GenerationConfig | None,
        options: dict[str, Any],
    ) -> tuple[list[int], list[Rounds], Plan]:
        """Refuse what cannot be done; nothing is computed before the first round is asked for."""
        prompt = prompt_ids(input_ids)
        mask = options.pop("attention_mask", None)
        if mask is not None and not bool(torch.as_tensor(mask).all()):
            raise UnsupportedError("attention_mask: expected ones: padding is not supported")
        seed, rule = options.pop("seed", None), options.pop("draft_sampling", None)
        draft = self.draft_config(
            **{name: options.pop(name) for name in DRAFT_OPTIONS & options.keys()}
        )
        wanted = plan(
            self.generation_config,
            generation_config,
            options,
            len(prompt),
            self.model.config.max_seq_len,
        )
        check_context(self.model.config, prompt, wanted.max_new_tokens)
        decoders = [
            self._decoder(draft, sampler)
            for sampler in samplers(wanted, len(prompt), seed, self.device, rule)
        ]
        criteria = wanted.stopping.start(lambda: self.tokenizer)
        sequences = [
            Rounds(decoder.generate(prompt, wanted.max_new_tokens, wanted.eos_ids, criteria))
            for decoder in decoders
        ]
        return prompt, sequences, wanted

    def _decoder(self, draft: DraftConfig, sampler: Sampler | None) -> Decoder:
        # Autoregressive decoding must not pay for an adapter that it does not use.
        adapter = self.adapter if draft.depth else None
        drawing = sampler if sampler is not None and sampler.do_sample else None
        if draft.draft == "tree" and drawing is not None and drawing.coupled:
            drafter: KangarooDrafter = SampledBranchingDrafter(self.model, adapter, draft, drawing)
        elif draft.draft == "tree":
            # Its tokens are chosen, not drawn: lossless by rejection too, see `sampling.accept`.
            drafter = BranchingDrafter(self.model, adapter, draft)
        elif drawing is not None:
            drafter = SampledDrafter(self.model, adapter, draft, drawing)
        else:
            drafter = chain_drafter(self.model, adapter, draft)
        return Decoder(self.model, drafter, draft, sampler)

    def draft_config(self, **options: Any) -> DraftConfig:
        """What `options`, fields of DraftConfig, ask of this target and adapter.

        Raises:
            ValueError: as :func:`kangaroo.engine.drafting.draft_config`.
        """
        deployed = None if self.adapter is None else self.adapter.config.draft()
        return draft_config(deployed, self.model.config.num_layers, options)


def prompt_ids(input_ids: Tensor | Sequence[int]) -> list[int]:
    """The one sequence in `input_ids`.

    Raises:
        ValueError: not [1, T] integers, nor a list of them.
        UnsupportedError: more than one sequence.
    """
    ids = input_ids if isinstance(input_ids, Tensor) else torch.tensor([list(input_ids)])
    if ids.numel() and (ids.is_floating_point() or ids.dtype == torch.bool):
        raise ValueError(f"input_ids: expected integers, got {ids.dtype}")
    if ids.ndim != 2:
        raise ValueError(f"input_ids: expected shape [1, T], got {list(ids.shape)}")
    if ids.shape[0] != 1:
        raise UnsupportedError(f"input_ids: expected one sequence, got a batch of {ids.shape[0]}")
    return [int(token) for token in ids[0].tolist()]


def padded(sequences: list[list[int]], pad_id: int | None) -> Tensor:
    """[N, T] int64, as long as the longest; `pad_id` may be None where all are."""
    longest = max(map(len, sequences))
    return torch.tensor([ids + [pad_id] * (longest - len(ids)) for ids in sequences])


def _generation_config(path: Path) -> GenerationConfig:
    """generation_config.json, or what config.json says where there is none."""
    name = "generation_config.json"
    if (path / name).is_file():
        return GenerationConfig.from_pretrained(path, local_files_only=True)
    return GenerationConfig.from_pretrained(
        path, config_file_name="config.json", local_files_only=True, _from_model_config=True
    )
