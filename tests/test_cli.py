import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import nnunetv2_levit
from nnunetv2_levit import cli
from nnunetv2_levit.nnunet.environment import VARIABLE, plugin_folder, with_plugin


def run(capsys, *arguments):
    cli.main(list(arguments))
    return capsys.readouterr().out


def test_env_prints_a_line_for_eval_and_unset_folders_as_comments(capsys, monkeypatch):
    monkeypatch.setenv("nnUNet_raw", "/data/raw")
    monkeypatch.setenv(VARIABLE, "/somewhere else")
    lines = run(capsys, "env").splitlines()
    shell = subprocess.run(
        ["bash", "-c", f'{lines[0]}; printf %s "${VARIABLE}"'], capture_output=True, text=True, check=True
    )
    assert shell.stdout == f"/somewhere else{os.pathsep}{plugin_folder()}"
    assert lines[1:] == [f"# export nnUNet_{n}=/path/to/nnUNet_{n}" for n in ("preprocessed", "results")]


def test_the_plugin_folder_is_added_once():
    once = with_plugin("/a")
    assert with_plugin(once) == once
    assert with_plugin(None) == with_plugin("") == str(plugin_folder())


def test_enable_and_disable(capsys, tmp_path, monkeypatch):
    monkeypatch.setattr("sysconfig.get_path", lambda _: str(tmp_path))
    assert "nothing" in run(capsys, "disable")
    run(capsys, "enable")
    (start_up,) = tmp_path.iterdir()
    script = (
        f"import site, os; site.addsitedir({str(tmp_path)!r}); site.addsitedir({str(tmp_path)!r});"
        f"print(os.environ[{VARIABLE!r}])"
    )
    for before, after in ((None, str(plugin_folder())), ("/other", f"/other{os.pathsep}{plugin_folder()}")):
        environment = {k: v for k, v in os.environ.items() if k != VARIABLE} | ({VARIABLE: before} if before else {})
        found = subprocess.run(
            [sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=True
        )
        assert found.stdout.strip() == after
    assert "disabled" in run(capsys, "disable")
    assert not start_up.exists()


def test_enable_without_permission_is_one_sentence(capsys, tmp_path, monkeypatch):
    monkeypatch.setattr("sysconfig.get_path", lambda _: str(tmp_path / "absent"))
    with pytest.raises(SystemExit) as stop:
        cli.main(["enable"])
    assert stop.value.code == 2
    assert "can't be written" in capsys.readouterr().err


def test_trainers_lists_every_option(capsys):
    from nnunetv2_levit.trainers import FAMILIES

    text = run(capsys, "trainers")
    data = json.loads(run(capsys, "trainers", "--json"))
    for family in FAMILIES.values():
        assert set(data["families"][f"{family.name}Trainer"]["options"]) == {o.name for o in family.options}
        assert all(word in text for word in (f"{family.name}Trainer", *family.sizes, *(o.name for o in family.options)))


@pytest.mark.parametrize(
    ("command", "target"),
    [("train", "nnUNetv2_train"), ("plan", "nnUNetv2_plan_and_preprocess")],
)
def test_everything_is_passed_through_to_nnunet(command, target, monkeypatch):
    seen = {}

    class Entry:
        def load(self):
            return lambda: seen.update(argv=list(sys.argv), plugin=os.environ[VARIABLE])

    monkeypatch.setattr("importlib.metadata.entry_points", lambda **k: [Entry()] if k["name"] == target else [])
    monkeypatch.setattr(sys, "argv", ["nnunetv2_levit"])
    monkeypatch.setenv(VARIABLE, "")
    cli.main([command, "27", "2d", "-h", "--c"])
    assert seen == {"argv": [target, "27", "2d", "-h", "--c"], "plugin": str(plugin_folder())}


LISTINGS = {
    "help": (["--help"], 0),
    "trainers": (["trainers"], 0),
    "trainers as JSON": (["trainers", "--json"], 0),
    "converters": (["convert", "--list"], 0),
    "an unknown converter": (["convert", "unknown"], 2),
    **{
        f"help of {name}": ([name, "--help"], 0) for name in ("convert", "predict", "evaluate", "benchmark", "truncate")
    },
}
REPORT = """
import sys
from nnunetv2_levit import cli
code = 0
try:
    cli.main(sys.argv[1:])
except SystemExit as stop:
    code = stop.code or 0
print(code, sorted({"torch", "nnunetv2", "timm"} & set(sys.modules)))
"""


@pytest.mark.parametrize(("words", "code"), LISTINGS.values(), ids=LISTINGS)
def test_what_only_lists_imports_nothing_heavy_and_warns_of_nothing(words, code):
    done = subprocess.run([sys.executable, "-c", REPORT, *words], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == f"{code} []"
    assert len(done.stderr.splitlines()) == (1 if code else 0), done.stderr


def test_warnings_of_libraries_are_hidden_and_ours_are_not():
    script = (
        "import warnings; from nnunetv2_levit.cli import main; main(['env'])\n"
        "for module in ('torch.onnx', 'nnunetv2_levit.files', 'nnunetv2.paths'):\n"
        "    warnings.warn_explicit(f'from {module}', UserWarning, 'x.py', 1, module)\n"
    )
    for flags, shown in (([], 1), (["-W", "default"], 3)):
        done = subprocess.run([sys.executable, *flags, "-c", script], capture_output=True, text=True, check=True)
        assert done.stderr.count("UserWarning: from") == shown, done.stderr
        assert "from nnunetv2_levit.files" in done.stderr


def test_the_public_names_are_there_and_imported_when_they_are_used():
    script = (
        "import sys, nnunetv2_levit as package\n"
        "print(set(package.__all__) <= set(dir(package)), len(package.list_networks()), len(package.list_trainers()),"
        "sorted({'torch', 'nnunetv2', 'timm'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == f"True {len(nnunetv2_levit.list_networks())} 2 []"
    assert done.stderr == ""
    for name in nnunetv2_levit.__all__:
        assert getattr(nnunetv2_levit, name).__name__ == name
    with pytest.raises(AttributeError, match="no attribute 'convrt'"):
        nnunetv2_levit.convrt  # noqa: B018


def test_a_subcommand_is_a_module_of_its_name():
    for module in cli.SUBCOMMANDS:
        assert module.HELP
        assert callable(module.run)
    folder = {path.stem for path in Path(cli.__file__).parent.glob("*.py")}
    assert {module.__name__.rpartition(".")[2] for module in cli.SUBCOMMANDS} | set(cli.PASSED_THROUGH) <= folder


def test_bad_flags_end_with_code_2(capsys):
    with pytest.raises(SystemExit) as stop:
        cli.main(["convert", "unknown", "-i", "x", "-d", "1"])
    assert stop.value.code == 2
