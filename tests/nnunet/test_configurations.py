import json

import pytest
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

from nnunetv2_levit import cli

PLANS = {
    "plans_name": "nnUNetPlans",
    "configurations": {
        "2d": {
            "data_identifier": "nnUNetPlans_2d",
            "batch_size": 56,
            "patch_size": [256, 224],
            "spacing": [1.5, 1.5],
            "architecture": {"arch_kwargs": {"strides": [[1, 1], [2, 2], [2, 2], [2, 2], [2, 2], [2, 2]]}},
        },
        "3d_fullres": {"patch_size": [16, 256, 224], "batch_size": 2},
    },
}


@pytest.fixture
def plans_file(tmp_path, monkeypatch):
    monkeypatch.setenv("nnUNet_preprocessed", str(tmp_path))
    path = tmp_path / "Dataset027_ACDC" / "nnUNetPlans.json"
    path.parent.mkdir()
    path.write_text(json.dumps(PLANS))
    return path


def configure(*flags):
    cli.main(["configure", "-d", "27", *flags])


def test_the_papers_crop_is_one_more_configuration(plans_file):
    configure("--from", "2d", "--patch", "224", "224", "--batch", "8")
    configuration = PlansManager(str(plans_file)).get_configuration("2d_p224x224")
    assert configuration.patch_size == [224, 224]
    assert configuration.batch_size == 8
    assert configuration.data_identifier == "nnUNetPlans_2d"
    assert configuration.spacing == [1.5, 1.5]
    rest = json.loads(plans_file.read_text())
    del rest["configurations"]["2d_p224x224"]
    assert rest == PLANS
    configure("--patch", "224", "224", "--batch", "8")  # saying it again changes nothing
    assert [path.name for path in plans_file.parent.iterdir()] == ["nnUNetPlans.json"]


def test_names_and_overwriting(plans_file, capsys):
    configure("--patch", "96", "80")
    assert "batch_size" not in json.loads(plans_file.read_text())["configurations"]["2d_p96x80"]
    with pytest.raises(SystemExit):
        configure("--patch", "96", "80", "--batch", "4")
    assert "--overwrite" in capsys.readouterr().err
    configure("--patch", "96", "80", "--batch", "4", "--name", "2d_small")
    configure("--patch", "96", "80", "--batch", "6", "--overwrite")
    assert PlansManager(str(plans_file)).get_configuration("2d_p96x80").batch_size == 6
    assert PlansManager(str(plans_file)).get_configuration("2d_small").batch_size == 4


@pytest.mark.parametrize(("patch", "noted"), [(("224", "224"), False), (("40", "56"), True)])
def test_a_patch_that_nnunets_own_network_cannot_take_is_noted(plans_file, capsys, patch, noted):
    configure("--patch", *patch)
    assert ("note: nnU-Net's own U-Net" in capsys.readouterr().out) == noted


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (("--from", "2d_x", "--patch", "64", "64"), "no configuration '2d_x'"),
        (("--from", "3d_fullres", "--patch", "64", "64"), "not 2D"),
        (("--patch", "16", "64"), "16x64"),
        (("--patch", "64", "2048"), "64x2048"),
        (("--patch", "64", "64", "--batch", "1"), "below 2"),
        (("--patch", "64", "64", "--name", "a__b"), "'__'"),
        (("--patch", "64", "64", "-p", "otherPlans"), "otherPlans.json"),
        (("--patch", "64", "64", "-d", "28"), "id 28"),
    ],
)
def test_what_cannot_be_is_refused(plans_file, capsys, flags, words):
    before = plans_file.read_text()
    with pytest.raises(SystemExit) as stop:
        configure(*flags)
    assert stop.value.code == 2
    assert words in capsys.readouterr().err
    assert plans_file.read_text() == before


def test_a_broken_plans_file_is_named(plans_file, capsys):
    plans_file.write_text("{")
    with pytest.raises(SystemExit):
        configure("--patch", "64", "64")
    assert "nnUNetPlans.json is not a plans file" in capsys.readouterr().err
