"""nnU-Net's environment variables: its three folders, and ``nnUNet_extTrainer``, by which it finds the trainers."""

import os
import shlex
import sysconfig
from pathlib import Path

from nnunetv2_levit.errors import UserError

VARIABLE = "nnUNet_extTrainer"
NNUNET_FOLDERS = ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results")
START_UP_FILE = "nnunetv2_levit_enable.pth"


def nnunet_folder(variable: str) -> Path:
    """One of nnU-Net's three folders.

    Raises:
        UserError: the environment variable is unset or names a file.
    """
    value = os.environ.get(variable)
    if not value:
        raise UserError(f"the environment variable {variable} is not set: export {variable}=/path/to/a/folder")
    path = Path(value)
    try:
        usable = path.is_dir() or not os.path.lexists(path)
    except OSError as error:
        raise UserError(
            f"{variable} names {path}, which can't be used ({error.strerror}): choose another folder"
        ) from None
    if not usable:
        raise UserError(f"{variable} names {path}, which is not a folder")
    return path


def dataset_folder(variable: str, dataset: int | str, *, advice: str) -> Path:
    """The folder of a dataset, given by id or full name, in one of nnU-Net's three folders.

    Raises:
        UserError: there is none or, by id, more than one; ``advice`` says what to do.
    """
    root = nnunet_folder(variable)
    if str(dataset).isdecimal():
        found = sorted(path for path in root.glob(f"Dataset{int(dataset):03d}_*") if path.is_dir())
        what = f"with id {int(dataset)}"
    else:
        is_name = Path(str(dataset)).name == str(dataset)
        found = [root / str(dataset)] if is_name and (root / str(dataset)).is_dir() else []
        what = str(dataset)
    if len(found) != 1:
        count = "no dataset" if not found else f"{len(found)} datasets"
        raise UserError(f"{root} holds {count} {what}: {advice}")
    return found[0]


def plugin_folder() -> Path:
    """The folder that nnU-Net searches for trainers."""
    return Path(__file__).resolve().parent / "plugin"


def with_plugin(current: str | None) -> str:
    """The variable's value with the plug-in folder added, once, after what is there."""
    folders = [folder for folder in (current or "").split(os.pathsep) if folder]
    if str(plugin_folder()) not in folders:
        folders.append(str(plugin_folder()))
    return os.pathsep.join(folders)


def set_up_process() -> None:
    """Let nnU-Net find the trainers in this process and in every process that it starts."""
    os.environ[VARIABLE] = with_plugin(os.environ.get(VARIABLE))


def shell_lines() -> str:
    """Lines for ``eval "$(nnunetv2_levit env)"``; unset nnU-Net folders as comments to fill in."""
    lines = [f"export {VARIABLE}={shlex.quote(with_plugin(os.environ.get(VARIABLE)))}"]
    lines += [f"# export {name}=/path/to/{name}" for name in NNUNET_FOLDERS if not os.environ.get(name)]
    return "\n".join(lines)


def _start_up_file() -> Path:
    return Path(sysconfig.get_path("purelib")) / START_UP_FILE


def enable() -> Path:
    """Set the variable at every start of this Python environment, through a ``.pth`` file in its site-packages."""
    folder, name = str(plugin_folder()), VARIABLE
    # one line: Python executes lines of a .pth file that begin with "import"
    line = (
        f"import os; f = {folder!r}; v = os.environ.get({name!r}, ''); "
        f"os.environ[{name!r}] = v if f in v.split(os.pathsep) else os.pathsep.join(x for x in (v, f) if x)\n"
    )
    path = _start_up_file()
    try:
        path.write_text(line)
    except OSError as error:
        raise UserError(
            f"{path} can't be written ({error.strerror}): use a virtual environment of your own, or add the line of "
            "`nnunetv2_levit env` to your shell's start-up file"
        ) from None
    return path


def disable() -> bool:
    """Undo `enable`; false where there was nothing to undo."""
    path = _start_up_file()
    if not path.is_file():
        return False
    try:
        path.unlink()
    except OSError as error:
        raise UserError(f"{path} can't be removed ({error.strerror}): remove it as the user who enabled it") from None
    return True
