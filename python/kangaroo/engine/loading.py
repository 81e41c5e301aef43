"""From folders on disk to a target and an adapter that run."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from transformers import AutoTokenizer, GenerationConfig, PreTrainedTokenizerBase

from kangaroo.draft.head import drafting_head, require_readable
from kangaroo.models.adapter import Adapter
from kangaroo.models.adapter_format import CONFIG, read_description
from kangaroo.models.adapter_io import DraftModule, kangaroos, load_drafter
from kangaroo.models.draft_vocab import read_draft_vocab, vocab_tensor
from kangaroo.models.families import hf_config, model_config
from kangaroo.models.fingerprint import fingerprint, tokenizer_sha256
from kangaroo.models.llama import Llama
from kangaroo.models.weights import OnProgress, load_target
from kangaroo_kernels import Backend, KernelSet, Target
from kangaroo_kernels.draft_head import DraftHead
from kangaroo_kernels.kernel_set import LIBRARY_OPS

TINY_PY = "tiny-py"
TINY_PY_ADAPTER = "deep_prefix"
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def load_engine(
    target: str | Path,
    adapter: str | Path | None,
    dtype: torch.dtype | str | None,
    device: torch.device | str,
    backend: Backend | str,
    on_progress: OnProgress | None = None,
) -> tuple[Path, Llama, DraftModule | None]:
    """Folder, target and adapter; see :meth:`KangarooForCausalLM.from_pretrained`."""
    path = target_path(target)
    place = torch_device(device)
    config = model_config(path)
    number = torch_dtype(dtype, place, path)
    on = Target(place, number, config.head_dim)
    kernels, prefill = KernelSet.resolve(on, backend), prefill_kernels(on, backend)
    home = adapter_home(target, adapter)
    loaded = None if home is None else load_bound(home, path, number, place)
    weights = load_target(path, config, number, place, on_progress)
    return path, Llama(config, weights, kernels, prefill), loaded


def prefill_kernels(target: Target, backend: Backend | str) -> KernelSet | None:
    """On a GPU kernels for a few rows would read the weights again and again: there prefill goes
    through libraries, unless a backend was asked for. None: as decoding.
    """
    if backend != "auto" or target.device.type == "cpu":
        return None
    return KernelSet.resolve(target, **dict.fromkeys(LIBRARY_OPS, Backend.LIBRARY))


def load_bound_adapter(
    home: Path, target: Path, dtype: torch.dtype, device: torch.device
) -> Adapter:
    """Kangaroo's adapter in folder `home`; see :func:`load_bound`.

    Raises:
        ValueError: as there, or it is of another kind.
    """
    return kangaroos(load_bound(home, target, dtype, device), f"{home / CONFIG}: ")


def load_bound(home: Path, target: Path, dtype: torch.dtype, device: torch.device) -> DraftModule:
    """What folder `home` drafts with, made for the target in folder `target`.

    Raises:
        ValueError: as load_drafter.
    """
    exit_layer = read_description(home / CONFIG).adapter.exit_layer
    return load_drafter(home, dtype, device, fingerprint(target, exit_layer))


def load_draft_model(path: Path, target: Path, like: Llama) -> Llama:
    """The model in folder `path`, of any family, to draft for the target in folder `target`, which
    has been loaded as `like`: on its device, in its dtype.

    Raises:
        ValueError: its tokens are others than the target's, or it cannot be read.
        UnsupportedError: its family, or its heads by any kernels, are not supported.
    """
    if tokenizer_sha256(path) != tokenizer_sha256(target):
        raise ValueError(f"{path}: its tokenizer is not that of the target in {target}")
    place = like.weights.norm
    _, model, _ = load_engine(path, None, place.dtype, place.device, "auto")
    return model


def load_head(
    path: Path,
    model: Llama,
    adapter: DraftModule | None,
    copy: str | None,
    vocab: str | Path | Sequence[int] | None,
) -> DraftHead:
    """What drafts are taken from; see :meth:`KangarooForCausalLM.from_pretrained`."""
    own = model.weights.lm_head
    if copy is None and vocab is None:
        return drafting_head(own)
    if not isinstance(adapter, Adapter):
        name = "draft_vocab" if copy is None else "draft_head"
        other = "out an adapter" if adapter is None else f" adapter.kind {adapter.config.kind!r}"
        raise ValueError(f"{name}: has no effect with{other}; leave it out")
    if isinstance(vocab, str | Path):
        vocab = read_draft_vocab(Path(vocab), len(own), tokenizer_sha256(path))
    ids = None if vocab is None else vocab_tensor(vocab, len(own)).to(own.device)
    head = drafting_head(own, copy, ids)
    require_readable(head, model.kernels, model.weights.norm)
    return head


def load_tokenizer(path: Path) -> PreTrainedTokenizerBase:
    """The tokenizer in folder `path`.

    Raises:
        ValueError: there is none that transformers can read.
    """
    try:
        tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(
            path, local_files_only=True, trust_remote_code=False
        )
    except (OSError, ValueError, ImportError, KeyError, TypeError) as error:
        raise ValueError(f"{path}: no usable tokenizer: {' '.join(str(error).split())}") from error
    return tokenizer


def target_path(target: str | Path) -> Path:
    """The folder of a target.

    Raises:
        ValueError: there is no such folder.
    """
    path = Path(__file__).parents[1] / "zoo" / TINY_PY if target == TINY_PY else Path(target)
    if not path.is_dir():
        raise ValueError(
            f"{path}: no such folder; a target is {TINY_PY!r} or a local Hugging Face folder "
            "(fetch one with: hf download NAME --local-dir DIR)"
        )
    return path


def adapter_home(target: str | Path, adapter: str | Path | None) -> Path | None:
    """The folder of the adapter that is loaded with a target; tiny-py has a default, its own,
    whatever lies in the current directory.

    Raises:
        ValueError: as :func:`target_path` and :func:`adapter_path`.
    """
    path = target_path(target)
    default = path / "adapters" / TINY_PY_ADAPTER if target == TINY_PY else None
    return adapter_path(path, default if adapter is None else adapter)


def adapter_path(target: Path, adapter: str | Path | None) -> Path | None:
    """The folder of an adapter, which may be named as one of those in `target`/adapters.

    Raises:
        ValueError: there is no such folder.
    """
    if adapter is None or Path(adapter).is_dir():
        return None if adapter is None else Path(adapter)
    packaged = target / "adapters"
    if (packaged / adapter).is_dir():
        return packaged / adapter
    names = sorted(p.name for p in packaged.glob("*") if p.is_dir())
    hint = f"; this target has {', '.join(names)}" if names else ""
    raise ValueError(f"adapter: no such folder: {adapter}{hint}")


def torch_device(device: torch.device | str) -> torch.device:
    """`device`, if torch can use it here.

    Raises:
        ValueError: it cannot.
    """
    try:
        place = torch.device(device)
    except RuntimeError as error:
        raise ValueError(f"device: expected one such as 'cpu' or 'cuda', got {device!r}") from error
    if place.type == "cuda" and not torch.cuda.is_available():
        raise ValueError(f"device: {device!r} is not there: torch finds no CUDA device")
    return place


def torch_dtype(dtype: torch.dtype | str | None, device: torch.device, path: Path) -> torch.dtype:
    """`dtype` resolved: None is float32 on the CPU, "auto" elsewhere; "auto" is the checkpoint's.

    Raises:
        ValueError: not a dtype that weights can have.
    """
    if dtype == "auto" or (dtype is None and device.type != "cpu"):
        dtype = hf_config(path).dtype
    if dtype is None:  # the checkpoint does not say either
        dtype = torch.float32
    resolved = DTYPES.get(str(dtype).removeprefix("torch."))
    if resolved is None:
        raise ValueError(f"dtype: expected 'auto' or one of {', '.join(DTYPES)}, got {dtype}")
    return resolved


def generation_config(path: Path) -> GenerationConfig:
    """generation_config.json, or what config.json says where there is none.

    Raises:
        ValueError: the file is not one.
    """
    file = path / "generation_config.json"
    if file.is_file():
        try:
            return GenerationConfig.from_pretrained(path, local_files_only=True)
        except (OSError, TypeError, ValueError) as error:
            raise ValueError(f"{file}: no generation config: {error}") from error
    return GenerationConfig.from_pretrained(
        path, config_file_name="config.json", local_files_only=True, _from_model_config=True
    )
