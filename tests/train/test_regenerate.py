"""The target's answers: the engine's own, whatever batch they fell in, and whoever was killed."""

import json
import multiprocessing
import os
import signal
import sys
from dataclasses import replace
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

from kangaroo import KangarooForCausalLM
from kangaroo.train.checkpoint import run_folder
from kangaroo.train.documents import DataError, read_documents
from kangaroo.train.prepare import REJECTS
from kangaroo.train.regenerate import ANSWERS, RegenerateConfig, regenerate
from tests.train.tiny import CHAT_TEMPLATE, make_target, make_tokenizer, write_jsonl


def quiet(_done: int, _total: int) -> None:
    pass


def turns(*contents: str) -> dict[str, Any]:
    roles = ("user", "assistant") * len(contents)
    pairs = zip(roles, contents, strict=False)
    return {"messages": [{"role": role, "content": content} for role, content in pairs]}


LINES: list[Any] = [
    turns("hop?", "yes", "why?", "no"),
    {"text": "one kangaroo, two kangaroos, three"},
    "{",
    turns("sleep?", "x", "really?"),
    {"input_ids": [1, 9], "loss_mask": [0, 1]},
    turns("he" * 300, "x"),
    turns("y", "z"),
    turns("a", "b", "he" * 300, "c", "d", "e"),
    {"text": "y"},
]


@pytest.fixture(scope="module")
def llm(tmp_path_factory: pytest.TempPathFactory) -> KangarooForCausalLM:
    """A target with a chat template, and no adapter."""
    path = make_target(tmp_path_factory.mktemp("chat"))
    make_tokenizer(CHAT_TEMPLATE).save_pretrained(path)
    return KangarooForCausalLM.from_pretrained(path)


@pytest.fixture
def config(tmp_path: Path) -> RegenerateConfig:
    data = write_jsonl(tmp_path / "data.jsonl", LINES)
    return RegenerateConfig(
        data, tmp_path / "out", max_new_tokens=7, max_len=200, prompt_len=8, batch_size=3
    )


def contents(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in folder.iterdir()}


def answers(folder: Path) -> list[dict[str, list[int]]]:
    return [json.loads(line) for line in (folder / ANSWERS).read_text().splitlines()]


def tokens_of(llm: KangarooForCausalLM, prompt: str) -> list[int]:
    ids: list[int] = llm.tokenizer(prompt, add_special_tokens=False)["input_ids"]
    return ids


def alone(llm: KangarooForCausalLM, prompt: str | list[int]) -> list[int]:
    """A prompt and what the target makes of it, by itself."""
    ids = tokens_of(llm, prompt) if isinstance(prompt, str) else prompt
    generated = llm.generate(ids, max_new_tokens=7, draft="off")
    return generated[0].tolist()


def test_every_turn_is_the_engine_s_answer_behind_new_answers(
    llm: KangarooForCausalLM, config: RegenerateConfig
) -> None:
    manifest = regenerate(llm, config, quiet)
    rows, tokenizer = answers(config.out), llm.tokenizer
    asked = "<s><turn>user\nhop?<end>\n<turn>assistant\n"
    first = alone(llm, asked)
    said = tokenizer.decode(first[len(tokens_of(llm, asked)) :], skip_special_tokens=True)
    assert rows[0]["input_ids"] == first
    again = asked + said + "<end>\n<turn>user\nwhy?<end>\n<turn>assistant\n"
    (row,) = [row for row in rows[:2] if row["input_ids"] == alone(llm, again)]
    assert sum(row["loss_mask"]) in (7, 14)  # behind the first answer, or a row of its own
    text = [row for row in rows if row["loss_mask"][:8] == [0] * 8 and len(row["loss_mask"]) == 15]
    prompt = tokenizer("one kangaroo, two kangaroos, three")["input_ids"][:8]
    assert alone(llm, prompt) in [row["input_ids"] for row in text]
    assert manifest["files"][ANSWERS]["num_documents"] == len(rows)
    assert len(read_documents(config.out / ANSWERS, tokenizer)) == len(rows)


def test_what_cannot_be_answered_is_told_and_what_was_is_kept(
    llm: KangarooForCausalLM, config: RegenerateConfig
) -> None:
    manifest = regenerate(llm, config, quiet)
    rejects = [json.loads(line) for line in (config.out / REJECTS).read_text().splitlines()]
    found = {reject["line"]: reject["reason"] for reject in rejects}
    assert set(found) == {3, 5, 6, 8}
    assert manifest["num_rejected"] == 4
    for line, reason in {
        3: "expected JSON",
        5: "input_ids: expected text or messages",
        6: "turn 1: expected a prompt of less than max_len = 200 tokens, got 3",
        8: "turn 2: expected a prompt of less than max_len = 200 tokens, got",
    }.items():
        assert reason in found[line]
    assert {reject["file"] for reject in rejects} == {str(config.data)}


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_batches_do_not_show(
    llm: KangarooForCausalLM, config: RegenerateConfig, temperature: float
) -> None:
    config = replace(config, temperature=temperature)
    regenerate(llm, config, quiet)
    expected = contents(config.out)
    for batch_size in (1, 9):
        other = replace(config, out=config.out.with_name(f"b{batch_size}"), batch_size=batch_size)
        regenerate(llm, other, quiet)
        assert contents(other.out) == expected
    reseeded = replace(config, out=config.out.with_name("seed"), seed=1)
    regenerate(llm, reseeded, quiet)
    assert (answers(reseeded.out) == answers(config.out)) == (temperature == 0)


def killed_at(llm: KangarooForCausalLM, config: RegenerateConfig, event: int | None) -> int:
    """Regenerate in a process of its own that is killed at its `event`-th step, in Python's sense,
    in the code that answers and keeps; returns the steps of a run that was not.
    """
    names = ("regenerate.py", "journal.py", "staging.py", "answering.py")
    context = multiprocessing.get_context("fork")
    counted = context.Value("q", 0)

    def count(frame: FrameType, _what: str, _argument: Any) -> None:
        if frame.f_code.co_filename.endswith(names):
            counted.value += 1
            if counted.value == event:
                os.kill(os.getpid(), signal.SIGKILL)

    def work() -> None:
        sys.setprofile(count)
        regenerate(llm, config, quiet)
        sys.setprofile(None)
        os._exit(0)

    process = context.Process(target=work)
    process.start()
    process.join()
    assert process.exitcode == (0 if event is None else -signal.SIGKILL)
    return counted.value


def check_kills(llm: KangarooForCausalLM, config: RegenerateConfig, fractions: list[float]) -> None:
    whole = replace(config, out=config.out.with_name("whole"))
    num_events = killed_at(llm, whole, None)
    for number, fraction in enumerate(fractions):
        run = replace(config, out=config.out.with_name(f"killed-{number}"))
        killed_at(llm, run, max(1, round(fraction * num_events)))
        if run_folder(run.out).exists() or not run.out.exists():
            regenerate(llm, run, quiet)
        assert contents(run.out) == contents(whole.out), fraction
        assert not run_folder(run.out).exists()


def test_killed_and_started_again(llm: KangarooForCausalLM, config: RegenerateConfig) -> None:
    check_kills(llm, replace(config, temperature=1.0), [0.5, 0.99])


@pytest.mark.fuzz
def test_killed_anywhere(llm: KangarooForCausalLM, config: RegenerateConfig) -> None:
    check_kills(llm, config, [n / 40 for n in range(40)] + [0.999])


def test_a_line_cut_short_is_done_again_and_the_others_are_not(
    llm: KangarooForCausalLM, config: RegenerateConfig
) -> None:
    whole = replace(config, out=config.out.with_name("whole"))
    regenerate(llm, whole, quiet)

    def stop(done: int, _total: int) -> None:
        if done >= 6:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        regenerate(llm, config, stop)
    assert not config.out.exists()
    journal = run_folder(config.out) / "journal.jsonl"
    lines = journal.read_bytes().splitlines(keepends=True)
    journal.write_bytes(b"".join(lines)[:-5])
    seen: list[int] = []
    regenerate(llm, config, lambda done, _total: seen.append(done))
    assert seen[0] >= len(lines) - 2
    assert contents(config.out) == contents(whole.out)


def test_a_run_killed_as_it_tidied_up_is_complete(
    llm: KangarooForCausalLM, config: RegenerateConfig
) -> None:
    manifest = regenerate(llm, config, quiet)
    before = contents(config.out)
    run_folder(config.out).mkdir()
    with pytest.raises(ValueError, match="out: .* exists"):
        regenerate(llm, replace(config, seed=1), quiet)
    assert regenerate(llm, config, quiet) == manifest
    assert contents(config.out) == before
    assert not run_folder(config.out).exists()


def test_a_full_disk_loses_no_answer(
    llm: KangarooForCausalLM, config: RegenerateConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_file: Path) -> None:
        raise OSError("disk full")

    with monkeypatch.context() as patch:
        patch.setattr("kangaroo.train.staging.flush", fail)
        with pytest.raises(OSError, match="disk full"):
            regenerate(llm, config, quiet)
    assert not config.out.exists()
    seen: list[int] = []
    regenerate(llm, config, lambda done, _total: seen.append(done))
    assert seen == []
    assert (config.out / ANSWERS).exists()
    left = {file.name for file in config.out.parent.iterdir()}
    assert left == {"data.jsonl", "out"}


def test_another_run_s_results_are_refused(
    llm: KangarooForCausalLM, config: RegenerateConfig
) -> None:
    def stop(_done: int, _total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        regenerate(llm, config, stop)
    with pytest.raises(ValueError, match="options: the run was started with"):
        regenerate(llm, replace(config, max_new_tokens=8), quiet)
    write_jsonl(config.data, LINES[:2])
    with pytest.raises(ValueError, match="data_sha256: the run was started with"):
        regenerate(llm, config, quiet)


def test_what_is_refused(llm: KangarooForCausalLM, config: RegenerateConfig) -> None:
    with pytest.raises(ValueError, match="max_len: expected at most 256, the target's, got 257"):
        regenerate(llm, replace(config, max_len=257), quiet)
    with pytest.raises(ValueError, match="batch_size: expected at least 1"):
        replace(config, batch_size=0)
    useless = replace(config, data=write_jsonl(config.data.with_name("u.jsonl"), ["{"]))
    with pytest.raises(DataError, match="expected a line to answer, got none; line 1: expected"):
        regenerate(llm, useless, quiet)
    assert not run_folder(config.out).exists()
    config.out.mkdir()
    with pytest.raises(ValueError, match="out: .* exists"):
        regenerate(llm, config, quiet)
