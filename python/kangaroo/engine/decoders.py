"""Which decoder serves a call; the one that has captured rounds last serves again."""

from __future__ import annotations

from collections.abc import Callable

from kangaroo.config import DraftConfig
from kangaroo.draft.device_trees import grows_on_the_device
from kangaroo.engine.decode import Decoder
from kangaroo.engine.device_round import Pieces, Runtime
from kangaroo.engine.drafting import drafter_of, kangaroo_drafter
from kangaroo.engine.graphs import GraphDecoder
from kangaroo.models.adapter import Adapter
from kangaroo.models.adapter_io import DraftModule, kangaroos
from kangaroo.models.llama import Llama
from kangaroo_kernels.draft_head import DraftHead


class Decoders:
    """Decoders of a target and its adapter.

    Args:
        head: what drafts are taken from.
        runtime: runs rounds of Kangaroo's without the host; None: the host runs all.
    """

    def __init__(
        self,
        model: Llama,
        adapter: DraftModule | None,
        head: DraftHead,
        runtime: Callable[[Pieces], Runtime] | None = None,
    ):
        self.model, self.adapter, self.head = model, adapter, head
        self.runtime = runtime if adapter is None or isinstance(adapter, Adapter) else None
        # The last, of calls that keep nothing, and of calls that do.
        self._graphs: dict[bool, GraphDecoder] = {}

    def of(
        self,
        draft: DraftConfig,
        *,
        sampled: bool,
        coupled: bool = True,
        keep_logits: bool = False,
        keep_scores: bool = False,
    ) -> Decoder:
        """One for a call of generate.

        Args:
            sampled, coupled: as in :func:`kangaroo.engine.drafting.drafter_of`.
            keep_logits, keep_scores: see Decoder.
        """
        kept = {"keep_logits": keep_logits, "keep_scores": keep_scores}
        launched = (coupled or not sampled) and grows_on_the_device(draft)
        if self.runtime is not None and launched and not (sampled and keep_scores):
            return self._graphs_for(draft, self.runtime, kept)
        parts = self.model, self.adapter, draft, self.head
        drafter = drafter_of(*parts, sampled=sampled, coupled=coupled)
        return Decoder(self.model, drafter, draft, **kept)

    def of_batch(self, draft: DraftConfig, keep_logits: bool) -> Decoder:
        """One for requests of any kind."""
        if self.runtime is not None and grows_on_the_device(draft):
            return self._new_graphs(draft, self.runtime, {"keep_logits": keep_logits})
        return self.of(draft, sampled=True, keep_logits=keep_logits)

    def _graphs_for(
        self, draft: DraftConfig, runtime: Callable[[Pieces], Runtime], kept: dict[str, bool]
    ) -> GraphDecoder:
        looks = any(kept.values())
        found = self._graphs.get(looks)
        if found is None or (found.config, found.kept) != (draft, kept):
            self._graphs.pop(looks, None)  # its memory goes before another's is asked for
            found = self._graphs[looks] = self._new_graphs(draft, runtime, kept)
        return found

    def _new_graphs(
        self, draft: DraftConfig, runtime: Callable[[Pieces], Runtime], kept: dict[str, bool]
    ) -> GraphDecoder:
        adapter = None if self.adapter is None else kangaroos(self.adapter)
        parts = self.model, adapter, draft, self.head
        drafter = kangaroo_drafter(*parts, sampled=True, coupled=True)
        return GraphDecoder(drafter, runtime, **kept)
