"""Token ids in, token ids out, with the meanings transformers gives its options."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import GenerationConfig, PreTrainedTokenizerBase
from transformers.generation.streamers import BaseStreamer

from kangaroo.config import DraftConfig
from kangaroo.draft.head import drafting_head
from kangaroo.engine.batch import Batch
from kangaroo.engine.capture import captured_rounds
from kangaroo.engine.decode import Decoder, check_context
from kangaroo.engine.decoders import Decoders
from kangaroo.engine.drafting import DRAFT_OPTIONS, draft_config, plain_drafter, taken
from kangaroo.engine.generation import Plan, plan, samplers
from kangaroo.engine.inputs import InputIds, rows_of, unpadded
from kangaroo.engine.loading import generation_config, load_engine, load_head, load_tokenizer
from kangaroo.engine.options import OUTPUTS
from kangaroo.engine.outputs import GenerateOutput
from kangaroo.engine.state import PastKeyValues, Request
from kangaroo.engine.stats import Rounds
from kangaroo.engine.work import Work, past_of
from kangaroo.models.adapter_io import DraftModule
from kangaroo.models.llama import Llama
from kangaroo.models.weights import OnProgress
from kangaroo_kernels import Backend, UnsupportedError
from kangaroo_kernels.draft_head import DraftHead


class KangarooForCausalLM:
    """A target and its adapter. `max_depth=0` decodes without drafting; the tokens are the same.

    Attributes:
        path: the target's folder; its tokenizer is loaded from there when first used.
        generation_config: the defaults of :meth:`generate`, the folder's own.
        head: what drafts are taken from; None: the target's own head.
    """

    def __init__(
        self,
        model: Llama,
        adapter: DraftModule | None,
        path: Path,
        generation_config: GenerationConfig,
        head: DraftHead | None = None,
    ):
        self.model, self.adapter = model, adapter
        self.head = drafting_head(model.weights.lm_head) if head is None else head
        self.path, self.generation_config = path, generation_config
        self._decoders = Decoders(model, adapter, self.head, captured_rounds(model))

    @classmethod
    def from_pretrained(
        cls,
        target: str | Path,
        adapter: str | Path | None = None,
        *,
        dtype: torch.dtype | str | None = None,
        device: torch.device | str = "cpu",
        backend: Backend | str = "auto",
        on_progress: OnProgress | None = None,
        draft_head: str | None = None,
        draft_vocab: str | Path | Sequence[int] | None = None,
    ) -> KangarooForCausalLM:
        """Load a target and the adapter that drafts for it.

        Args:
            target: a local Hugging Face folder, or "tiny-py", the model in the package.
            adapter: its folder, or the name of one in the target's folder `adapters`. None: calls
                must say `draft="off"` or `lookup`; but "tiny-py" takes its "deep_prefix".
            dtype: a torch dtype or its name; "auto": the checkpoint's; None: float32 on the CPU,
                elsewhere "auto".
            device: where to run; the CPU unless it is said.
            backend: of the kernels: "auto", "reference", "native", "triton" or "cuda".
            draft_head: "int8" or "float8": drafts come from a copy of the head of a byte an
                element; fewer bytes and perhaps fewer accepted drafts, the same output.
            draft_vocab: tokens that may be drafted, in increasing order, or a file of
                `kangaroo draft-vocab`; likewise.
            on_progress: is called with the bytes of weights that have been read, and all there are.

        Raises:
            ValueError: a folder, file, tensor or argument is missing or wrong, or the adapter was
                made for another target.
            UnsupportedError: the family, the dtype, the device or the backend is not supported.
        """
        path, model, loaded = load_engine(target, adapter, dtype, device, backend, on_progress)
        head = load_head(path, model, loaded, draft_head, draft_vocab)
        return cls(model, loaded, path, generation_config(path), head)

    @property
    def device(self) -> torch.device:
        return self.model.weights.norm.device

    @cached_property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        """The folder's tokenizer; ValueError: there is none that transformers can read."""
        return load_tokenizer(self.path)

    def generate(
        self,
        input_ids: InputIds,
        generation_config: GenerationConfig | None = None,
        *,
        streamer: BaseStreamer | None = None,
        **options: Any,
    ) -> Tensor | GenerateOutput:
        """Continue prompts, greedily or, with `do_sample=True`, by drawing.

        Several are decoded together, each as alone but for its row's number, by which it draws.

        Args:
            input_ids: [B, T] int64, padded on the left (with no mask by `pad_token_id`); or a list
                of T ids; or a list of such lists of any lengths.
            generation_config: above the folder's, below `options`.
            streamer: of one sequence; `put` gets the prompt [1, T], then the tokens [n] of each
                round, on the CPU; `end` is called in any case, exceptions included.
            options: fields of GenerationConfig (`max_new_tokens`, `eos_token_id`, `do_sample`,
                `temperature`, `return_dict_in_generate`, `output_logits`, ...), `logits_processor`,
                `prefix_allowed_tokens_fn`, `presence_penalty` and `frequency_penalty` (OpenAI's),
                `stopping_criteria` (each is called for one sequence at a time, [1, T] without
                padding), an `attention_mask` [B, T], `past_key_values`, of :meth:`prefill` or an
                earlier call: what the prompt begins with is taken from there, and what one sequence
                comes to is left there; `output_logprobs`, and Kangaroo's own: see :meth:`rounds`.

        Returns:
            [B * num_return_sequences, T + new] int64 on the device of `input_ids`, an
            end-of-sequence token included and padded behind it; with `return_dict_in_generate=True`
            a :class:`GenerateOutput`.

        Raises:
            ValueError, UnsupportedError: as :meth:`rounds`; several sequences beside a streamer.
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
            lookup, lookup_depth: where the last `lookup` tokens (default 0: never) stand in the
                text before, what followed there is the draft, `lookup_depth` tokens (default 15) at
                most; elsewhere the adapter drafts, if there is one.
            adaptive, costs: True (default, but with `tree_widths`): draft less deep, or nothing for
                a while, where by `costs` (see DraftConfig) it does not pay; False: never.
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
        return self._start(input_ids, generation_config, options).rounds()

    @torch.inference_mode()
    def prefill(self, input_ids: InputIds) -> PastKeyValues:
        """Keys and values of one prompt, for `generate(..., past_key_values=...)`, with drafting
        where there is an adapter.

        Raises:
            ValueError, UnsupportedError: as :meth:`rounds`.
        """
        rows = rows_of(input_ids)
        if len(rows) > 1:
            raise UnsupportedError(f"prefill: expected one prompt, got {len(rows)}")
        request = Request(rows[0], 0)
        check_context(self.model.config, request)
        draft = self.draft_config(draft=None if self.adapter else "off")
        drafter = plain_drafter(self.model, self.adapter, draft)
        return PastKeyValues(Decoder(self.model, drafter, draft).prefill(request), self)

    def batch(
        self, capacity: int, max_len: int, *, keep_logits: bool = False, **draft: Any
    ) -> Batch:
        """Continuous batching: sequences of :meth:`request` join and leave between rounds.

        Args:
            capacity, max_len: sequences in a round, and tokens of each, at most.
            keep_logits: rounds carry what their tokens were chosen from.
            draft: fields of DraftConfig, as :meth:`rounds` takes them.

        Raises:
            ValueError: as :meth:`rounds`, or a capacity that cannot be.
        """
        decoder = self._decoders.of_batch(self.draft_config(**draft), keep_logits)
        return Batch(decoder, capacity, max_len)

    def request(
        self,
        input_ids: InputIds,
        generation_config: GenerationConfig | None = None,
        **options: Any,
    ) -> Request:
        """One sequence for :meth:`batch`, by options of :meth:`generate`, but for drafting and
        outputs.

        Raises:
            ValueError: as :meth:`rounds`, or an option that is the batch's or of no effect here.
            UnsupportedError: as :meth:`rounds`.
        """
        for name in sorted(options.keys() & (DRAFT_OPTIONS | OUTPUTS)):
            raise ValueError(f"{name}: has no effect on a request of a batch; leave it out")
        _, requests, _ = self._requests(input_ids, generation_config, options)
        if len(requests) > 1:
            raise UnsupportedError(f"request: expected one sequence, got {len(requests)}")
        return requests[0]

    def _start(
        self,
        input_ids: InputIds,
        generation_config: GenerationConfig | None,
        options: dict[str, Any],
    ) -> Work:
        """Refuse what cannot be done; nothing is computed before the first round is asked for."""
        past = past_of(options.pop("past_key_values", None), self)
        rule = options.get("draft_sampling")
        draft = self.draft_config(**taken(options, generation_config))
        rows, requests, wanted = self._requests(input_ids, generation_config, options)
        decoder = self._decoders.of(
            draft,
            sampled=wanted.shaping.do_sample,
            coupled=rule != "rejection",
            keep_logits=wanted.output_logits or wanted.output_logprobs,
            keep_scores=wanted.output_scores,
        )
        if past is not None:
            past.owner = self
        return Work(rows, requests, decoder, wanted, past)

    def _requests(
        self,
        input_ids: InputIds,
        generation_config: GenerationConfig | None,
        options: dict[str, Any],
    ) -> tuple[list[list[int]], list[Request], Plan]:
        """The prompts as they were given, one request for every sequence to return, and the plan
        that they follow.
        """
        rows, config = rows_of(input_ids), self.model.config
        mask, seed, rule = (
            options.pop(name, None) for name in ("attention_mask", "seed", "draft_sampling")
        )
        longest = max(map(len, rows))
        wanted = plan(
            self.generation_config, generation_config, options, longest, config.max_seq_len
        )
        padded = isinstance(input_ids, Tensor) and wanted.pad_id not in wanted.eos_ids
        prompts = unpadded(rows, mask, wanted.pad_id if padded else None)
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
        return rows, requests, wanted

    def draft_config(self, **options: Any) -> DraftConfig:
        """What `options`, fields of DraftConfig, ask of this target and adapter.

        Raises:
            ValueError: as :func:`kangaroo.engine.drafting.draft_config`.
        """
        deployed = None if self.adapter is None else self.adapter.config.draft()
        return draft_config(deployed, self.model.config.num_layers, options)
