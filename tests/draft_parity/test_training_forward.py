"""What training differentiates is what the engine runs, slot by slot, in a cache."""

import pytest
import torch
from torch import Tensor

from kangaroo.cache import SlotCache
from kangaroo.config import ADAPTER_KINDS, AdapterConfig, AdapterKind
from kangaroo.models.adapter import Adapter, VerifiedStates
from kangaroo.train.forward import full_sequence
from kangaroo_kernels import Backend, KernelSet, Target
from kangaroo_kernels.testing import rope_table

NUM_SLOTS, HEAD_DIM, NUM_HEADS = 80, 16, 4  # more than one KV_CHUNK of slots
KERNELS = KernelSet.resolve(Target(torch.device("cpu"), torch.float32, HEAD_DIM), Backend.REFERENCE)


def lively_adapter(kind: AdapterKind, num_kv_heads: int) -> Adapter:
    """Random in every parameter, and with an output projection that attention shows through."""
    width = NUM_HEADS * HEAD_DIM
    adapter = Adapter(
        AdapterConfig(kind, 1, width, NUM_HEADS, num_kv_heads, HEAD_DIM, rms_norm_eps=1e-5)
    ).requires_grad_(False)
    for p in adapter.parameters():
        p.normal_(0.0, p.shape[-1] ** -0.5) if p.ndim == 2 else p.normal_(1.0, 0.2)
    return adapter


def random_states(batch: int, num_slots: int) -> VerifiedStates:
    return VerifiedStates(*torch.randn(3, batch, num_slots, NUM_HEADS * HEAD_DIM))


def cached(adapter: Adapter, states: VerifiedStates, rope: Tensor, slot: int, delta: int) -> Tensor:
    """The engine's way to `slot` [B, C]: rows verified up to slot - delta, then node by node."""
    num_verified = max(slot - delta + 1, 0)
    config, h_e = adapter.config, states.exit
    kv = SlotCache((2, len(h_e), config.num_kv_heads), NUM_SLOTS, config.head_dim, h_e)
    if num_verified:
        rows = VerifiedStates(*(h[:, :num_verified].contiguous() for h in states))
        adapter.write_verified(rows, kv, kv.chain(num_verified), rope, kernels=KERNELS)
        kv.commit([num_verified] * len(h_e))
    for node in range(num_verified, slot + 1):
        h = h_e[:, node : node + 1]
        out = adapter.step(h, kv, kv.chain(1), rope, KERNELS)
    return out[:, 0]


def rounding(adapter: Adapter, states: VerifiedStates, rope: Tensor, delta: int) -> float:
    """What float32 alone may cost: the largest error of the same maths against float64."""
    low = full_sequence(adapter, states, rope, delta=delta)
    adapter.double()
    wide = VerifiedStates(*(h.double() for h in states))
    exact = full_sequence(adapter, wide, rope.double(), delta=delta)
    adapter.float()
    return (low - exact).abs().max().item()


@pytest.mark.parametrize("num_kv_heads", [NUM_HEADS, 2, 1])
@pytest.mark.parametrize("kind", ADAPTER_KINDS)
@pytest.mark.parametrize("delta", range(1, 7))
def test_equals_the_cached_path(kind: AdapterKind, delta: int, num_kv_heads: int) -> None:
    adapter, rope = lively_adapter(kind, num_kv_heads), rope_table(NUM_SLOTS, HEAD_DIM)
    states = random_states(2, NUM_SLOTS)
    full = full_sequence(adapter, states, rope, delta=delta)
    budget = 4 * rounding(adapter, states, rope, delta)
    for slot in (0, 1, delta - 1, delta, delta + 1, 40, 63, 64, NUM_SLOTS - 1):
        engine = cached(adapter, states, rope, slot, delta)
        assert (full[:, slot] - engine).abs().max() <= budget, slot


def test_delta_matters_to_deep_prefix_alone() -> None:
    """Guards the test above: a mask that is off by one is no rounding error."""
    states = random_states(1, NUM_SLOTS)
    rope = rope_table(NUM_SLOTS, HEAD_DIM)
    for kind in ADAPTER_KINDS:
        adapter = lively_adapter(kind, 2)
        one, two = (full_sequence(adapter, states, rope, delta=delta) for delta in (1, 2))
        # From the first slot on that has a verified one behind it.
        differs = (one - two)[:, 1:].abs().amax(-1) > 100 * rounding(adapter, states, rope, 1)
        assert differs.all() if kind == "deep_prefix" else not differs.any()


@pytest.mark.parametrize("kind", ADAPTER_KINDS)
def test_every_parameter_learns(kind: AdapterKind) -> None:
    adapter = lively_adapter(kind, 2).requires_grad_(True)
    states = random_states(2, 12)
    full_sequence(adapter, states, rope_table(12, HEAD_DIM), delta=3).square().sum().backward()
    for name, p in adapter.named_parameters():
        assert name == "norm" or (p.grad is not None and p.grad.abs().max() > 0), name
