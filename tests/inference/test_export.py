import json
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
import SimpleITK as sitk
import torch

from nnunetv2_levit import cli
from nnunetv2_levit.errors import UserError
from nnunetv2_levit.inference import export
from nnunetv2_levit.inference.onnx_backend import OnnxBackend, to_onnx
from nnunetv2_levit.network_architectures import FAMILIES
from tests.inference.model_folders import write_case, write_model_folder
from tests.network_architectures.test_contract import build_shallow, randomise
from tests.network_check.broken_networks import BranchesOnValues

TRAINER = "LeViTUNetTrainer_128s_blocks1"


# As few blocks as hold everything: exporting a block takes time.
# docs/lab/experiments/export_all.py does all networks at their full depth.
@pytest.mark.parametrize("name", [family.smallest[0] for family in FAMILIES])
def test_one_network_of_each_family_is_the_same_in_onnx_runtime(name):
    network = randomise(build_shallow(name, image_size=(32, 48))).eval()
    if name.startswith("unet2022"):  # shifted windows in the first stage are enough
        for stages in (network.encoder.stages[1:], network.decoder.stages):
            for blocks in stages:
                del blocks[1]
    model = to_onnx(network, in_channels=1, image_size=(32, 48))
    if name != "transfuse_s":  # which has norms before convolutions
        assert not any("BatchNorm" in node.op_type for node in onnx.load_from_string(model).graph.node)
    backend = OnnxBackend(model)
    for batch in (1, 3):
        x = torch.randn(batch, 1, 32, 48)
        with torch.no_grad():
            expected = network(x)
        torch.testing.assert_close(backend(x), expected, rtol=0, atol=1e-4 * max(1, expected.abs().max().item()))
    with pytest.raises(UserError, match=r"\(N, 1, 32, 48\) and got \(1, 1, 48, 32\)"):
        backend(torch.zeros(1, 1, 48, 32))


def test_what_torch_can_not_export_is_one_sentence():
    with pytest.raises(UserError, match=r"exported to ONNX \(.*data-dependent.*\): let its forward have no") as said:
        to_onnx(BranchesOnValues(1, 2), in_channels=1, image_size=(32, 32))
    assert "\n" not in str(said.value)


def test_zeros_before_a_max_pool_count():
    network = torch.nn.Sequential(torch.nn.ZeroPad2d(1), torch.nn.MaxPool2d(3, 2)).eval()
    x = -1 - torch.rand(1, 1, 9, 9)
    pooled = OnnxBackend(to_onnx(network, in_channels=1, image_size=(9, 9)))(x)
    torch.testing.assert_close(pooled, network(x), rtol=0, atol=1e-6)


@pytest.fixture(scope="module")
def model_folder(tmp_path_factory):
    """A LeViT-UNet with random weights, as nnU-Net leaves a trained model."""
    folder = tmp_path_factory.mktemp("models") / f"{TRAINER}__nnUNetPlans__2d"
    (folder / "fold_0").mkdir(parents=True)
    configuration = {
        "data_identifier": "nnUNetPlans_2d",
        "patch_size": [32, 48],
        "spacing": [1.0, 1.0],
        "normalization_schemes": ["ZScoreNormalization"] * 2,
        "previous_stage": None,
        "architecture": {"network_class_name": "unused", "arch_kwargs": {}, "_kw_requires_import": []},
    }
    plans = {"dataset_name": "Dataset027_ACDC", "plans_name": "nnUNetPlans", "configurations": {"2d": configuration}}
    dataset = {"channel_names": {"0": "a", "1": "b"}, "labels": {"background": 0, "heart": 1}, "file_ending": ".nii.gz"}
    (folder / "plans.json").write_text(json.dumps(plans))
    (folder / "dataset.json").write_text(json.dumps(dataset))
    network = randomise(build_shallow("levit_unet_128s", in_channels=2, num_classes=2, image_size=(32, 48)))
    checkpoint = {
        "trainer_name": TRAINER,
        "init_args": {"configuration": "2d"},
        "inference_allowed_mirroring_axes": (0, 1),
        "network_weights": network.state_dict(),
    }
    torch.save(checkpoint, folder / "fold_0" / "checkpoint_final.pth")
    return folder, network.eval()


@pytest.fixture(scope="module")
def exported(model_folder, tmp_path_factory):
    target = tmp_path_factory.mktemp("export") / "new" / "model.onnx"
    cli.main(["export", "-m", str(model_folder[0]), "-o", str(target)])
    return target


def test_the_command_writes_a_checked_model_and_says_what_it_is(model_folder, exported):
    facts = json.loads(exported.with_suffix(".json").read_text())
    assert facts["input"] == ["batch", 2, 32, 48]
    assert facts["checked_on"] == "random images"
    assert 0 < facts["max_abs_difference"] < 1e-4 * max(1, facts["max_abs_logit"])
    x = torch.randn(2, 2, 32, 48)
    with torch.no_grad():
        expected = model_folder[1](x)
    torch.testing.assert_close(OnnxBackend(exported)(x), expected, rtol=0, atol=1e-4 * max(1, facts["max_abs_logit"]))
    assert sorted(path.name for path in exported.parent.iterdir()) == ["model.json", "model.onnx"]


def test_a_model_that_differs_from_torch_is_not_kept(model_folder, exported, tmp_path, monkeypatch):
    state = {name: value.clone() for name, value in model_folder[1].state_dict().items()}
    state["decoder.seg_layers.0.bias"] += 1
    trained = export.load_fold(model_folder[0], 0, "checkpoint_final.pth")
    trained.network.load_state_dict(state)
    monkeypatch.setattr(export, "load_fold", lambda *_, **__: trained)
    monkeypatch.setattr(export, "to_onnx", lambda *_, **__: exported.read_bytes())
    with pytest.raises(UserError, match="differ from torch's by 1"):
        export.export(model_folder[0], output=tmp_path / "m.onnx", fold=0, checkpoint="c")
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_slices_of_the_preprocessed_dataset_are_cut_and_padded_to_the_patch(preprocessed):
    (dataset,) = Path(preprocessed["nnUNet_preprocessed"]).glob("Dataset*")
    slices = export.real_slices(dataset / "nnUNetPlans_2d", patch_size=(96, 40))
    assert slices.shape == (3, 1, 96, 40)
    assert slices[:, :, :40].std() > 0.1
    assert (slices[:, :, 70:] == 0).all()


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["-f", "3"], "for fold 3: choose with -f among 0"),
        (["-chk", "best.pth"], "best.pth"),
        (["-o", "model.pt"], "does not end in .onnx"),
    ],
)
def test_bad_requests_are_one_sentence(model_folder, tmp_path, flags, words, capsys):
    with pytest.raises(SystemExit) as stop:
        cli.main(["export", "-m", str(model_folder[0]), "-o", str(tmp_path / "m.onnx"), *flags])
    assert stop.value.code == 2
    assert words in capsys.readouterr().err


def test_missing_packages_are_named(monkeypatch, tmp_path):
    monkeypatch.setattr(
        "importlib.util.find_spec", lambda name, find=sys.modules.get: None if name == "onnxruntime" else find(name)
    )
    monkeypatch.setitem(sys.modules, "onnxscript", sys)
    with pytest.raises(UserError, match=r"needs onnxruntime, .*nnunetv2_levit\[export\]"):
        OnnxBackend(tmp_path / "model.onnx")


def test_an_unreadable_file_is_one_sentence(tmp_path):
    (tmp_path / "model.onnx").write_text("no model")
    with pytest.raises(UserError, match="can't be read by ONNX Runtime"):
        OnnxBackend(tmp_path / "model.onnx")


def test_prediction_by_onnx_runtime_gives_the_labels_of_torch(tmp_path):
    model = write_model_folder(tmp_path / "model", folds=(0, 1), patch_size=(32, 32))
    write_case(tmp_path / "images", "heart", np.random.default_rng(0).random((2, 40, 30)) * 200)
    labels = []
    for backend in ("torch", "onnx"):
        flags = f"-f 0 1 -device cpu -npp 0 -nps 0 --disable_progress_bar --backend {backend}".split()
        out = tmp_path / backend
        cli.main(["predict", "-m", str(model), "-i", str(tmp_path / "images"), "-o", str(out), *flags])
        labels.append(sitk.GetArrayFromImage(sitk.ReadImage(str(out / "heart.nii.gz"))))
    assert len(np.unique(labels[0])) > 1
    assert (labels[0] == labels[1]).mean() >= 0.999


def test_prediction_by_onnx_runtime_is_on_the_cpu(tmp_path, capsys):
    folders = ["-m", str(tmp_path), "-i", str(tmp_path), "-o", str(tmp_path / "out")]
    with pytest.raises(SystemExit):
        cli.main(["predict", *folders, "-device", "cuda", "--backend", "onnx"])
    assert "not on cuda: add -device cpu" in capsys.readouterr().err
