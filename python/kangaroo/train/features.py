"""The target's states of every training window, written once and read by every later run.

The target is frozen, so what it says of a window never changes. A folder holds the exit and last
states of all windows of an epoch, cut at one place (`windows.moving: false`), in safetensors shards
that are mapped, not loaded; the final norm is applied again on reading, by the target itself.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor

from kangaroo.models.files import read_json
from kangaroo.models.fingerprint import fingerprint, weights_sha256
from kangaroo.train.config import FeaturesConfig, StoredDtype, TrainConfig
from kangaroo.train.parallel import Team
from kangaroo.train.target import FrozenTarget, States
from kangaroo.train.whole import check_whole, write_json, write_tensors, written_whole
from kangaroo.train.windows import Windows

KEY = "features.json"
SHARD_BYTES = 1 << 28


@dataclass(frozen=True)
class Features:
    """States of windows from an open folder.

    Attributes:
        shards: handles of the files, `rows_per_shard` windows in each; exit, last [N, T, C].
        rows: number of a window, by :func:`digests`.
    """

    target: FrozenTarget
    shards: list[Any]
    rows_per_shard: int
    rows: dict[bytes, int]

    def states(self, windows: Windows) -> States:
        """As `FrozenTarget.states`."""
        rows = [self.rows[digest] for digest in digests(windows)]
        exit_states, last = self._read("exit", rows), self._read("last", rows)
        with torch.no_grad():
            normed = self.target.model.model.norm(last.to(self.target.head.dtype))
        ids, positions = (x.to(self.target.device) for x in (windows.ids, windows.positions))
        return States(
            exit_states.float(), last.float(), normed, ids, self.target.successor(ids), positions
        )

    def _read(self, name: str, rows: list[int]) -> Tensor:
        found = []
        for row in rows:
            shard, place = divmod(row, self.rows_per_shard)
            found.append(self.shards[shard].get_slice(name)[place : place + 1])
        return torch.cat(found).to(self.target.device)


def open_features(
    config: TrainConfig, target: FrozenTarget, windows: Windows, team: Team
) -> Features:
    """The states of `windows` in `config.features.folder`, which is written if it is not there.

    Raises:
        ValueError: the folder holds another target's or other windows' states, is damaged, is being
            written, or does not fit on the disk.
    """
    folder, dtype = config.features.folder, stored_dtype(target, config.features.dtype)
    assert folder is not None
    num_rows, seq_len = windows.ids.shape
    window_bytes = 2 * dtype.itemsize * seq_len * target.norm.numel()
    rows_per_shard = max(1, SHARD_BYTES // window_bytes)
    key = {
        "target": weights_sha256(config.model),
        "target_config": fingerprint(config.model, config.adapter.exit_layer)["config"],
        "exit_layer": str(target.exit_layer),
        "target_dtype": str(target.head.dtype),
        "device": target.device.type,
        "windows": hashlib.sha256(b"".join(digests(windows))).hexdigest(),
        "shape": str((num_rows, seq_len)),
        "dtype": str(dtype),
        "rows_per_shard": str(rows_per_shard),
    }
    absent = not folder.exists()
    team.wait()
    if absent:
        parts = _states_of(target, windows, config.windows.batch_size, dtype)
        shards = _joined(parts, rows_per_shard)
        if team.writes:
            _check_space(folder, num_rows * window_bytes)
            _write(folder, shards, key)
        elif config.shard_target:  # whose layers all processes hold together
            for _ in shards:
                pass
    team.wait()
    check_whole(folder, hashes=False)
    found = read_json(folder / KEY)
    for name, value in key.items():
        if found.get(name) != value:
            raise ValueError(
                f"features.folder: {folder}: {name}: expected {value}, got {found.get(name)}; it "
                "holds another run's features: name another folder, or remove this one"
            )
    files = [safe_open(file, "pt") for file in sorted(folder.glob("*.safetensors"))]
    rows = {digest: row for row, digest in enumerate(digests(windows))}
    return Features(target, files, rows_per_shard, rows)


def _write(folder: Path, shards: Iterator[dict[str, Tensor]], key: dict[str, str]) -> None:
    with written_whole(folder) as workshop:
        for number, shard in enumerate(shards):
            write_tensors(workshop / f"{number:06d}.safetensors", shard)
        write_json(workshop / KEY, key)


def stored_dtype(target: FrozenTarget, dtype: StoredDtype) -> torch.dtype:
    """ "auto": the target's own, in which its states lose nothing."""
    found: torch.dtype = target.head.dtype if dtype == "auto" else getattr(torch, dtype)
    return found


def rounded_to(target: FrozenTarget, config: FeaturesConfig) -> torch.dtype | None:
    """What training reads the target's states in; None: they lose nothing."""
    stored, own = stored_dtype(target, config.dtype), target.head.dtype
    lossless = config.folder is None or torch.promote_types(stored, own) == stored
    return None if lossless else stored


def _states_of(
    target: FrozenTarget, windows: Windows, batch_size: int, dtype: torch.dtype
) -> Iterator[dict[str, Tensor]]:
    """Of batches of training's own size, whose rounding may depend on it: the last is filled up."""
    num_rows = len(windows)
    for first in range(0, num_rows, batch_size):
        rows = torch.arange(first, first + batch_size) % num_rows
        states = target.states(windows.ids[rows], windows.positions[rows])
        kept = min(batch_size, num_rows - first)
        yield {
            name: state[:kept].to("cpu", dtype)
            for name, state in (("exit", states.exit), ("last", states.last))
        }


def _joined(parts: Iterator[dict[str, Tensor]], num_rows: int) -> Iterator[dict[str, Tensor]]:
    """The same rows in parts of `num_rows`; the last may be shorter."""
    held: dict[str, Tensor] = {}
    for part in parts:
        held = {
            name: torch.cat([held[name], rows]) if held else rows for name, rows in part.items()
        }
        while len(held["exit"]) >= num_rows:
            yield {name: rows[:num_rows] for name, rows in held.items()}
            held = {name: rows[num_rows:] for name, rows in held.items()}
    if held and len(held["exit"]):
        yield held


def digests(windows: Windows) -> list[bytes]:
    """Of every window's tokens and of the documents that they are in."""
    pairs = zip(windows.ids, windows.positions, strict=True)
    content = (ids.numpy().tobytes() + positions.numpy().tobytes() for ids, positions in pairs)
    return [hashlib.blake2b(one, digest_size=16).digest() for one in content]


def _check_space(folder: Path, num_bytes: int) -> None:
    parent = next(path for path in folder.absolute().parents if path.exists())
    free = shutil.disk_usage(parent).free
    if num_bytes > free:
        raise ValueError(
            f"features.folder: {folder}: expected {num_bytes / 1e9:.1f} GB of free space, got "
            f"{free / 1e9:.1f} GB"
        )
