import json

import numpy as np
import pytest
import SimpleITK as sitk
import torch

from nnunetv2_levit import cli, demo
from nnunetv2_levit.dataset_conversion import acdc
from nnunetv2_levit.dataset_conversion.cine_phantom import write_phantom
from nnunetv2_levit.errors import UserError
from nnunetv2_levit.network_architectures import create


def evaluated(folder):
    """The mean DSC of ``folder/predictions`` against ``folder/labelsTr``, as the demo has it: by `evaluate`."""
    description = {"labels": acdc.DESCRIPTION.labels, "file_ending": ".nii.gz", "channel_names": {"0": "MRI"}}
    (folder / "dataset.json").write_text(json.dumps(description))
    output = folder / "evaluation"
    places = ["-p", folder / "predictions", "-g", folder / "labelsTr", "-o", output]
    cli.main(["evaluate", *map(str, places)])
    return demo._mean_dsc(output / "evaluation.json")


def write_like(array, reference, path):
    image = sitk.GetImageFromArray(array.astype(np.uint8))
    image.CopyInformation(reference)
    path.parent.mkdir(exist_ok=True)
    sitk.WriteImage(image, str(path))


def test_an_untrained_network_stays_under_0_3_on_the_phantom(tmp_path):
    """The demo's pass mark says something only if nothing is had for free."""
    source = write_phantom(tmp_path / "source", patients=2)
    for seed in range(3):
        torch.manual_seed(seed)
        network = create("levit_unet_128s", in_channels=1, num_classes=4, image_size=(96, 96)).eval()
        for path in source.rglob("*_gt.nii.gz"):
            truth, image = (sitk.ReadImage(str(file)) for file in (path, str(path).replace("_gt", "")))
            array = sitk.GetArrayFromImage(image).astype(np.float32)
            slices = torch.from_numpy((array - array.mean()) / array.std())[:, None]
            with torch.no_grad():
                prediction = network(slices).argmax(1).numpy()
            write_like(prediction, truth, tmp_path / "predictions" / path.name)
            write_like(sitk.GetArrayFromImage(truth), truth, tmp_path / "labelsTr" / path.name)
        assert evaluated(tmp_path) < 0.3


def test_the_mean_dsc_is_that_of_evaluate(tmp_path):
    truth = np.zeros((3, 20, 24))
    truth[:, 5:10, 5:10], truth[:, 10:15, 5:10], truth[:, 5:10, 12:20] = 1, 2, 3
    prediction = np.where(truth == 1, 0, truth)
    for name, array in (("labelsTr", truth), ("predictions", prediction)):
        image = sitk.GetImageFromArray(array)
        write_like(array, image, tmp_path / name / "a.nii.gz")
    assert evaluated(tmp_path) == pytest.approx(2 / 3)


@pytest.mark.parametrize(("mean", "passes"), [(demo.PASS_MARK, True), (0.95, True), (0.3, False), (0.0, False)])
def test_the_pass_mark(mean, passes, tmp_path):
    if passes:
        demo._check_pass_mark(mean, tmp_path)
        return
    with pytest.raises(UserError, match=str(tmp_path)):
        demo._check_pass_mark(mean, tmp_path)


@pytest.mark.parametrize("flags", [("--data", "absent"), ()])
def test_a_folder_of_somebody_else_is_left_alone(tmp_path, capsys, monkeypatch, flags):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.txt").touch()
    with pytest.raises(SystemExit) as stop:
        cli.main(["demo", "--output", str(tmp_path), *flags])
    assert stop.value.code == 2
    assert ("absent" if flags else "not made by the demo") in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_a_failing_step_names_its_log(tmp_path, capsys, monkeypatch):
    real_run = demo._Chain.run
    impossible = demo.Step("Converting nothing.", ("convert", "acdc", "-i", "no"))
    monkeypatch.setattr(demo._Chain, "run", lambda self, _: real_run(self, impossible))
    with pytest.raises(SystemExit) as stop:
        cli.main(["demo", "--output", str(tmp_path / "out")])
    assert stop.value.code == 2
    captured = capsys.readouterr()
    assert "1_convert.txt" in captured.err
    assert "Converting nothing." in captured.out
    assert not (tmp_path / "out" / "evaluation").exists()
    assert not (tmp_path / "out" / "report").exists()


def scripted(monkeypatch, *, mean):
    """Replace the commands by what run_demo reads of their results; returns the words of those that were run."""
    ran = []

    def run(self, words, log):
        ran.append(words)
        output = log.parent.parent
        if words[1] == "convert":
            raw = output / "nnunet" / "raw" / "Dataset027_ACDC"
            (raw / "imagesTr").mkdir(parents=True)
            (raw / "imagesTr" / "a_0000.nii.gz").touch()
            (raw / "splits_final.json").write_text(json.dumps([{"train": ["b"], "val": ["a"]}]))
        if words[1] == "evaluate":
            (output / "evaluation").mkdir()
            (output / "evaluation" / "evaluation.json").write_text("{}")
        return 0

    monkeypatch.setattr(demo._Chain, "_run", run)
    monkeypatch.setattr(demo, "_mean_dsc", lambda _: mean)
    return ran


def test_the_demo_walks_the_packages_own_way_and_says_so(tmp_path, capsys, monkeypatch):
    ran = scripted(monkeypatch, mean=0.9)
    cli.main(["demo", "--output", str(tmp_path / "out")])
    steps = [words[1] for words in ran]
    assert steps == ["convert", "plan", "configure", "train", "predict", "evaluate", "report"]
    assert {words[0] for words in ran} == {"nnunetv2_levit"}
    parser = cli.build_parser()
    for words in ran:
        if words[1] not in ("plan", "train"):  # whose flags are nnU-Net's
            parser.parse_args(words[1:])
    assert [path.name for path in (tmp_path / "out" / "held_out_images").iterdir()] == ["a_0000.nii.gz"]
    said = capsys.readouterr().out
    for number, sentence in enumerate(["Converting", "Checking", "Adding", "Training", "Predicting", "Evaluating",
                                       "Writing the report"], 1):  # fmt: skip
        assert f"{number}. {sentence}" in said
    assert "mean DSC" in said
    assert "report.html" in said


def test_a_chain_under_the_pass_mark_fails(tmp_path, capsys, monkeypatch):
    scripted(monkeypatch, mean=0.4)
    with pytest.raises(SystemExit) as stop:
        cli.main(["demo", "--output", str(tmp_path / "out")])
    assert stop.value.code == 2
    assert "0.400 is under 0.7" in capsys.readouterr().err


def test_real_patients_are_chosen_evenly(real_acdc, tmp_path):
    source = tmp_path / "source"
    demo._prepare_source(source, data=real_acdc, patients=20)
    names = sorted(path.name for path in (source / "training").iterdir())
    assert len(names) == 20
    groups = [(source / "training" / name / "Info.cfg").read_text().split("Group:")[1].strip() for name in names]
    assert min(groups.count(group) for group in set(groups)) >= 3
