"""draw_tokens: every implementation against plain Python and transformers' warps; its law, chains
that grow, and the bitwise laws.
"""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import (
    LogitsProcessorList,
    MinPLogitsWarper,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from kangaroo_kernels.draft_head import DraftChain
from kangaroo_kernels.draw_tokens import DrawTokens
from kangaroo_kernels.draws import RACE, Draw, Draws
from kangaroo_kernels.philox import philox
from tests.kernels import laws
from tests.sampling.test_chi_square import ALPHA, p_value

PLAIN = Draw(temperature=1.0, seed=2**63 + 9, sequence=3)
DRAWS = {
    "greedy": Draw(top_k=2, top_p=0.1, min_p=0.9),
    "plain": PLAIN,
    "hot": PLAIN._replace(temperature=3.7),
    "cold": PLAIN._replace(temperature=0.01),
    "top-k": PLAIN._replace(top_k=5),
    "one": PLAIN._replace(top_k=1),
    "more than all": PLAIN._replace(top_k=2**31 - 1),
    "top-p": PLAIN._replace(temperature=0.8, top_p=0.7),
    "nothing of top-p": PLAIN._replace(top_p=0.0),
    "min-p": PLAIN._replace(min_p=0.2),
    "all warps": PLAIN._replace(temperature=1.3, top_k=9, top_p=0.9, min_p=0.01),
}


def on_device(*draws: Draw) -> Draws:
    return Draws.of(draws, torch.get_default_device())


def inputs_of(batch: int, num_nodes: int, vocab: int, *draws: Draw) -> dict[str, Any]:
    """Rows and places at random; the draws in turns."""
    each = [draws[b % len(draws)] for b in range(batch)]
    return {
        "logits": 3 * torch.randn(batch, num_nodes, vocab),
        "draws": on_device(*each),
        "positions": torch.randint(2**20, (batch, num_nodes), dtype=torch.int32),
    }


def kept(row: list[float], draw: Draw) -> list[bool]:
    """Token by token, by the words of the contract."""
    best = max(row)
    weights = [math.exp((x - best) / draw.temperature) for x in row]
    left = [not draw.top_k or sum(y > x for y in row) < draw.top_k for x in row]
    total = sum(w for w, there in zip(weights, left, strict=True) if there)
    nucleus = []
    for x in row:
        above = sum(w for y, w in zip(row, weights, strict=True) if y > x)
        nucleus.append(x == best or above < draw.top_p * total or draw.top_p == 1)
    sure = [weight >= draw.min_p for weight in weights]
    return [all(each) for each in zip(left, nucleus, sure, strict=True)]


def scores_of(row: list[float], draw: Draw, position: int, tokens: list[int]) -> list[float]:
    """Of one row; -inf of what is not kept."""
    best = max(row)
    if draw.temperature == 0:
        return [x - best for x in row]
    key, scores = (draw.seed % 2**32, draw.seed // 2**32), []
    for x, token, there in zip(row, tokens, kept(row, draw), strict=True):
        high, low, _, _ = philox((position + 1, draw.sequence, RACE, token), key)
        u = ((high >> 5 << 26 | low >> 6) | 1) / 2**53
        scores.append((x - best) / draw.temperature - math.log(-math.log(u)))
        scores[-1] = scores[-1] if there else -math.inf
    return scores


def check(op: DrawTokens, inputs: dict[str, Any], each: list[Draw], k: int) -> None:
    """Against plain Python. A share is rounded once, from float64; twice that is allowed."""
    logits, ids = inputs["logits"], inputs.get("token_ids")
    tokens, shares = op(**inputs, k=k)
    assert tokens.shape == shares.shape == (*logits.shape[:2], k)
    assert (tokens.dtype, shares.dtype) == (torch.int64, torch.float32)
    names = list(range(logits.shape[2])) if ids is None else ids.tolist()
    for b, draw in enumerate(each):
        for n, position in enumerate(inputs["positions"][b].tolist()):
            scores = scores_of(logits[b, n].tolist(), draw, position, names)
            order = sorted(range(len(names)), key=lambda i: -scores[i])[:k]
            assert tokens[b, n].tolist() == [names[i] for i in order]
            total = math.fsum(map(math.exp, scores))
            for i, share in zip(order, shares[b, n].tolist(), strict=True):
                assert share == pytest.approx(math.exp(scores[i]) / total, rel=2**-23)


@pytest.mark.parametrize("name", DRAWS)
@pytest.mark.parametrize(("vocab", "k"), [(1, 1), (40, 1), (130, 4), (300, 16)])
def test_against_plain_python(draw_tokens: DrawTokens, name: str, vocab: int, k: int) -> None:
    check(draw_tokens, inputs_of(1, 2, vocab, DRAWS[name]), [DRAWS[name]], k)


def test_sequences_draw_each_in_its_own_way(draw_tokens: DrawTokens) -> None:
    each = list(DRAWS.values())
    check(draw_tokens, inputs_of(len(each), 2, 70, *each), each, 3)


def test_a_part_of_the_vocabulary(draw_tokens: DrawTokens) -> None:
    """A token's numbers are its own, whichever column is its logit's."""
    inputs = inputs_of(1, 2, 70, DRAWS["top-p"])
    ids = torch.randperm(100_000)[:70].sort().values.int()
    check(draw_tokens, inputs | {"token_ids": ids}, [DRAWS["top-p"]], 3)


@pytest.mark.parametrize("temperature", [0.0, 1.0])
@pytest.mark.parametrize("top_k", [0, 2])
def test_equal_logits(draw_tokens: DrawTokens, temperature: float, top_k: int) -> None:
    """They stay or go together; without numbers the lowest id is the best."""
    logits = torch.tensor([[[0.0, 2.0, 1.0, 2.0, 1.0, 2.0, -math.inf]]])
    draw = PLAIN._replace(temperature=temperature, top_k=top_k)
    places = torch.zeros(1, 1, dtype=torch.int32)
    tokens, shares = draw_tokens(logits, on_device(draw), places, 7)
    if temperature == 0:
        assert tokens[0, 0].tolist() == [1, 3, 5, 2, 4, 0, 6]
    elif top_k:
        assert sorted(tokens[0, 0, :3].tolist()) == [1, 3, 5]
        assert tokens[0, 0, 3:].tolist() == [0, 2, 4, 6]
        assert shares[0, 0, 3:].tolist() == [0, 0, 0, 0]
    assert shares.sum().item() == pytest.approx(1, rel=7 * 2**-23)
    assert shares[0, 0, -1] == 0


def test_a_hair_decides(draw_tokens: DrawTokens) -> None:
    """At temperature 0 the token is the argmax, however little is between it and the next."""
    logits = torch.full((1, 1, 5), 1.0)
    logits[0, 0, 3] = torch.nextafter(logits[0, 0, 3], torch.tensor(2.0))
    tiny = torch.tensor([[[0.0, 0.0, 0.0, 1e-44, 0.0]]])
    for row in (logits, tiny, logits * 1e38):
        inputs = {"draws": on_device(Draw()), "positions": torch.zeros(1, 1, dtype=torch.int32)}
        assert draw_tokens(row, **inputs)[0].item() == 3


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_no_finite_logits(draw_tokens: DrawTokens, bad: float, temperature: float) -> None:
    """A row without a largest logit draws nothing; its neighbour does."""
    draw = PLAIN._replace(temperature=temperature, top_k=3, top_p=0.9)
    inputs = inputs_of(1, 2, 70, draw)
    inputs["logits"][0, 0, slice(None) if bad == -math.inf else 66] = bad
    tokens, shares = draw_tokens(**inputs, k=2)
    assert tokens[0, 0].tolist() == [-1, -1]
    assert shares[0, 0].tolist() == [0, 0]
    assert (tokens[0, 1] >= 0).all()


WARPS = {
    "top-k": (PLAIN._replace(top_k=7), [TopKLogitsWarper(7)]),
    "top-p": (PLAIN._replace(top_p=0.6), [TopPLogitsWarper(0.6)]),
    "min-p": (PLAIN._replace(min_p=0.1), [MinPLogitsWarper(0.1)]),
    "all": (
        PLAIN._replace(temperature=1.5, top_k=20, top_p=0.8, min_p=0.05),
        [
            TemperatureLogitsWarper(1.5),
            TopKLogitsWarper(20),
            TopPLogitsWarper(0.8),
            MinPLogitsWarper(0.05),
        ],
    ),
}


@pytest.mark.parametrize("name", WARPS)
def test_what_transformers_keeps(draw_tokens: DrawTokens, name: str) -> None:
    """Tokens with a share are those to which transformers' own warps leave a probability."""
    draw, warps = WARPS[name]
    inputs = inputs_of(1, 12, 16, draw)
    tokens, shares = draw_tokens(**inputs, k=16)
    none: Any = torch.zeros(12, 1).long()
    warped: Any = inputs["logits"][0]
    left = LogitsProcessorList(warps)(none, warped).isfinite()
    ours = torch.zeros(12, 16).scatter(1, tokens[0], (shares[0] > 0).float())
    assert ours.bool().equal(left)


@pytest.mark.thorough
def test_the_law(draw_tokens: DrawTokens) -> None:
    """Chi-square of the best and, given it, of the second, over positions."""
    num_draws = 20_000
    row = torch.tensor([0.3, -1.0, 1.2, 0.0, 2.0, -0.5])
    law = (row.double() / 1.5).softmax(-1)
    positions = torch.arange(num_draws, dtype=torch.int32)[None]
    draws = on_device(PLAIN._replace(temperature=1.5))
    tokens, _ = draw_tokens(row.expand(1, num_draws, 6).contiguous(), draws, positions, 2)
    first, second = tokens[0].cpu().T
    pairs = law[:, None] * law / (1 - law)[:, None] * (1 - torch.eye(6))
    assert p_value(first.bincount(minlength=6), law.cpu()) > ALPHA
    assert p_value((6 * first + second).bincount(minlength=36), pairs.flatten().cpu()) > ALPHA


def test_chains_grow(draw_tokens: DrawTokens) -> None:
    """By the best token of the last node, while its share is large enough; token 0 of a row without
    logits.
    """
    inputs = inputs_of(4, 2, 40, PLAIN)
    inputs["logits"][3, 1, 2] = math.nan
    tokens, shares = draw_tokens(**inputs)
    chain = DraftChain.of_roots(4, 5, 0.0, torch.get_default_device())
    chain.num_nodes.copy_(torch.tensor([1, 4, 2, 1]))
    chain.positions[:, 0], chain.positions[1, 3], chain.positions[2, 1] = 7, 10, 8
    chain.stopped[2] = 1
    least = shares[:, 1, 0] + torch.tensor([1e-3, -1e-3, 0.0, -1.0])
    chain.threshold.copy_(least)
    again = draw_tokens(**inputs, chain=chain)
    assert again[0].equal(tokens)
    assert again[1].equal(shares)
    assert chain.num_nodes.tolist() == [2, 5, 2, 2]
    assert chain.stopped.tolist() == [1, 1, 1, 0]
    drafted = [chain.tokens[0, 1].item(), chain.tokens[1, 4].item(), chain.tokens[3, 1].item()]
    assert drafted == [tokens[0, 1, 0].item(), tokens[1, 1, 0].item(), 0]
    assert chain.tokens[2].tolist() == [0] * 5
    assert (chain.positions[0, 1], chain.positions[1, 4]) == (8, 11)


def flat(answer: tuple[Tensor, Tensor]) -> Tensor:
    """Token ids and shares as one tensor of the same information."""
    return torch.cat([part.double() for part in answer], dim=-1)


@pytest.mark.parametrize("vocab", [70, 5000])
@pytest.mark.thorough
def test_row_invariance(draw_tokens: DrawTokens, vocab: int) -> None:
    """Alone, among others, in a batch: the same token and share, bit for bit."""
    inputs = inputs_of(1, 40, vocab, DRAWS["all warps"])
    logits, positions = inputs["logits"], inputs["positions"]
    among = flat(draw_tokens(**inputs, k=3))
    for n in range(40):
        some = slice(n, n + 1)
        alone = draw_tokens(logits[:, some].clone(), inputs["draws"], positions[:, some].clone(), 3)
        assert flat(alone).equal(among[:, some])
    draws = on_device(*[DRAWS["all warps"]] * 8)
    batch = draw_tokens(logits.view(8, 5, -1), draws, positions.view(8, 5), 3)
    assert flat(batch).view(1, 40, -1).equal(among)


@pytest.mark.thorough
def test_thread_invariance(draw_tokens: DrawTokens) -> None:
    inputs = inputs_of(2, 9, 5000, DRAWS["top-p"])
    laws.check_thread_invariance(lambda: flat(draw_tokens(**inputs, k=3)))


@pytest.mark.parametrize(
    ("name", "bad"),
    [
        ("logits", torch.zeros(2, 40)),
        ("logits", torch.zeros(2, 3, 40, dtype=torch.bfloat16)),
        ("positions", torch.zeros(2, 3, dtype=torch.int64)),
        ("positions", torch.zeros(2, 2, dtype=torch.int32)),
        ("token_ids", torch.arange(39, dtype=torch.int32)),
        ("k", 0),
        ("k", 17),
    ],
)
def test_bad_inputs(fast_draw_tokens: DrawTokens, name: str, bad: object) -> None:
    laws.check_refusal(fast_draw_tokens, {**inputs_of(2, 3, 40, PLAIN), "k": 2}, name, bad)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("temperature", -0.5),
        ("temperature", math.nan),
        ("top_k", -1),
        ("top_p", 1.5),
        ("top_p", math.nan),
        ("min_p", -0.1),
        ("sequence", 2**32),
    ],
)
def test_impossible_draws(fast_draw_tokens: DrawTokens, name: str, value: float) -> None:
    laws.needs_values_on_the_host()
    inputs = inputs_of(2, 3, 40, PLAIN)
    column = getattr(inputs["draws"], name).clone()
    column[1] = value
    bad = inputs["draws"]._replace(**{name: column})
    laws.check_refusal(fast_draw_tokens, inputs, "draws", bad, says=name)


def test_seeds_are_64_bits() -> None:
    seeds = [0, 1, 2**32, 2**63 - 1, 2**63, 2**64 - 1]
    column = on_device(*(Draw(seed=seed) for seed in seeds)).seed
    assert [number % 2**64 for number in column.tolist()] == seeds
