"""The frozen target's states are the engine's, and its greedy text is the engine's."""

import json
import shutil
from pathlib import Path

import torch

from kangaroo.config import DraftConfig
from kangaroo.draft.kangaroo import KangarooDrafter
from kangaroo.train.evaluate import greedy_prompts, top1
from kangaroo.train.target import FrozenTarget
from kangaroo.train.windows import Windows
from tests.engines import CPU, autoregressive, decoder_of, load, make_prompt

EXIT_LAYER = 3


def frozen(path: Path) -> FrozenTarget:
    return FrozenTarget.load(path, EXIT_LAYER, torch.float32, CPU)


def test_states_are_those_of_the_engine(target: Path) -> None:
    model = load(target)
    prompt = make_prompt(model, 30)
    drafter = KangarooDrafter(model, None, DraftConfig(EXIT_LAYER, max_depth=0))
    run = decoder_of(drafter).run(prompt, 1)
    states = frozen(target).states(torch.tensor([prompt]))
    engine = run.state.hidden(0, 1)
    torch.testing.assert_close(states.exit[:, -1:], engine, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(
        model.logits(states.last)[0, -1], run.logits[0], rtol=1e-4, atol=1e-3
    )
    head = model.weights.lm_head
    torch.testing.assert_close(
        states.normed @ head.T, model.logits(states.last), rtol=1e-4, atol=1e-3
    )


def test_greedy_text_ignores_what_the_checkpoint_asks_of_generation(
    target: Path, tmp_path: Path
) -> None:
    path = Path(shutil.copytree(target, tmp_path / "picky"))
    wishes = {"repetition_penalty": 9.0, "do_sample": True, "temperature": 5.0, "eos_token_id": 2}
    (path / "generation_config.json").write_text(json.dumps(wishes))
    model = load(target)
    prompt = make_prompt(model, 12)
    ids = frozen(path).continue_greedily(torch.tensor([prompt, prompt]), 10)
    tokens = autoregressive(model, prompt, 10).tokens
    assert ids[0, 12:].tolist() == tokens[: ids.shape[1] - 12]
    assert torch.equal(ids[0], ids[1])


def test_the_target_is_left_as_it_was(target: Path) -> None:
    model = frozen(target)
    before = {name: p.clone() for name, p in model.model.named_parameters()}
    states = model.states(torch.tensor([[1, 5, 9]]))
    assert not states.exit.requires_grad
    for name, p in model.model.named_parameters():
        assert not p.requires_grad
        assert torch.equal(p, before[name])
    assert not any(layer._forward_hooks for layer in model.model.model.layers)


def test_top1() -> None:
    hidden, head = torch.randn(9, 16), torch.randn(50, 16)
    token, probability = top1(hidden, head)
    expected = (hidden @ head.T).softmax(-1).max(-1)
    assert torch.equal(token, expected.indices)
    torch.testing.assert_close(probability, expected.values)


def test_prompts_end_where_an_answer_begins() -> None:
    ids = torch.arange(10, 34).view(3, 8)
    mask = torch.zeros(3, 8, dtype=torch.bool)
    mask[0, 1], mask[0, 5], mask[1, 3] = True, True, True
    alone = torch.arange(8).expand(3, 8)
    prompts = greedy_prompts(Windows(ids, mask, alone), 5, prompt_len=4, bos_id=1)
    assert prompts.tolist() == [[1, 13, 14, 15], [1, 19, 20, 21]]


def test_prompts_lie_in_one_document() -> None:
    ids, mask = torch.arange(10, 22)[None], torch.ones(1, 12, dtype=torch.bool)
    positions = torch.tensor([[0, 1, 2, 3, 0, 1, 0, 1, 2, 3, 4, 5]])
    prompts = greedy_prompts(Windows(ids, mask, positions), 5, prompt_len=4, bos_id=None)
    assert prompts.tolist() == [[10, 11, 12, 13], [16, 17, 18, 19]]
