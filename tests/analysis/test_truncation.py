import json
import shutil
from pathlib import Path

import pytest
import SimpleITK as sitk
import torch

from nnunetv2_levit import cli, trainers
from nnunetv2_levit.analysis.truncation import as_text, transfer
from nnunetv2_levit.network_architectures import create
from tests.conftest import DATASET_ID
from tests.support.nnunet_programs import call_program

CONFIGURATION = "2d_p48x40"


@pytest.fixture
def trained(preprocessed, monkeypatch, tmp_path):
    """Function that writes a trained-model folder of two folds, random but for the state that training leaves."""
    for name, value in preprocessed.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("nnUNet_results", str(tmp_path / "results"))
    (source,) = Path(preprocessed["nnUNet_preprocessed"]).glob(f"Dataset{DATASET_ID:03d}_*")

    def make(name):
        plans = json.loads((source / "nnUNetPlans.json").read_text())
        dataset = json.loads((source / "dataset.json").read_text())
        cls = trainers.trainer_class(name)
        for fold in (0, 1):
            torch.manual_seed(fold)
            arguments = {**plans, "continue_training": False}
            trainer = cls(arguments, CONFIGURATION, fold, dataset, torch.device("cpu"))
            trainer.initialize()
            trainer.save_checkpoint(str(Path(trainer.output_folder) / "checkpoint_final.pth"))
        model = Path(trainer.output_folder_base)
        (model / "plans.json").write_text(json.dumps(plans))
        (model / "dataset.json").write_text(json.dumps(dataset))
        return model

    return make


def weights(model, fold=0):
    return torch.load(model / f"fold_{fold}" / "checkpoint_final.pth", weights_only=False)


@pytest.mark.parametrize(
    ("name", "blocks", "fresh"),
    [
        ("levit_unet_384", 2, []),
        ("unet2022_tiny", 1, []),
        ("transfuse_s", 3, []),
        ("transunet", 3, []),
        ("unetr2d", 3, ["decoder.half_conv.conv1.weight"]),
        (
            "cats2d",
            3,
            # the only branch starts at the fused map here, and the level at 1/2 has other widths
            ["branches.0.0.up.weight"],
        ),
        ("unetr2d_3blocks", 1, []),
    ],
)
def test_what_a_smaller_network_shares_with_the_trained_one(name, blocks, fresh):
    arguments = dict(in_channels=1, num_classes=4, image_size=(64, 80))
    with torch.device("meta"):
        whole, small = create(name, **arguments), create(name, blocks=blocks, **arguments)
        state, anew = transfer(whole.state_dict(), small)
    assert list(state) == list(small.state_dict())
    others = [key for key in anew if key not in fresh]
    if name == "cats2d":
        assert all(key.startswith(("decoder.half_conv", "decoder.image_up")) for key in others)
    else:
        assert others == []
    assert set(fresh) <= set(anew)
    assert not any("blocks" in key or ".seg_layers." in key for key in anew)


def test_transferred_tensors_are_the_trained_ones_and_others_stay():
    trained = {"weight": torch.randn(2, 3), "bias": torch.randn(5), "gone": torch.randn(1)}
    network = torch.nn.Linear(3, 2)
    state, anew = transfer(trained, network)
    assert torch.equal(state["weight"], trained["weight"])
    assert torch.equal(state["bias"], network.bias)
    assert anew == ["bias"]


@pytest.mark.parametrize(
    ("name", "blocks", "truncated", "kept"),
    [
        ("LeViTUNetTrainer_128s", 2, "LeViTUNetTrainer_128s_blocks2", "encoder.stages.2.blocks.1."),
        ("UNet2022Trainer_nods", 1, "UNet2022Trainer_blocks1_nods", "decoder.stages.0.0."),
    ],
)
def test_blocks_of_each_stage(trained, tmp_path, capsys, name, blocks, truncated, kept):
    model, output = trained(name), tmp_path / "small"
    cli.main(["truncate", "-m", str(model), "--blocks", str(blocks), "-o", str(output)])
    report = json.loads((output / "truncation.json").read_text())
    assert f"{name} -> {truncated}" in capsys.readouterr().out
    assert report["folds"] == ["0", "1"]
    assert report["after"]["parameters"] < report["before"]["parameters"]
    assert report["after"]["gmac_per_image"] < report["before"]["gmac_per_image"]
    assert report["tensors_initialised_anew"] == []
    for fold in (0, 1):
        before, after = weights(model, fold), weights(output, fold)
        assert after["trainer_name"] == truncated
        assert "optimizer_state" not in after
        state = after["network_weights"]
        assert any(key.startswith(kept) for key in state)
        assert len(state) < len(before["network_weights"])
        assert all(torch.equal(value, before["network_weights"][key]) for key, value in state.items())


def test_the_printed_commands_name_the_checkpoint(tmp_path):
    output = tmp_path / "my model"
    (output / "fold_0").mkdir(parents=True)
    (output / "fold_0" / "checkpoint_best.pth").touch()
    figures = {"parameters": 1, "gmac_per_image": 1, "images_per_second": 1}
    report = {"trainer_before": "A", "trainer_after": "B", "patch_size": [32, 32], "device": "CPU", "folds": ["0"],
              "before": figures, "after": figures, "tensors_taken_over": 1, "tensors_initialised_anew": []}  # fmt: skip
    predict, tune = as_text(report, output).splitlines()[-2:]
    assert predict.endswith(f"-m '{output}' -i IMAGES -o PREDICTIONS -f 0 -chk checkpoint_best.pth")
    assert tune.endswith(f"-pretrained_weights '{output}/fold_0/checkpoint_best.pth'")


@pytest.mark.slow
def test_a_truncated_model_predicts_and_is_fine_tuned_by_nnunet(trained, preprocessed, tmp_path, capsys):
    model, trainer = (
        trained("TransUNetTrainer_3blocks_1iterations_1epochs"),
        "TransUNetTrainer_1block_1iterations_1epochs",
    )
    (dataset,) = Path(preprocessed["nnUNet_raw"]).glob("Dataset*")
    output = tmp_path / "truncated" / dataset.name / f"{trainer}__nnUNetPlans__{CONFIGURATION}"
    output.parent.mkdir(parents=True)
    cli.main(["truncate", "-m", str(model), "--blocks", "1", "-o", str(output)])
    printed = capsys.readouterr().out
    assert f"-tr {trainer} -pretrained_weights {output / 'fold_0' / 'checkpoint_final.pth'}" in printed
    state = weights(output)["network_weights"]
    assert {key.split(".")[2] for key in state if key.startswith("vit.blocks.")} == {"0"}

    images = tmp_path / "images"
    images.mkdir()
    source = sorted((dataset / "imagesTr").iterdir())[0]
    (images / source.name).symlink_to(source)
    call_program(
        *("nnUNetv2_predict", "-d", DATASET_ID, "-i", images, "-o", tmp_path / "predictions", "-c", CONFIGURATION),
        *("-tr", trainer, "-f", 0, 1, "-device", "cpu", "-npp", "0", "-nps", "0"),
        environment={**preprocessed, "nnUNet_results": str(tmp_path / "truncated")},
    )
    (segmentation,) = (tmp_path / "predictions").glob("*.nii.gz")
    assert sitk.ReadImage(str(segmentation)).GetSize() == sitk.ReadImage(str(source)).GetSize()

    said = call_program(
        *("nnUNetv2_train", DATASET_ID, CONFIGURATION, 0, "-tr", trainer, "-device", "cpu"),
        *("-pretrained_weights", output / "fold_0" / "checkpoint_final.pth"),
        environment={**preprocessed, "nnUNet_results": str(tmp_path / "results"), "nnUNet_n_proc_DA": "0"},
    )
    assert "everything but the segmentation heads" in said
    (tuned,) = (tmp_path / "results").glob(f"*/{trainer}__*")
    assert weights(tuned)["trainer_name"] == trainer


def test_what_cannot_be_truncated_is_refused_with_a_sentence(trained, tmp_path, capsys):
    model, output = trained("LeViTUNetTrainer_128s_blocks2"), tmp_path / "small"

    def refused(*arguments):
        with pytest.raises(SystemExit) as stop:
            cli.main(["truncate", "-m", str(model), "-o", str(output), "--blocks", *arguments])
        assert stop.value.code == 2
        assert not list(tmp_path.glob("*small*"))
        return capsys.readouterr().err

    assert "no more than 2 transformer blocks" in refused("2")
    assert "1 to 4 transformer blocks" in refused("9")
    assert "no fold with a checkpoint_best.pth" in refused("1", "-chk", "checkpoint_best.pth")
    (model / "fold_0" / "checkpoint_final.pth").write_bytes(b"x")
    assert "can't be loaded" in refused("1")
    shutil.rmtree(model / "fold_0")
    foreign = weights(model, 1) | {"trainer_name": "nnUNetTrainer"}
    torch.save(foreign, model / "fold_1" / "checkpoint_final.pth")
    assert "can't be loaded as a trained model" in refused("1")
    (model / "plans.json").unlink()
    assert "plans.json does not exist" in refused("1")
    output.mkdir()
    with pytest.raises(SystemExit):
        cli.main(["truncate", "-m", str(model), "-o", str(output), "--blocks", "1"])
    assert "exists already" in capsys.readouterr().err
