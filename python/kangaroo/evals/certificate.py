"""The promises of the engine, run on any target and adapter: what was done, and the verdict."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from kangaroo.engine.loading import adapter_home, target_path
from kangaroo.environment import machine, versions
from kangaroo.evals.checks import logits_bits, seeds, stops
from kangaroo.evals.laws import sampling_law
from kangaroo.evals.margins import greedy_equality
from kangaroo.evals.subject import FAIL, PASS, Finding, Subject
from kangaroo.models.adapter_format import CONFIG, read_description
from kangaroo.models.fingerprint import fingerprint, weights_sha256
from kangaroo_kernels import native

FORMAT, VERSION = "kangaroo-certificate", 1
# By name: the check, and what has been shown where it passes.
CHECKS: dict[str, tuple[Callable[[Subject], Finding], str]] = {
    "greedy": (
        greedy_equality,
        "greedy ids are those of transformers' generate, but for near-ties with a float64 margin",
    ),
    "logits": (
        logits_bits,
        "with chains and trees of drafts ids and logits are those of no drafting, bit for bit",
    ),
    "seeds": (seeds, "a seed settles what is sampled, and another seed changes it"),
    "law": (sampling_law, "sampled continuations have the target's own probabilities"),
    "stops": (stops, "ends of sequence, stop strings and lengths cut at the right token"),
}


def certify(
    subject: Subject, about: dict[str, Any], on_check: Callable[[str], object] = str
) -> dict[str, Any]:
    """Run every check, one after the other, and say for JSON what was run and what was found.

    Args:
        about: the :func:`identity` of the subject's target and adapter.
        on_check: told the name of each check before it starts.

    Raises:
        ValueError: a prompt and its continuation exceed the target's context, or the folder has no
            tokenizer.
    """
    findings: dict[str, Finding] = {}
    for name, (check, _) in CHECKS.items():
        on_check(name)
        findings[name] = check(subject)
    verdicts = [finding.verdict for finding in findings.values()]
    return {
        "format": FORMAT,
        "version": VERSION,
        "created": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "verdict": FAIL if FAIL in verdicts else PASS,
        "drafting": _drafting(findings["logits"]),
        "claims": [CHECKS[name][1] for name, found in findings.items() if found.verdict == PASS],
        "checks": {name: found.as_dict() for name, found in findings.items()},
        **about,
        "settings": vars(subject.settings)
        | {"drafting": list(subject.modes), "prompts": _prompts(subject)},
        "engine": _engine(subject),
        "versions": versions(),
        "machine": machine(),
        "extension": native.build_info(),
    }


def identity(target: str | Path, adapter: str | Path | None) -> dict[str, Any]:
    """Which target and adapter these are, whatever their folders are called, for JSON.

    Args: as of :meth:`KangarooForCausalLM.from_pretrained`.

    Raises:
        ValueError, UnsupportedError: as there.
    """
    path, home = target_path(target), adapter_home(target, adapter)
    described = None if home is None else read_description(home / CONFIG)
    exit_layer = 1 if described is None else described.adapter.exit_layer
    return {
        "target": {"name": str(target), "weights": weights_sha256(path)}
        | fingerprint(path, exit_layer),
        "adapter": None
        if described is None
        else {"sha256": described.sha256} | vars(described.adapter),
    }


def _drafting(logits: Finding) -> str:
    """What the check of logits, with drafting on and off, says of drafting."""
    if logits.verdict == PASS:
        return "verified"
    return f"not verified: {'logits fail' if logits.verdict == FAIL else logits.not_run}"


def _prompts(subject: Subject) -> dict[str, Any]:
    ids = json.dumps(subject.prompts)
    return {
        "count": len(subject.prompts),
        "tokens": sum(map(len, subject.prompts)),
        "sha256": hashlib.sha256(ids.encode()).hexdigest(),
    }


def _engine(subject: Subject) -> dict[str, Any]:
    model = subject.llm.model
    return {
        "family": model.config.family,
        "dtype": str(model.weights.norm.dtype).removeprefix("torch."),
        "device": str(subject.llm.device),
        "kernels": model.kernels.backends,
    }
