import numpy as np
import pytest
import SimpleITK as sitk
import torch

from nnunetv2_levit import cli, demo
from nnunetv2_levit.dataset_conversion.cine_phantom import write_phantom
from nnunetv2_levit.network_architectures import create


def test_dice_by_hand():
    truth = np.array([[1, 1, 0], [2, 0, 0]])
    prediction = np.array([[1, 0, 0], [2, 2, 1]])
    assert demo.dice(prediction, truth, 1) == pytest.approx(2 * 1 / (2 + 2))
    assert demo.dice(prediction, truth, 2) == pytest.approx(2 * 1 / (2 + 1))
    assert np.isnan(demo.dice(prediction, truth, 3))


def test_an_untrained_network_stays_under_0_3_on_the_phantom(tmp_path):
    """The demo's pass mark says something only if nothing is had for free."""
    source = write_phantom(tmp_path, patients=2)
    for seed in range(3):
        torch.manual_seed(seed)
        network = create("levit_unet_128s", in_channels=1, num_classes=4, image_size=(96, 96)).eval()
        scores = []
        for path in source.rglob("*_gt.nii.gz"):
            truth = sitk.GetArrayFromImage(sitk.ReadImage(str(path)))
            image = sitk.GetArrayFromImage(sitk.ReadImage(str(path).replace("_gt", ""))).astype(np.float32)
            image = torch.from_numpy((image - image.mean()) / image.std())[:, None]
            with torch.no_grad():
                prediction = network(image).argmax(1).numpy()
            scores += [demo.dice(prediction, truth, label) for label in demo.STRUCTURES.values()]
        assert np.mean(scores) < 0.3


def test_the_report_is_drawn(tmp_path):
    truth = np.zeros((3, 20, 24), np.uint8)
    truth[:, 5:10, 5:10], truth[:, 10:15, 5:10], truth[:, 5:10, 12:20] = 1, 2, 3
    folders = {name: tmp_path / name for name in ("images", "truths", "predictions")}
    for name, folder in folders.items():
        folder.mkdir()
        file = "a_0000.nii.gz" if name == "images" else "a.nii.gz"
        sitk.WriteImage(sitk.GetImageFromArray(truth), str(folder / file))
    scores = demo._score(folders["predictions"], folders["truths"])
    assert scores == {"a": {"RV": 1.0, "MYO": 1.0, "LV": 1.0}}
    demo._draw_report(scores, folders["images"], folders["truths"], folders["predictions"], tmp_path / "report.png")
    assert (tmp_path / "report.png").stat().st_size > 10_000


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
    monkeypatch.setattr(
        demo._Chain, "run", lambda self, *words: real_run(self, words[0], "convert", "acdc", "-i", "no")
    )
    with pytest.raises(SystemExit) as stop:
        cli.main(["demo", "--output", str(tmp_path / "out")])
    assert stop.value.code == 2
    assert "1_nnunetv2_levit.txt" in capsys.readouterr().err
    assert not (tmp_path / "out" / "scores.json").exists()


def test_real_patients_are_chosen_evenly(real_acdc, tmp_path):
    source = demo._prepare_source(tmp_path, real_acdc, 20)
    names = sorted(path.name for path in (source / "training").iterdir())
    assert len(names) == 20
    groups = [(source / "training" / name / "Info.cfg").read_text().split("Group:")[1].strip() for name in names]
    assert min(groups.count(group) for group in set(groups)) >= 3
