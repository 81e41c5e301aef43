"""The target answers its training data itself, so that a drafter trains on what it will meet.

Every answer is what the engine says to its prompt alone, whoever shares its rounds, so a run that
is killed and started again writes the same bytes. A folder: answers.jsonl holds {"input_ids",
"loss_mask"}, the mask 1 on what the target wrote; rejects.jsonl and manifest.json are as those of
`kangaroo.train.prepare`.
"""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from kangaroo.engine.generation import greedy_options, plan
from kangaroo.engine.llm import KangarooForCausalLM
from kangaroo.engine.state import Request
from kangaroo.environment import versions
from kangaroo.models.files import file_sha256, read_json
from kangaroo.models.fingerprint import weights_sha256
from kangaroo.train.answering import Turns, add_turn, turns_of
from kangaroo.train.config import run_folder
from kangaroo.train.documents import DataError, Line, lines_of
from kangaroo.train.journal import Journal
from kangaroo.train.prepare import MANIFEST, REJECTS, fingerprints
from kangaroo.train.staging import require_free, whole_folder, write_lines

FORMAT, VERSION, ANSWERS = "kangaroo-answers", 1, "answers.jsonl"
JOURNAL = "journal.jsonl"


@dataclass(frozen=True)
class RegenerateConfig:
    """What is answered, and how.

    Attributes:
        data: a .jsonl file of conversations or texts, or a .txt file; see `turns_of`.
        out: folder to write; until it is whole, results are kept in the folder "<out>.run".
        max_new_tokens: of an answer at most.
        max_len: tokens of prompt and answer at most.
        prompt_len: of a plain text, tokens that are continued.
        batch_size: sequences in a round.
        temperature: above 0 tokens are drawn, by numbers of (seed, line, turn).
    """

    data: Path
    out: Path
    max_new_tokens: int = 512
    max_len: int = 2048
    prompt_len: int = 64
    batch_size: int = 8
    temperature: float = 0.0
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("max_new_tokens", "prompt_len", "batch_size"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}: expected at least 1, got {getattr(self, name)}")
        if self.max_len < 2:
            raise ValueError(f"max_len: expected at least 2, got {self.max_len}")
        if self.temperature < 0:
            raise ValueError(f"temperature: expected at least 0, got {self.temperature}")

    def trajectory(self) -> dict[str, Any]:
        """The fields that decide what is written: a run that goes on must share them."""
        fields = asdict(self) | {"data": str(self.data)}
        return {name: fields[name] for name in fields if name not in ("out", "batch_size")}


@dataclass
class _Task:
    """A line that is being answered.

    Attributes:
        prompt: of the turn that is decoded in `request`.
    """

    line: Line
    turns: Turns
    prompt: list[int] = field(default_factory=list)
    request: Request = field(default_factory=lambda: Request([], 0))
    rows: list[dict[str, list[int]]] = field(default_factory=list)
    num_turns: int = 0


def regenerate(
    llm: KangarooForCausalLM, config: RegenerateConfig, on_progress: Callable[[int, int], None]
) -> dict[str, Any]:
    """Answer every line of `config.data`, or go on where a run was stopped; returns the manifest.

    Args:
        on_progress: is called with the lines that are done, and all there are.

    Raises:
        ValueError: `config.out` exists, or another run's results are in the way, or an option or
            the file cannot be used, or no line could be answered.
    """
    folder = run_folder(config.out)
    _check_own(folder, config.out)
    identity = _identity(llm, config)
    if folder.exists() and (config.out / MANIFEST).exists():
        manifest = read_json(config.out / MANIFEST)
        if manifest.items() >= identity.items():  # killed as it tidied up
            if (folder / JOURNAL).exists():
                Journal(folder / JOURNAL, identity).close()  # refuses another's
            _remove_own(folder, config.out)
            return manifest
    require_free(config.out)
    _check(llm, config)
    numbers = [line.number for line in lines_of(config.data)]
    folder.mkdir(exist_ok=True)
    with Journal(folder / JOURNAL, identity) as journal:
        _Answering(llm, config, journal).run(lambda: on_progress(len(journal), len(numbers)))
        results = [journal[number] for number in numbers]
    if not any(result["rows"] for result in results):
        _remove_own(folder, config.out)
        why = [f"; line {r['reject']['line']}: {r['reject']['reason']}" for r in results[:1]]
        raise DataError(f"{config.data}: expected a line to answer, got none{''.join(why)}")
    manifest = _write(config, identity, folder, results)
    _remove_own(folder, config.out)
    return manifest


def _is_own(path: Path, out: Path) -> bool:
    """The journal, or where `whole_folder` was killed as it wrote `out`."""
    if path.name == JOURNAL:
        return path.is_file()
    return path.name.startswith(f".{out.name}.") and path.is_dir()


def _check_own(folder: Path, out: Path) -> None:
    """Raises ValueError if the run folder of `out` is there and holds something else."""
    if not folder.exists():
        return
    strangers = [path for path in sorted(folder.iterdir()) if not _is_own(path, out)]
    if strangers:
        raise ValueError(
            f"out: {strangers[0]} is no part of such a run; expected another out, or to find it "
            "gone"
        )


def _remove_own(folder: Path, out: Path) -> None:
    """Remove the run's own files, the journal last, and the folder if it is empty then."""
    for path in folder.iterdir():
        if path.name != JOURNAL and _is_own(path, out):
            shutil.rmtree(path)
    (folder / JOURNAL).unlink(missing_ok=True)
    if not any(folder.iterdir()):
        folder.rmdir()


class _Answering:
    """Keeps a batch full with the turns of the lines that are not in the journal."""

    def __init__(self, llm: KangarooForCausalLM, config: RegenerateConfig, journal: Journal):
        self.llm, self.config, self.journal = llm, config, journal
        draft = None if llm.adapter else "off"
        self.batch = llm.batch(config.batch_size, config.max_len, draft=draft)
        self.tasks: list[_Task] = []

    def run(self, on_progress: Callable[[], None]) -> None:
        """Until every line is in the journal."""
        lines = (line for line in lines_of(self.config.data) if line.number not in self.journal)
        line = next(lines, None)
        while line is not None or self.tasks:
            while line is not None and len(self.tasks) < self.config.batch_size:
                turns = turns_of(line, self.llm.tokenizer, self.config.prompt_len)
                self._ask(_Task(line, turns), None)
                line = next(lines, None)
            self.batch.step()
            ended = [task for task in self.tasks if task.request.num_left == 0]
            for task in ended:
                self.tasks.remove(task)
                answer = task.request.tokens[len(task.prompt) :]
                add_turn(task.rows, task.prompt, answer)
                self._ask(task, answer)
            on_progress()

    def _ask(self, task: _Task, answer: list[int] | None) -> None:
        """The task's next turn behind its latest `answer`; the journal has it if there is none."""
        try:
            task.prompt = next(task.turns) if answer is None else task.turns.send(answer)
            task.request = self._request(task)
        except StopIteration:
            self._done(task, None if task.rows else DataError("expected a turn to answer"))
        except ValueError as error:
            self._done(task, error)
        else:
            task.num_turns += 1
            self.tasks.append(task)
            self.batch.add(task.request)

    def _request(self, task: _Task) -> Request:
        config, length = self.config, len(task.prompt)
        if length >= config.max_len:
            raise DataError(
                f"turn {task.num_turns + 1}: expected a prompt of less than max_len = "
                f"{config.max_len} tokens, got {length}"
            )
        place = f"{config.seed}/{task.line.number}/{task.num_turns}"
        options = _options(self.llm, config, random.Random(place).getrandbits(63))
        num_new = min(config.max_new_tokens, config.max_len - length)
        return self.llm.request(task.prompt, max_new_tokens=num_new, **options)

    def _done(self, task: _Task, error: ValueError | None) -> None:
        """What was answered is kept, whatever speaks against the rest."""
        reject = None if error is None else asdict(task.line.rejected(error))
        self.journal.add(task.line.number, {"rows": task.rows, "reject": reject})


def _options(llm: KangarooForCausalLM, config: RegenerateConfig, seed: int) -> dict[str, Any]:
    plain = greedy_options(llm.generation_config)
    drawn = {"do_sample": True, "temperature": config.temperature, "seed": seed}
    return plain | drawn if config.temperature else plain


def _check(llm: KangarooForCausalLM, config: RegenerateConfig) -> None:
    """Refuse what would otherwise be every line's fault."""
    if config.max_len > (most := llm.model.config.context_len):
        raise ValueError(f"max_len: expected at most {most}, the target's, got {config.max_len}")
    llm.request([0], max_new_tokens=1, **_options(llm, config, seed=0))


def _identity(llm: KangarooForCausalLM, config: RegenerateConfig) -> dict[str, Any]:
    """Everything that the answers follow from; neither adapter nor batch does them anything."""
    norm, prefill = llm.model.weights.norm, llm.model.prefill_kernels
    return {
        "format": FORMAT,
        "version": VERSION,
        "weights": weights_sha256(llm.path),
        **fingerprints(llm.path, llm.tokenizer),
        "dtype": str(norm.dtype),
        "device": norm.device.type,
        "data_sha256": file_sha256(config.data),
        "options": config.trajectory(),
        "generation": _generation(llm, config),
        "backends": llm.model.kernels.backends,
        "prefill_backends": {} if prefill is None else prefill.backends,
    }


def _generation(llm: KangarooForCausalLM, config: RegenerateConfig) -> dict[str, Any]:
    """What comes of generation_config.json: how tokens are chosen, and which end an answer."""
    options = _options(llm, config, seed=0) | {"max_new_tokens": 1}
    options.pop("seed", None)
    wanted = plan(llm.generation_config, None, options, 1, llm.model.config.context_len)
    found = {"shaping": dict(wanted.shaping.fields), "eos_token_id": sorted(wanted.eos_ids)}
    # As the journal gives it back: with lists for tuples.
    as_read: dict[str, Any] = json.loads(json.dumps(found, default=str))
    return as_read


def _write(
    config: RegenerateConfig,
    identity: dict[str, Any],
    workshop: Path,
    results: Sequence[dict[str, Any]],
) -> dict[str, Any]:
    rows = [row for result in results for row in result["rows"]]
    rejects = [result["reject"] for result in results if result["reject"]]
    with whole_folder(config.out, workshop) as folder:
        write_lines(folder / ANSWERS, rows)
        write_lines(folder / REJECTS, rejects)
        manifest = identity | {
            "files": {
                ANSWERS: {
                    "sha256": file_sha256(folder / ANSWERS),
                    "num_documents": len(rows),
                    "num_tokens": sum(len(row["input_ids"]) for row in rows),
                    "num_answer_tokens": sum(sum(row["loss_mask"]) for row in rows),
                }
            },
            "num_rejected": len(rejects),
            "versions": versions(),
        }
        content = json.dumps(manifest, indent=2) + "\n"
        (folder / MANIFEST).write_text(content, encoding="utf-8")
    return manifest
