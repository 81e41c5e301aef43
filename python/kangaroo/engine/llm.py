"""Token ids in, token ids out, with the meanings transformers gives its options."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import AutoTokenizer, GenerationConfig, PreTrainedTokenizerBase
from transformers.generation.streamers import BaseStreamer

from kangaroo.config import DraftConfig, DraftSampling
from kangaroo.draft.branching import BranchingDrafter
from kangaroo.draft.kangaroo import KangarooDrafter
from kangaroo.draft.sampled import SampledBranchingDrafter, SampledDrafter
from kangaroo.draft.whole import chain_drafter
from kangaroo.engine.batch import decode_together
from kangaroo.engine.decode import Decoder, check_context
from kangaroo.engine.drafting import DRAFT_OPTIONS, draft_config
from kangaroo.engine.generation import Plan, plan, samplers
from kangaroo.engine.inputs import InputIds, rows_of, unpadded
from kangaroo.engine.loading import load_engine
from kangaroo.engine.outputs import GenerateOutput, logprobs_of, padded, stacked_logits
from kangaroo.engine.state import Request
from kangaroo.engine.stats import Rounds
from kangaroo.models.adapter import Adapter
from kangaroo.models.llama import Llama
from kangaroo_kernels import Backend, UnsupportedError


@dataclass(frozen=True)
class Work:
    """A call of generate, nothing of it computed yet.

    Attributes:
        rows: the prompts as they were given, padding included.
        requests: of every sequence to return, those of the first prompt first.
    """

    rows: list[list[int]]
    requests: list[Request]
    decoder: Decoder
    wanted: Plan

    def decode(self, streamer: BaseStreamer | None) -> list[Rounds]:
        """Every sequence to its end."""
        if streamer is not None:
            if len(self.requests) > 1:
                raise UnsupportedError(
                    f"streamer: expected one sequence (num_return_sequences=1), "
                    f"got {len(self.requests)}"
                )
            streamer.put(torch.tensor(self.rows))
        if len(self.requests) > 1:
            return decode_together(self.decoder, self.requests, self.wanted.num_return_sequences)
        rounds = Rounds(self.decoder.generate(self.requests[0]))
        for latest in rounds:
            if streamer is not None:
                streamer.put(torch.tensor(latest.tokens))
        return [rounds]

    def output(self, sequences: list[Rounds], device: torch.device) -> Tensor | GenerateOutput:
        """What generate returns of the decoded `sequences`."""
        wanted, pad_id = self.wanted, self.wanted.pad_id or 0
        prompts = padded(self.rows, pad_id, left=True)
        new = padded([rounds.tokens for rounds in sequences], pad_id)
        ids = torch.cat([prompts.repeat_interleave(wanted.num_return_sequences, 0), new], 1)
        if not wanted.return_dict:
            return ids.to(device)
        output = GenerateOutput(sequences=ids.to(device))
        first, *others = (rounds.speculation for rounds in sequences)
        output.speculation = sum(others, start=first)
        if self.decoder.keep_logits:
            logits = stacked_logits(sequences).to(device)
            output.logits = logits.unbind(1) if wanted.output_logits else None
            if wanted.output_logprobs:
                output.logprobs = logprobs_of(logits, new.to(device))
        return output


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
        input_ids: InputIds,
        generation_config: GenerationConfig | None = None,
        *,
        streamer: BaseStreamer | None = None,
        **options: Any,
    ) -> Tensor | GenerateOutput:
        """Continue prompts, greedily or, with `do_sample=True`, by drawing.

        Several are decoded together, each as it would be alone.

        Args:
            input_ids: [B, T] int64, padded on the left; or a list of T ids; or a list of such lists
                of any lengths.
            generation_config: above the folder's, below `options`.
            streamer: of one sequence; `put` gets the prompt [1, T], then the tokens [n] of each
                round, on the CPU; `end` is called in any case, exceptions included.
            options: fields of GenerationConfig (`max_new_tokens`, `eos_token_id`, `do_sample`,
                `temperature`, `return_dict_in_generate`, `output_logits`, ...), `logits_processor`,
                `prefix_allowed_tokens_fn`, `stopping_criteria` (each is called for one sequence at
                a time, [1, T] without padding), an `attention_mask` [B, T], `output_logprobs`, and
                Kangaroo's own `draft`, `max_depth`, `confidence`, `seed`, `draft_sampling`; see
                :meth:`rounds`.

        Returns:
            [B * num_return_sequences, T + new] int64 on the device of `input_ids`, an
            end-of-sequence token included and padded behind it; with `return_dict_in_generate=True`
            a :class:`GenerateOutput`.

        Raises:
            ValueError, UnsupportedError: as :meth:`rounds`, before anything is computed.
        """
        try:
            work = self._start(input_ids, generation_config, options)
            sequences = work.decode(streamer)
        finally:
            if streamer is not None:
                streamer.end()
        device = input_ids.device if isinstance(input_ids, Tensor) else self.device
        return work.output(sequences, device)

    def rounds(
        self,
        input_ids: InputIds,
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
            UnsupportedError: more than one sequence, padding on the right, beams and others.
        """
        work = self._start(input_ids, generation_config, options)
        if len(work.requests) > 1:
            raise UnsupportedError(
                "rounds: expected one sequence (one prompt, num_return_sequences=1), "
                f"got {len(work.requests)}"
            )
        return Rounds(work.decoder.generate(work.requests[0]))

    def _start(
        self,
        input_ids: InputIds,
        generation_config: GenerationConfig | None,
        options: dict[str, Any],
    ) -> Work:
        """Refuse what cannot be done; nothing is computed before the first round is asked for."""
        rows, config = rows_of(input_ids), self.model.config
        mask, seed, rule = (
            options.pop(name, None) for name in ("attention_mask", "seed", "draft_sampling")
        )
        draft = self.draft_config(
            **{name: options.pop(name) for name in DRAFT_OPTIONS & options.keys()}
        )
        longest = max(map(len, rows))
        wanted = plan(
            self.generation_config, generation_config, options, longest, config.max_seq_len
        )
        padding = None if wanted.pad_id in wanted.eos_ids else wanted.pad_id
        prompts = unpadded(rows, mask, padding)
        criteria = wanted.stopping.start(lambda: self.tokenizer)
        made = samplers(wanted, [len(prompt) for prompt in prompts], seed, self.device, rule)
        requests = [
            Request(
                list(prompts[n // wanted.num_return_sequences]),
                wanted.max_new_tokens,
                wanted.eos_ids,
                criteria,
                sampler,
            )
            for n, sampler in enumerate(made)
        ]
        for request in requests:
            check_context(config, request)
        return Work(rows, requests, self._decoder(draft, wanted, rule), wanted)

    def _decoder(
        self, draft: DraftConfig, wanted: Plan, draft_sampling: DraftSampling | None
    ) -> Decoder:
        # Autoregressive decoding must not pay for an adapter that it does not use.
        adapter = self.adapter if draft.depth else None
        sampled = wanted.shaping.do_sample
        if draft.draft == "tree" and sampled and draft_sampling != "rejection":
            drafter: KangarooDrafter = SampledBranchingDrafter(self.model, adapter, draft)
        elif draft.draft == "tree":
            # Its tokens are chosen, not drawn: lossless by rejection too, see `sampling.accept`.
            drafter = BranchingDrafter(self.model, adapter, draft)
        elif sampled:
            drafter = SampledDrafter(self.model, adapter, draft)
        else:
            drafter = chain_drafter(self.model, adapter, draft)
        keep_logits = wanted.output_logits or wanted.output_logprobs
        return Decoder(self.model, drafter, draft, keep_logits)

    def draft_config(self, **options: Any) -> DraftConfig:
        """What `options`, fields of DraftConfig, ask of this target and adapter.

        Raises:
            ValueError: as :func:`kangaroo.engine.drafting.draft_config`.
        """
        deployed = None if self.adapter is None else self.adapter.config.draft()
        return draft_config(deployed, self.model.config.num_layers, options)


def _generation_config(path: Path) -> GenerationConfig:
    """generation_config.json, or what config.json says where there is none."""
    name = "generation_config.json"
    if (path / name).is_file():
        return GenerationConfig.from_pretrained(path, local_files_only=True)
    return GenerationConfig.from_pretrained(
        path, config_file_name="config.json", local_files_only=True, _from_model_config=True
    )
