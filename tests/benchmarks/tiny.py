"""A subject that is as small as decoding can be timed with."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch

from benchmarks.models import TINY_PY
from benchmarks.subjects import Source, Subject, subject
from kangaroo.config import AdapterKind

CPU = torch.device("cpu")
SHAPE = replace(TINY_PY, num_layers=4, vocab=61)


def made(kind: AdapterKind = "paper", backend: str = "reference", **shape: Any) -> Subject:
    """Random; `shape` has fields of Model."""
    return subject(Source(replace(SHAPE, **shape), None, None, kind, CPU, torch.float32, backend))
