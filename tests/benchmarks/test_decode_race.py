"""`benchmarks/decode_race.py`: what a speed-up is held to, and contestants that are not our own."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from benchmarks import decode_race, serving_peers
from benchmarks.racing import Terms
from kangaroo.engine.stats import Speculation, StageSeconds
from kangaroo.models.families import model_config
from kangaroo.models.weights import load_target
from tests.benchmarks.tiny import CPU, made


def test_the_speedup_that_bytes_allow() -> None:
    """Nothing drafted: none. Every draft right: as many tokens as a round has nodes, and less."""
    ours, seconds = made(), StageSeconds()
    idle = Speculation(5, 5, (5,), (5,), seconds)
    assert decode_race.allowed(ours, 100, idle) == pytest.approx(1.0)
    perfect = Speculation(20, 5, (0, 0, 0, 5), (0, 0, 0, 5), seconds)
    assert 1.0 < decode_race.allowed(ours, 100, perfect) < 4.0


def test_the_library_backend() -> None:
    terms = Terms(1, 4, 1, {"0": [1, 2, 3]}, {})
    run = decode_race.library(made(backend="native"), terms)([1, 2, 3])
    assert len(run.token_ids) == 4


class FakeServer:
    """Both servers' interfaces, on our own loop."""

    def __init__(self, **options: Any):
        self.options = options

    def generate(self, prompts: Any = None, rule: Any = None, **options: Any) -> Any:
        """vLLM's and SGLang's."""
        if prompts is None:
            return {
                "output_ids": options["input_ids"][: options["sampling_params"]["max_new_tokens"]]
            }
        ids = prompts[0]["prompt_token_ids"][: rule.max_tokens]
        return [SimpleNamespace(outputs=[SimpleNamespace(token_ids=ids)])]


@pytest.mark.parametrize("name", serving_peers.SERVERS)
def test_servers_are_asked_for_ids(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    package = SimpleNamespace(LLM=FakeServer, Engine=FakeServer, SamplingParams=SimpleNamespace)
    monkeypatch.setattr(serving_peers, "import_module", lambda module: package)
    monkeypatch.setattr(serving_peers, "find_spec", lambda module: object())
    ours, terms = made(), Terms(1, 3, 1, {"0": [1, 2, 3]}, {})
    with pytest.raises(serving_peers.UnsupportedError, match="serves on a GPU alone"):
        serving_peers.served(name, ours, terms)
    make = {"vLLM": serving_peers.vllm, "SGLang": serving_peers.sglang}[name]
    generate = make(Path("folder"), ours, 0.5)
    assert (generate([5, 6, 7, 8], 1), generate([5, 6, 7, 8], 3)) == ([5], [5, 6, 7])


def test_a_server_gets_the_weights_as_a_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(serving_peers, "mkdtemp", lambda prefix: str(tmp_path))
    ours = made()
    config = model_config(serving_peers.folder_of(ours))
    assert config.rope_inv_freq == ours.model.config.rope_inv_freq
    weights = load_target(tmp_path, config, torch.float32, CPU)
    assert torch.equal(weights.layers[3].qkv, ours.model.weights.layers[3].qkv)
    assert torch.equal(weights.embed, ours.model.weights.embed)
