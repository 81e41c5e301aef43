"""What the parts of a round cost, told before any is run: from the weights that they read."""

from __future__ import annotations

from dataclasses import dataclass, replace

from kangaroo.config import AdapterConfig, DrafterConfig, MedusaConfig, ModelConfig

# A row more in a pass, over the pass: 8 rows cost a CPU 1.05 (AMX, AVX-512 and weights from memory)
# to 1.7 of what one costs (benchmarks/verify_rows.py), and it is the dear ones that have to be
# borne; where weights come from a GPU's memory rows are free.
CPU_ROW_COST = 0.08
# What a round that drafts takes of the host besides, over a plain round of tiny-py's size (a
# millisecond) or less: the adapter's rows of verified slots are written, those that have waited and
# its own. The time does not grow with the target.
CPU_WRITE_COST, CPU_WRITE_SIZE = 0.1, 8_500_000  # parameters that a plain round reads


def layer_parameters(config: ModelConfig) -> int:
    """Of a layer; norms and biases are left out."""
    q, kv = config.num_heads * config.head_dim, config.num_kv_heads * config.head_dim
    return config.hidden_size * (2 * q + 2 * kv + 3 * config.intermediate_size)


def pass_parameters(config: ModelConfig, num_layers: int) -> int:
    """Of so many layers and the head."""
    return num_layers * layer_parameters(config) + config.vocab_size * config.hidden_size


@dataclass(frozen=True)
class Cost:
    """Parameters read by the parts of a round; batch-1 decoding is bound by them.

    Attributes:
        shallow, deep: layers [0, E) and [E, L), E = 0 where the drafter shares none; head: the
            target's. Medusa's own, of which a draft step reads one, are as large.
        adapter: per draft step; refresh: per round (rows of verified slots, `deep_prefix` and
            EAGLE).
    """

    shallow: int
    deep: int
    head: int
    adapter: int
    refresh: int

    @classmethod
    def of(cls, target: ModelConfig, drafter: DrafterConfig) -> Cost:
        """From the geometry; norms and biases are left out."""
        layer, c = layer_parameters(target), target.hidden_size
        shared, refresh = 0, 0
        if isinstance(drafter, MedusaConfig):
            step = c * c
        elif isinstance(drafter, AdapterConfig):
            own_q, own_kv = (
                n * drafter.head_dim for n in (drafter.num_heads, drafter.num_kv_heads)
            )
            step, shared = c * (2 * own_q + 2 * own_kv), drafter.exit_layer
            refresh = c * 6 * own_kv if drafter.kind == "deep_prefix" else 0
        else:
            fc, keys_and_values = 2 * c * c, 2 * c * drafter.num_kv_heads * drafter.head_dim
            step, refresh = fc + layer, fc + keys_and_values
        return cls(
            shallow=shared * layer,
            deep=(target.num_layers - shared) * layer,
            head=target.vocab_size * c,
            adapter=step,
            refresh=refresh,
        )

    def speedup(self, compression_ratio: float, drafts_per_round: float) -> float:
        """Speed over autoregressive decoding if time were parameters read.

        CR (shallow + deep + head) / ((d + 1) shallow + d (adapter + head) + deep + head + refresh),
        with d drafts per round: every draft and the root pass the shallow layers, every draft costs
        one pass of adapter and head, and verification is one pass of the rest.
        """
        verify = self.deep + self.head + self.refresh
        draft = (drafts_per_round + 1) * self.shallow
        draft += drafts_per_round * (self.adapter + self.head)
        return compression_ratio * (self.shallow + self.deep + self.head) / (draft + verify)


@dataclass(frozen=True)
class RoundCosts:
    """What drafting adds to a round, over a round of one sequence that drafts nothing.

    Attributes:
        draft: one pass of the drafter: shallow layers, adapter, head.
        row: one row more in a pass.
        write: what a round of one sequence that drafts anything writes of verified slots, and one
            that drafts nothing does not.
    """

    draft: float
    row: float
    write: float = 0.0

    @classmethod
    def of(cls, target: ModelConfig, drafter: DrafterConfig, device_type: str) -> RoundCosts:
        """By the weights that are read; rows by the kind of device, `torch.device.type`."""
        cost = Cost.of(target, drafter)
        plain, step = cost.shallow + cost.deep + cost.head, cost.shallow + cost.adapter + cost.head
        if device_type != "cpu" or not isinstance(drafter, AdapterConfig):
            return cls.of_parameters(step, plain + cost.refresh, device_type)
        # The loop leaves rows unwritten while nothing is drafted; captured rounds, batches and
        # other drafters do not.
        host = CPU_WRITE_COST * min(1.0, CPU_WRITE_SIZE / plain)
        write = host + 2 * cost.refresh / plain
        return replace(cls.of_parameters(step, plain, device_type), write=write)

    @classmethod
    def of_step(cls, target: ModelConfig, num_read: int, device_type: str) -> RoundCosts:
        """Of a drafter whose passes read `num_read` parameters, none of them for verification."""
        plain = pass_parameters(target, target.num_layers)
        return cls.of_parameters(num_read, plain, device_type)

    @classmethod
    def of_parameters(cls, draft: int, plain: int, device_type: str) -> RoundCosts:
        """By what a pass of the drafter reads and what a round that drafts nothing does."""
        return cls(draft / plain, CPU_ROW_COST if device_type == "cpu" else 0.0)

    def of_round(self, batch: int, num_passes: int, num_nodes: int) -> float:
        """A round of `batch` sequences over one of as many that drafts nothing.

        Args:
            num_passes: of the drafter.
            num_nodes: of each tree, the root included.
        """
        more_rows = batch * (num_nodes - 1)
        write = self.write if batch == 1 and num_nodes > 1 else 0.0
        rows = self.row * more_rows / (1 + self.row * (batch - 1))
        return 1 + self.draft * num_passes + rows + write
