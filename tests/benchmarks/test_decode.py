"""`benchmarks/decode.py` from end to end at a tiny shape, and what it does where it cannot."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks import decode, decode_case, decode_race
from benchmarks.decode_bars import race_bar, step_bars
from benchmarks.decode_case import WARM_UP, Case, refusal
from benchmarks.decode_steps import Rig, breakdown
from benchmarks.launches import Launches, counted
from benchmarks.models import TINY_PY
from benchmarks.subjects import Source, subject
from kangaroo.config import ADAPTER_KINDS, AdapterKind
from kangaroo.evals.paired import run_once
from kangaroo_kernels.kernel_set import IMPLS
from kangaroo_kernels.testing import Heads
from tests.benchmarks.tiny import CPU, SHAPE, made

STEPS = ("AR step", "draft step", "draft", "verify", "verify 16", "accept", "round")
ALONE = (*STEPS, "streamed round")  # of a batch of one


def report(path: Path, tests: Iterable[str]) -> Path:
    """A report in which these tests have passed."""
    cases = "".join(f'<testcase classname="{t}" name="test_[reference-native-]"/>' for t in tests)
    path.write_text(f"<testsuites><testsuite>{cases}</testsuite></testsuites>")
    return path


@pytest.fixture
def gate(tmp_path: Path) -> Path:
    names = [f"tests.kernels.test_{op}" for op in IMPLS]
    return report(tmp_path / "gate.xml", [*names, "tests.lossless.test_bits"])


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("benchmarks.decode.SHAPES", {"tiny": SHAPE})
    monkeypatch.setattr("benchmarks.harness.CPU_ROTATION_BYTES", 1 << 16)


def run(gate: Path, out: Path, *arguments: str) -> tuple[int, list[dict[str, Any]]]:
    given = ["--shape", "tiny", "--device", "cpu", "--backend", "reference", "--threads", "1"]
    given += ["--repeats", "2", "--prompts", "1", "--prompt-len", "9", "--new-tokens", "6"]
    code = decode.main([*given, "--gate", str(gate), "--out", str(out), *arguments])
    return code, [json.loads(line) for line in out.read_text().splitlines()]


def test_steps_of_every_context_and_batch(
    gate: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    small = ["--only", "steps", "--context", "20", "70", "--batch", "1", "2", "--depth", "2"]
    code, lines = run(gate, tmp_path / "decode.jsonl", *small)
    assert code == 0
    assert lines.pop()["bars"] == []
    found = [(line["context"], line["batch"], line["step"]) for line in lines]
    steps = {1: ALONE, 2: STEPS}
    assert found == [(c, b, step) for c in (20, 70) for b in (1, 2) for step in steps[b]]
    shared = {"commit", "device", "torch", "dtype", "shape", "weights", "backends", "adapter"}
    figures = {"p20_us", "p50_us", "p80_us", "num_bytes", "gb_per_s", "percent_of_copy", "gate"}
    assert all(line.keys() >= shared | figures for line in lines)
    for line in (line for line in lines if line["step"] == "round"):
        parts = line["breakdown_us"]
        assert list(parts) == ["draft", "verify", "accept", "host"]
        assert sum(parts.values()) == pytest.approx(line["p50_us"], abs=1e-2)  # rounded to 1e-3 us
        assert line["peak_bytes"] > 0
        assert line["tokens_per_round"] >= line["batch"]
    assert capsys.readouterr().out.count("peak memory") == 4


def test_the_race_names_who_is_absent(
    gate: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    peers = ["--peers", "library", "transformers", "transformers assisted", "vLLM", "SGLang"]
    code, lines = run(gate, tmp_path / "decode.jsonl", "--only", "race", "--kind", "paper", *peers)
    assert code == 0
    ours = ["autoregressive", "chain", "tree", "lookup, chain", "lookup, tree"]
    ours += ["sampled", "sampled chain"]
    rows = {line["contestant"]: line for line in lines[:-2]}
    assert list(rows)[: len(ours)] == ours
    assert {"transformers", "transformers assisted"} <= rows.keys()
    assert all(rows[name]["identical_prompts"] == 1 for name in rows)
    assert rows["chain"]["allowed_speedup"] > 0
    missing = lines[-2]["missing"]
    assert missing["transformers static"] == "left out"
    assert rows.keys() | missing.keys() == {*ours, *decode_race.PEERS}
    printed = capsys.readouterr().out
    assert all(f"{name}: absent: {why}" in printed for name, why in missing.items())


def test_a_changed_token_is_a_failure(
    gate: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    once = decode_race.run_once

    def wrong(llm: Any, prompt: list[int], **options: Any) -> Any:
        done = once(llm, prompt, **options)
        return (
            replace(done, token_ids=[*done.token_ids[:-1], 0]) if "max_nodes" in options else done
        )

    monkeypatch.setattr(decode_race, "run_once", wrong)
    code, lines = run(gate, tmp_path / "decode.jsonl", "--only", "race", "--peers")
    assert code == 1
    assert lines[-1]["bars"][0]["value"] > 0


def test_nothing_is_timed_behind_a_red_gate(gate: Path, tmp_path: Path) -> None:
    out, few = tmp_path / "decode.jsonl", ("--only", "steps", "--context", "16", "--batch", "1")
    engine = "tests.lossless.test_bits"
    text = gate.read_text()
    for broken, says in (
        (text.replace(f'"{engine}"', '"tests.kernels.test_bits"'), "no test of bits has passed"),
        (text.replace("test_linear", "elsewhere"), "no test of linear by reference has passed"),
        (text.replace("/>", "><failure/></testcase>"), "tests of embedding fail"),
    ):
        gate.write_text(broken)
        with pytest.raises(SystemExit, match=says):
            run(gate, out, *few)
    gate.unlink()
    with pytest.raises(SystemExit, match="no such file"):
        run(gate, out, *few)
    assert not out.exists()


def test_what_there_is_no_room_for_is_said_and_kept(
    gate: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(decode_case, "free_bytes", lambda device: 2**21)
    small = ["--only", "steps", "--context", "16", "400", "--batch", "1", "--depth", "1"]
    _, lines = run(gate, tmp_path / "decode.jsonl", *small)
    assert [line.get("not_measured", "")[-15:] for line in lines] == [
        *[""] * len(ALONE),
        "0.0 GB are free",
        "",
    ]


def test_a_context_that_the_target_lacks_is_refused() -> None:
    assert refusal(made(), Case(100, 1, 2, 2)) is None
    assert "the target's context is 1024" in str(refusal(made(), Case(1020, 1, 2, 2)))


def test_a_random_target_has_the_context_that_is_asked_for() -> None:
    longer = subject(
        Source(SHAPE, None, None, "paper", CPU, torch.float32, "reference", num_slots=3000)
    )
    assert longer.model.config.max_seq_len == longer.hf_config.max_position_embeddings == 3000


def test_an_adapter_is_needed(tmp_path: Path) -> None:
    tiny = subject(Source(None, "tiny-py", "paper", "paper", CPU, torch.float32))
    assert (tiny.path.name if tiny.path else "", tiny.adapter.config.kind) == ("tiny-py", "paper")
    bare = tmp_path / "bare"
    bare.mkdir()
    assert tiny.path is not None
    for file in tiny.path.glob("*.*"):
        (bare / file.name).symlink_to(file)
    with pytest.raises(ValueError, match="adapter: expected one"):
        subject(Source(None, bare, None, "paper", CPU, torch.float32))


def test_a_small_model_at_the_size_of_a_large_one() -> None:
    """Text, drafts and what is accepted are the small one's."""
    model = replace(TINY_PY, name="wide", hidden=768, heads=Heads(4, 4, 64), num_layers=17)
    small, wide = (
        subject(Source(shape, "tiny-py", "paper", "paper", CPU, torch.float32))
        for shape in (None, model)
    )
    assert wide.model.config.num_layers == wide.hf_config.num_hidden_layers == 17
    assert wide.hf_config.rms_norm_eps == wide.model.config.rms_norm_eps
    [ids] = small.prompts(1, 30).values()
    assert [ids] == list(wide.prompts(1, 30).values())
    said = [run_once(each.llm, ids, max_new_tokens=20, adaptive=False) for each in (small, wide)]
    assert said[0].token_ids == said[1].token_ids
    assert said[0].speculation is not None
    assert said[1].speculation is not None
    assert said[0].speculation.accepted_lens == said[1].speculation.accepted_lens


def test_prompts_are_text_where_there_is_a_tokenizer() -> None:
    """Drafts are accepted then."""
    tiny = subject(Source(None, "tiny-py", "deep_prefix", "paper", CPU, torch.float32))
    [ids] = tiny.prompts(1, 30).values()
    done = run_once(tiny.llm, ids, max_new_tokens=20).speculation
    assert done is not None
    assert done.num_accepted > 0
    random = made().prompts(2, 30)
    assert [len(ids) for ids in random.values()] == [30, 30]
    assert max(map(max, random.values())) < SHAPE.vocab


@pytest.mark.parametrize("backend", ["reference", "native"])
@pytest.mark.parametrize("kind", ADAPTER_KINDS)
def test_steps_leave_rounds_as_they_are(kind: AdapterKind, backend: str) -> None:
    """Between rounds or not: the rounds bring the same tokens, so the caches are whole."""
    ours, case = made(kind, backend), Case(40, 2, 3, 4)
    tokens = []
    for disturbed in (False, True):
        torch.manual_seed(1)
        rig = Rig(ours, case)
        with torch.inference_mode():
            for _ in range(case.repeats + WARM_UP):
                for step in rig.steps() if disturbed else ():
                    step.run()
                if disturbed:
                    rig.draft_unread()
                rig.round()
        tokens.append([request.tokens for request in rig.state.requests])
    assert tokens[0] == tokens[1]


@pytest.mark.parametrize("kind", ADAPTER_KINDS)
def test_every_step_begins_behind_the_history(kind: AdapterKind) -> None:
    """Not behind the nodes that the step before has left."""
    rig = Rig(made(kind), Case(40, 2, 3, 1))
    for step in [each.run for each in rig.steps()] + [rig.draft_unread]:
        left = []
        for others in ([rig.draft], [rig.ar_step, rig.accept]):
            with torch.inference_mode():
                for run in (*others, step):
                    run()
            left.append([cache.num_nodes for cache in rig.state.caches])
        assert left[0] == left[1]


def test_a_round_is_as_deep_as_it_was_asked_to_be() -> None:
    rig = Rig(made(), Case(40, 2, 3, 1))
    with torch.inference_mode():
        assert [done.num_drafted for done in rig.round()] == [3, 3]


@pytest.mark.parametrize("kind", ADAPTER_KINDS)
def test_a_chain_that_nobody_reads_is_the_same_work(kind: AdapterKind) -> None:
    """As many nodes in every cache; the root's keys and values, which no draft has a say in."""
    rig = Rig(made(kind), Case(40, 2, 3, 1))
    rig.root[:, 0] = torch.tensor([request.tokens[-1] for request in rig.state.requests])
    left = []
    for draft in (rig.draft, rig.draft_unread):
        with torch.inference_mode():
            draft()
        shallow, own = rig.state.shallow_kv, rig.state.adapter_kv
        first = shallow.storage[..., 40, :].clone(), own.storage[..., 40, :].clone()
        left.append((shallow.num_nodes, own.num_nodes, *first))
    assert left[0][:2] == left[1][:2] == (4, 3)
    for whole, unread in zip(left[0][2:], left[1][2:], strict=True):
        torch.testing.assert_close(whole, unread, rtol=0, atol=0)


def test_bars_of_a_gpu() -> None:
    """A copy at 100 GB/s moves 1e6 bytes in 10 us; at 90 % of it, in 11.1."""
    step = {"batch": 1, "num_bytes": 10**6, "launches": {"waits": 0}, "percent_of_copy": 86.0}
    figures = [
        step | {"context": context, "step": name, "p50_us": us}
        for context in (128, 2048, 8192)
        for name, us in (("AR step", 1.0), ("round", 12.0 if context == 2048 else 99.0))
    ]
    figures += [figure | {"batch": 4, "percent_of_copy": 1.0} for figure in figures]
    assert [bar.verdict for bar in step_bars(figures, 100.0)] == ["PASS"] * 3
    slow = [
        f | {"p50_us": 13.0, "percent_of_copy": 84.0, "launches": {"waits": 1}} for f in figures
    ]
    assert [bar.verdict for bar in step_bars(slow, 100.0)] == ["FAIL"] * 3
    unseen = [figure | {"launches": None} for figure in figures]
    assert [bar.verdict for bar in step_bars(unseen, 100.0)][2] == "NOT MEASURED"
    assert step_bars([], 100.0) == []
    for speedup, verdict in ((1.9, "PASS"), (1.8, "FAIL")):
        row = {"speedup_median": speedup, "allowed_speedup": 2.0}
        assert race_bar(row).verdict == verdict


def test_the_host_has_what_is_left_over() -> None:
    parts = {"draft": 3.0, "verify": 5.0, "accept": 1.0, "AR step": 7.0}
    assert breakdown(parts, 10.0) == {"draft": 3.0, "verify": 5.0, "accept": 1.0, "host": 1.0}


def test_launches_are_counted_by_name() -> None:
    events = [
        ("void linear_kernel<4>", True, 10.0),
        ("Memcpy HtoD (Pageable -> Device)", True, 2.0),
        ("Memset (Device)", True, 1.0),
        ("cudaLaunchKernel", False, 5.0),
        ("cuLaunchKernelEx", False, 5.0),
        ("cudaGraphLaunch", False, 5.0),
        ("cudaStreamSynchronize", False, 5.0),
        ("cudaDeviceSynchronize", False, 5.0),
        ("aten::linear", False, 5.0),
    ]
    assert counted(events) == Launches(kernels=1, copies=2, launches=3, waits=1, busy_us=13.0)
