"""Every knob, once. Frozen, validated where it is built, passed whole."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import accumulate
from operator import mul
from typing import ClassVar, Literal

AdapterKind = Literal["paper", "deep_prefix"]
ADAPTER_KINDS: tuple[AdapterKind, ...] = ("paper", "deep_prefix")
HeadKind = Literal["medusa", "eagle"]
DrafterKind = Literal[AdapterKind, HeadKind]
HEAD_KINDS: tuple[HeadKind, ...] = ("medusa", "eagle")
DraftKind = Literal["off", "chain", "tree"]
DRAFT_KINDS: tuple[DraftKind, ...] = ("off", "chain", "tree")
DraftSampling = Literal["coupled", "rejection"]
DRAFT_SAMPLINGS: tuple[DraftSampling, ...] = ("coupled", "rejection")
MAX_TREE_NODES, MAX_TOP_K = 64, 16  # what the kernels take; this file imports none of them
TREE_CONFIDENCE = 0.4  # the paper's for trees: they hedge, so they may be bolder than a chain


@dataclass(frozen=True)
class ModelConfig:
    """Geometry of a target, whatever its family calls the fields.

    Attributes:
        family: the checkpoint's `model_type`.
        head_dim: width of a head, D; apart from hidden_size / num_heads in some families.
        max_seq_len: tokens of context the target was made for.
        rope_inv_freq: [D / 2] angular frequencies, scaling of the family applied.
        rope_scale: factor on cosines and sines (1 but for some long-context scalings).
        qkv_bias: biases on query, key and value projections; o_bias likewise.
        qk_norm: RMSNorm of every query and key head before RoPE.
        tie_embeddings: the head is the embedding matrix.
        sliding_window: tokens a query may look back in some layer; None: all.
    """

    family: str
    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_layers: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    max_seq_len: int
    rms_norm_eps: float
    rope_inv_freq: tuple[float, ...]
    rope_scale: float = 1.0
    qkv_bias: bool = False
    o_bias: bool = False
    qk_norm: bool = False
    tie_embeddings: bool = False
    sliding_window: int | None = None

    @property
    def context_len(self) -> int:
        """Tokens that every layer sees all of."""
        return min(self.max_seq_len, self.sliding_window or self.max_seq_len)


@dataclass(frozen=True)
class DraftConfig:
    """What to draft, how far and how boldly (paper, section 4: depth 6 and confidence 0.6 for
    chains, top-k 10 and confidence 0.4 for trees).

    Attributes:
        exit_layer: E; layers [0, E) are shared by drafter and target.
        max_depth: draft tokens along one path; 0 is autoregressive decoding.
        confidence: nothing is drafted behind a token whose top-1 probability is below this.
        draft: "chain", "tree", or "off", which is max_depth 0.
        draft_top_k: tree: how many tokens may follow a node; the most probable.
        max_nodes: tree: nodes at most, the root included; 16 rows cost one tile of the kernels.
        tree_widths: tree: where given, its shape is always the same: on level n every node has
            `tree_widths[n]` children, whatever their probability. None of the other limits counts
            then.
        adaptive: draft less deep, or nothing for a while, where drafts do not pay (draft/pace.py).
        lookup: so many tokens that stood in the text before are continued as they were then, a
            chain, and nobody else drafts (draft/copying.py); 0: never.
        lookup_depth: tokens of such a draft at most.
        costs: of adaptive drafting: what one pass of the drafter and one row more in verification
            cost, over a round that drafts nothing, as `kangaroo tune` measures it; (): by weights.
    """

    exit_layer: int
    max_depth: int = 6
    confidence: float = 0.6
    draft: DraftKind = "chain"
    draft_top_k: int = 10
    max_nodes: int = 16
    tree_widths: tuple[int, ...] = ()
    adaptive: bool = False
    costs: tuple[float, ...] = ()
    lookup: int = 0
    lookup_depth: int = 15

    def __post_init__(self) -> None:
        if self.exit_layer < 1:
            raise ValueError(f"exit_layer: expected at least 1, got {self.exit_layer}")
        if not 0 <= self.max_depth < MAX_TREE_NODES:
            raise ValueError(f"max_depth: expected 0 to {MAX_TREE_NODES - 1}, got {self.max_depth}")
        if not 0.0 <= self.confidence <= 1.0:
            raise ValueError(f"confidence: expected 0 to 1, got {self.confidence}")
        if self.draft not in DRAFT_KINDS:
            raise ValueError(f"draft: expected one of {DRAFT_KINDS}, got {self.draft!r}")
        if not 1 <= self.draft_top_k <= MAX_TOP_K:
            raise ValueError(f"draft_top_k: expected 1 to {MAX_TOP_K}, got {self.draft_top_k}")
        if not 1 <= self.max_nodes <= MAX_TREE_NODES:
            raise ValueError(f"max_nodes: expected 1 to {MAX_TREE_NODES}, got {self.max_nodes}")
        if not 0 <= self.lookup <= MAX_TREE_NODES:
            raise ValueError(f"lookup: expected 0 to {MAX_TREE_NODES}, got {self.lookup}")
        if not 1 <= self.lookup_depth < MAX_TREE_NODES:
            raise ValueError(
                f"lookup_depth: expected 1 to {MAX_TREE_NODES - 1}, got {self.lookup_depth}"
            )
        if self.costs and (len(self.costs) != 2 or min(self.costs) < 0):
            raise ValueError(f"costs: expected none or two of at least 0, got {self.costs}")
        if not all(1 <= width <= MAX_TOP_K for width in self.tree_widths):
            raise ValueError(f"tree_widths: expected each 1 to {MAX_TOP_K}, got {self.tree_widths}")
        if (num_nodes := sum(accumulate(self.tree_widths, mul, initial=1))) > MAX_TREE_NODES:
            raise ValueError(
                f"tree_widths: expected at most {MAX_TREE_NODES} nodes, got {num_nodes}"
            )

    @property
    def depth(self) -> int:
        """Draft tokens along one path at most, whatever limits them."""
        if self.draft == "off":
            return 0
        return len(self.tree_widths) or self.max_depth

    def most_nodes(self, depth: int) -> int:
        """Nodes at most, the root included, where drafts are `depth` deep, 1 to `self.depth`."""
        if self.draft != "tree":
            return depth + 1
        widths = self.tree_widths[:depth] or (self.draft_top_k,) * depth
        grown = sum(accumulate(widths, mul, initial=1))
        return grown if self.tree_widths else min(grown, self.max_nodes)


@dataclass(frozen=True)
class AdapterConfig:
    """An adapter: its kind, its geometry, where it leaves the target, and its deployed stopping
    rule.

    Attributes:
        kind: "paper": keys and values from the exit state; "deep_prefix": those of verified slots
            from exit state, last state and the embedding of the token behind.
        exit_layer: E of the target it was trained for.
        max_depth, confidence: the stopping rule it was tuned for (see DraftConfig).
    """

    kind: AdapterKind
    exit_layer: int
    hidden_size: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    rms_norm_eps: float
    max_depth: int = 6
    confidence: float = 0.6

    def __post_init__(self) -> None:
        if self.kind not in ADAPTER_KINDS:
            raise ValueError(f"kind: expected one of {ADAPTER_KINDS}, got {self.kind!r}")
        self.draft()

    @classmethod
    def for_target(cls, target: ModelConfig, kind: AdapterKind, exit_layer: int) -> AdapterConfig:
        """An adapter with the attention geometry of the target's own layers.

        Raises:
            ValueError: the exit layer is not inside the target.
        """
        if not 1 <= exit_layer < target.num_layers:
            raise ValueError(f"exit_layer: expected 1 to {target.num_layers - 1}, got {exit_layer}")
        return cls(
            kind=kind,
            exit_layer=exit_layer,
            hidden_size=target.hidden_size,
            num_heads=target.num_heads,
            num_kv_heads=target.num_kv_heads,
            head_dim=target.head_dim,
            rms_norm_eps=target.rms_norm_eps,
        )

    def draft(self) -> DraftConfig:
        """The deployed stopping rule."""
        return _deployed(self)


@dataclass(frozen=True)
class MedusaConfig:
    """Medusa-1 heads (arXiv 2401.10774), and their deployed stopping rule.

    Attributes:
        hidden_size, vocab_size: the target's.
        num_draft_heads: tokens that one state can draft.
        exit_layer: where verification starts; nothing is shared with the target's layers.
        max_depth, confidence: as of `AdapterConfig`.
    """

    kind: Literal["medusa"]
    hidden_size: int
    vocab_size: int
    num_draft_heads: int
    max_depth: int = 6
    confidence: float = 0.6
    exit_layer: ClassVar[int] = 1

    def __post_init__(self) -> None:
        if self.num_draft_heads < 1:
            raise ValueError(f"num_draft_heads: expected at least 1, got {self.num_draft_heads}")
        if self.max_depth > self.num_draft_heads:
            raise ValueError(
                f"max_depth: expected at most {self.num_draft_heads}, the number of draft heads, "
                f"got {self.max_depth}"
            )
        self.draft()

    @classmethod
    def for_target(cls, target: ModelConfig, num_draft_heads: int) -> MedusaConfig:
        """Heads of the target's width and vocabulary."""
        sizes = target.hidden_size, target.vocab_size, num_draft_heads
        return cls("medusa", *sizes, max_depth=num_draft_heads)

    def draft(self) -> DraftConfig:
        """The deployed stopping rule."""
        return _deployed(self)


@dataclass(frozen=True)
class EagleConfig:
    """An EAGLE-style head (arXiv 2401.15077), and its deployed stopping rule.

    Attributes:
        hidden_size to qk_norm: its layer's, which are those of a layer of the target.
        exit_layer: where verification starts; nothing is shared with the target's layers.
        max_depth, confidence: as of `AdapterConfig`.
    """

    kind: Literal["eagle"]
    hidden_size: int
    intermediate_size: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    qkv_bias: bool
    o_bias: bool
    qk_norm: bool
    max_depth: int = 6
    confidence: float = 0.6
    exit_layer: ClassVar[int] = 1

    def __post_init__(self) -> None:
        if self.intermediate_size < 1:
            got = self.intermediate_size
            raise ValueError(f"intermediate_size: expected at least 1, got {got}")
        self.draft()

    @classmethod
    def for_target(cls, target: ModelConfig) -> EagleConfig:
        """A head whose layer is one of the target's family."""
        return cls(
            kind="eagle",
            hidden_size=target.hidden_size,
            intermediate_size=target.intermediate_size,
            num_heads=target.num_heads,
            num_kv_heads=target.num_kv_heads,
            head_dim=target.head_dim,
            qkv_bias=target.qkv_bias,
            o_bias=target.o_bias,
            qk_norm=target.qk_norm,
        )

    def draft(self) -> DraftConfig:
        """The deployed stopping rule."""
        return _deployed(self)


HeadConfig = MedusaConfig | EagleConfig
DrafterConfig = AdapterConfig | HeadConfig  # of all that is trained


def _deployed(drafter: DrafterConfig) -> DraftConfig:
    return DraftConfig(
        exit_layer=drafter.exit_layer,
        max_depth=drafter.max_depth,
        confidence=drafter.confidence,
        adaptive=True,
    )
