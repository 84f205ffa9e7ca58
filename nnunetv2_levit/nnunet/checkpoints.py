"""Reading nnU-Net's checkpoints without running what a stranger may have put into them.

A checkpoint is a pickle, and a pickle can call any function when it is read. A genuine checkpoint needs tensors, plain
values and NumPy's numbers alone; that is what is read here. nnU-Net's own loaders read everything, so each file is
checked here before nnU-Net gets it.
"""

import os
import pickle
import re
import warnings
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from nnunetv2_levit.errors import UserError

TRUST_VARIABLE = "nnUNet_levit_trust_checkpoint"
TRAINED = ("network_weights", "init_args", "trainer_name")
"""What prediction reads of a checkpoint."""
RESUMABLE = (*TRAINED, "optimizer_state", "logging", "current_epoch")
"""What ``--c`` reads of a checkpoint."""

_TYPES: dict[str, type] = {
    "network_weights": dict,
    "init_args": dict,
    "trainer_name": str,
    "optimizer_state": dict,
    "logging": dict,
    "current_epoch": int,
}
_NUMBERS = (
    *(np.bool_, np.int8, np.int16, np.int32, np.int64, np.uint8, np.uint16, np.uint32, np.uint64),
    *(np.float16, np.float32, np.float64),
)
_GLOBAL = re.compile(r"GLOBAL ([\w.]+)")
_MORE_THAN_PLAIN_VALUES = re.compile(
    "Unsupported operand|unsupported persistent id|unsafe class|unrecognized function|Can only build|TorchScript"
)


def _numpy_numbers() -> list[Callable | tuple[Callable, str]]:
    """What a pickled NumPy number names: numpy 1 and 2 call the same function by two names."""
    scalar = np.float64(0).__reduce__()[0]
    names = ("numpy._core.multiarray.scalar", "numpy.core.multiarray.scalar")
    return [*((scalar, name) for name in names), np.dtype, *(type(np.dtype(number)) for number in _NUMBERS)]


def trusted_by_environment() -> bool:
    """Whether ``nnUNet_levit_trust_checkpoint`` says that checkpoints may run code."""
    return os.environ.get(TRUST_VARIABLE, "").lower() in ("1", "t", "true")


def trust_this_process() -> None:
    """Let this process, and those that it starts, load every checkpoint."""
    os.environ[TRUST_VARIABLE] = "1"


def _how_to_trust() -> str:
    return (
        f"add --trust-checkpoint (with nnUNetv2_train: export {TRUST_VARIABLE}=1) to load it all the same, "
        "if you trust whoever made it"
    )


def _present(path: Path) -> None:
    if path.is_dir():
        raise UserError(f"{path} is a folder, not a checkpoint: name a file in it")
    if not path.exists():
        raise UserError(f"there is no checkpoint {path}")
    if not path.is_file():  # a pipe would be waited for
        raise UserError(f"{path} is no ordinary file: name a checkpoint")
    try:
        with path.open("rb") as file:
            if not file.read(1):
                raise UserError(f"the checkpoint {path} is empty: copy it again, or train anew")
    except OSError as error:
        raise UserError(f"the checkpoint {path} can't be read ({error.strerror}): mend its permissions") from None


def _torch_load(path: Path, *, trust: bool, mmap: bool, map_location: str | torch.device) -> Any:
    """What the file holds; what is no archive of torch's present format can't be mapped and is read whole."""
    mmap = mmap and zipfile.is_zipfile(path)
    with torch.serialization.safe_globals(_numpy_numbers()), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.load(path, map_location=map_location, weights_only=not trust, mmap=mmap)


def _read(path: Path, *, trust: bool, mmap: bool, map_location: str | torch.device) -> Any:
    _present(path)
    try:
        return _torch_load(path, trust=trust, mmap=mmap, map_location=map_location)
    except MemoryError:
        raise
    except Exception as error:  # a damaged file makes torch and pickle raise almost anything
        said = str(error)
        if isinstance(error, pickle.UnpicklingError | RuntimeError) and not trust:
            if found := _GLOBAL.search(said):
                raise UserError(
                    f"the checkpoint {path} was not loaded: it names {found[1]}, which nnU-Net's checkpoints "
                    f"don't and which may run any code; {_how_to_trust()}"
                ) from None
            if zipfile.is_zipfile(path) and (found := _MORE_THAN_PLAIN_VALUES.search(said)):
                raise UserError(
                    f"the checkpoint {path} was not loaded: it holds more than tensors and plain values (torch says "
                    f"{found[0]!r}), which may run any code; {_how_to_trust()}"
                ) from None
        reason = said.strip().splitlines()[0][:150] if said.strip() else type(error).__name__
        raise UserError(
            f"{path} can't be loaded: it is not a readable checkpoint, but damaged, cut short or something else "
            f"({reason}): copy it again or name another"
        ) from None


def _check_content(path: Path, content: Any, keys: Sequence[str]) -> dict[str, Any]:
    if not isinstance(content, dict):
        raise UserError(
            f"{path} is no checkpoint of nnU-Net's: it holds {type(content).__name__}, not a dictionary: name another"
        )
    missing = [key for key in keys if key not in content]
    if missing:
        raise UserError(f"{path} is no checkpoint of nnU-Net's: it has no {', '.join(missing)}: name another")
    for key in keys:
        if not isinstance(content[key], _TYPES[key]):
            raise UserError(
                f"{path} is no checkpoint of nnU-Net's: its {key} is {type(content[key]).__name__}, not "
                f"{_TYPES[key].__name__}: name another"
            )
    weights = content["network_weights"]
    others = [name for name, value in weights.items() if not (isinstance(name, str) and isinstance(value, Tensor))]
    if others or not weights:
        what = f"its weight {others[0]!r} is no tensor" if others else "it holds no weights"
        raise UserError(f"{path} is no checkpoint of nnU-Net's: {what}: name another")
    if "init_args" in keys and not isinstance(content["init_args"].get("configuration"), str):
        raise UserError(f"{path} is no checkpoint of nnU-Net's: its init_args name no configuration: name another")
    return content


def load_checkpoint(
    path: str | Path,
    *,
    trust: bool = False,
    map_location: str | torch.device = "cpu",
    keys: Sequence[str] = TRAINED,
    mmap: bool = False,
) -> dict[str, Any]:
    """The content of one of nnU-Net's checkpoints (of any version), loaded without running code.

    Args:
        path: the file.
        trust: load whatever is in it, code included.
        map_location: where the tensors go, as for `torch.load`.
        keys: entries that must be there, with nnU-Net's types; ``network_weights`` maps names to tensors.
        mmap: leave the tensors in the file until they are used, where its format allows it.

    Raises:
        UserError: the file is missing, empty, damaged, not a checkpoint, or names what is neither tensor nor number.
    """
    path = Path(path)
    return _check_content(path, _read(path, trust=trust, mmap=mmap, map_location=map_location), keys)


def check_checkpoint(path: str | Path, *, trust: bool = False, keys: Sequence[str] = TRAINED) -> None:
    """Raise what `load_checkpoint` would raise, without reading the tensors (where the file's format allows it).

    For loaders that are not ours: this first, then the path to them. A trusted file is not opened here, as that would
    run its code twice.

    Raises:
        UserError: see `load_checkpoint`.
    """
    if trust:
        _present(Path(path))
    else:
        load_checkpoint(path, keys=keys, mmap=True)


def newest_checkpoint(path: Path, *, trust: bool) -> Path:
    """The checkpoint to resume from where nnU-Net chose ``path``: the best one if it is newer than the latest one.

    Raises:
        UserError: a training can't be resumed from the chosen file (see `check_checkpoint`).
    """
    best = path.with_name("checkpoint_best.pth")
    later = (
        path.name == "checkpoint_latest.pth" and best.is_file() and best.stat().st_mtime_ns > path.stat().st_mtime_ns
    )
    if not later or trust:  # a trusted file may run code, so it is opened once: no epochs are read
        chosen = best if later else path
        check_checkpoint(chosen, trust=trust, keys=RESUMABLE)
        return chosen
    epochs = [load_checkpoint(file, keys=RESUMABLE, mmap=True)["current_epoch"] for file in (path, best)]
    return best if epochs[1] >= epochs[0] else path
