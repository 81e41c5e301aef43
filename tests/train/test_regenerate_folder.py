"""Whose run folder it is that answers are kept in, and whether a run may go on there."""

import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from kangaroo import KangarooForCausalLM
from kangaroo.train.config import run_folder
from kangaroo.train.regenerate import RegenerateConfig, regenerate
from tests.factories import edit_json
from tests.train.tiny import write_jsonl


def quiet(_done: int, _total: int) -> None:
    pass


@pytest.fixture(scope="module")
def llm(target: Path) -> KangarooForCausalLM:
    return KangarooForCausalLM.from_pretrained(target)


@pytest.fixture
def config(tmp_path: Path) -> RegenerateConfig:
    data = write_jsonl(tmp_path / "data.jsonl", [{"text": f"{n} kangaroos"} for n in range(4)])
    return RegenerateConfig(data, tmp_path / "out", max_new_tokens=7, max_len=64, batch_size=2)


def test_other_generation_settings_are_another_run(
    llm: KangarooForCausalLM, config: RegenerateConfig, tmp_path: Path
) -> None:
    def stop(_done: int, _total: int) -> None:
        raise KeyboardInterrupt

    config = replace(config, temperature=1.0)
    with pytest.raises(KeyboardInterrupt):
        regenerate(llm, config, stop)
    for name, settings in {"top_k": {"top_k": 1}, "end": {"eos_token_id": [2, 4]}}.items():
        path = shutil.copytree(llm.path, tmp_path / name)
        edit_json(path / "generation_config.json", **settings)
        with pytest.raises(ValueError, match="generation: the run was started with"):
            regenerate(KangarooForCausalLM.from_pretrained(path), config, quiet)
    other = KangarooForCausalLM.from_pretrained(llm.path, backend="reference")
    if other.model.kernels.backends != llm.model.kernels.backends:
        with pytest.raises(ValueError, match="backends: the run was started with"):
            regenerate(other, config, quiet)
    regenerate(llm, config, quiet)


@pytest.mark.parametrize("name", ["thesis.tex", "step-00000002", "metrics.jsonl"])
def test_a_run_folder_with_something_else_is_not_touched(
    llm: KangarooForCausalLM, config: RegenerateConfig, name: str
) -> None:
    """Nor where a run seems to have been killed as it tidied up."""
    stranger = run_folder(config.out) / name
    for _ in range(2):
        stranger.parent.mkdir()
        stranger.write_text("mine")
        with pytest.raises(ValueError, match=f"out: .*{name} is no part of such a run"):
            regenerate(llm, config, quiet)
        assert stranger.read_text() == "mine"
        shutil.rmtree(stranger.parent)
        if not config.out.exists():
            regenerate(llm, config, quiet)


def test_another_s_journal_stays(llm: KangarooForCausalLM, config: RegenerateConfig) -> None:
    regenerate(llm, config, quiet)
    journal = run_folder(config.out) / "journal.jsonl"
    journal.parent.mkdir()
    journal.write_text('{"identity": {"format": "another"}}\n')
    with pytest.raises(ValueError, match="format: the run was started with 'another'"):
        regenerate(llm, config, quiet)
    assert journal.exists()


def test_what_comes_to_a_run_s_folder_stays(
    llm: KangarooForCausalLM, config: RegenerateConfig
) -> None:
    stranger = run_folder(config.out) / "thesis.tex"
    regenerate(llm, config, lambda _done, _total: stranger.touch())
    assert [path.name for path in stranger.parent.iterdir()] == ["thesis.tex"]
