"""From folders on disk to a target and an adapter that run."""

from __future__ import annotations

from pathlib import Path

import torch
from transformers import GenerationConfig

from kangaroo.models.adapter import Adapter
from kangaroo.models.adapter_format import CONFIG, read_description
from kangaroo.models.adapter_io import load_adapter
from kangaroo.models.families import hf_config, model_config
from kangaroo.models.fingerprint import fingerprint
from kangaroo.models.llama import Llama
from kangaroo.models.weights import load_target
from kangaroo_kernels import Backend, KernelSet, Target

TINY_PY = "tiny-py"
TINY_PY_ADAPTER = "deep_prefix"
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def load_engine(
    target: str | Path,
    adapter: str | Path | None,
    dtype: torch.dtype | str | None,
    device: torch.device | str,
    backend: Backend | str,
) -> tuple[Path, Llama, Adapter | None]:
    """Folder, target and adapter; see :meth:`KangarooForCausalLM.from_pretrained`."""
    path = target_path(target)
    place = torch_device(device)
    config = model_config(path)
    number = torch_dtype(dtype, place, path)
    kernels = KernelSet.resolve(Target(place, number, config.head_dim), backend)
    home = adapter_home(target, adapter)
    loaded = None if home is None else fitting_adapter(path, home, number, place)
    return path, Llama(config, load_target(path, config, number, place), kernels), loaded


def fitting_adapter(target: Path, home: Path, dtype: torch.dtype, device: torch.device) -> Adapter:
    """The adapter in folder `home`, which was made for the target in folder `target`.

    Raises:
        ValueError: as :func:`load_adapter`.
    """
    exit_layer = read_description(home / CONFIG).adapter.exit_layer
    return load_adapter(home, dtype, device, fingerprint(target, exit_layer))


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
    """The folder of the adapter that is loaded with a target; tiny-py has a default.

    Raises:
        ValueError: as :func:`target_path` and :func:`adapter_path`.
    """
    default = TINY_PY_ADAPTER if target == TINY_PY else None
    return adapter_path(target_path(target), default if adapter is None else adapter)


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
    """generation_config.json, or what config.json says where there is none."""
    name = "generation_config.json"
    if (path / name).is_file():
        return GenerationConfig.from_pretrained(path, local_files_only=True)
    return GenerationConfig.from_pretrained(
        path, config_file_name="config.json", local_files_only=True, _from_model_config=True
    )
