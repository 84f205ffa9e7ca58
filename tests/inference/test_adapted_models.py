"""Trained models whose plans name the adapter: loaded, predicted and refused as those of nnU-Net's own network."""

import json

import numpy as np
import pytest

from nnunetv2_levit.any_network import ADAPTER
from nnunetv2_levit.errors import UserError
from nnunetv2_levit.inference.predict import predict
from nnunetv2_levit.nnunet.environment import VARIABLE, plugin_folder
from nnunetv2_levit.nnunet.trained_model import load_trained_model
from tests.inference.model_folders import write_case, write_model_folder
from tests.network_check import broken_networks as nets

SEGRESNET = {"spatial_dims": 2, "in_channels": "{channels}", "out_channels": "{classes}"}


def architecture(network, arguments):
    keywords = {"network": network, "arguments": arguments, "image_size": [40, 52], "size_multiple": 8}
    return {"network_class_name": ADAPTER, "arch_kwargs": keywords, "_kw_requires_import": []}


@pytest.fixture(scope="module", params=["nnUNetTrainer", "HybridRecipeTrainer"])
def model(request, tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(VARIABLE, str(plugin_folder()))
        return write_model_folder(
            tmp_path_factory.mktemp("trained") / "model",
            trainer=request.param,
            patch_size=(40, 52),
            architecture=architecture("monai.networks.nets.SegResNet", SEGRESNET),
        )


def test_two_folds_are_predicted(model, tmp_path):
    write_case(tmp_path / "images", "a", np.random.default_rng(0).random((2, 30, 60)) * 200)
    done = predict(
        model=model, images=tmp_path / "images", output=tmp_path / "out", folds=(0, 1), device="cpu",
        preprocessing_workers=0, exporting_workers=0,
    )  # fmt: skip
    assert [path.name for path in done] == ["a.nii.gz"]


def test_a_persons_own_network_asks_for_trust(tmp_path):
    arguments = {"in_channels": "{channels}", "num_classes": "{classes}"}
    folder = write_model_folder(
        tmp_path / "model",
        patch_size=(40, 52),
        folds=(0,),
        architecture=architecture(f"{nets.__name__}.Good", arguments),
    )
    with pytest.raises(UserError, match=r"names tests.network_check.broken_networks.Good, which .*--trust-checkpoint"):
        load_trained_model(folder, folds=(0,))
    trained = load_trained_model(folder, folds=(0,), trust_checkpoint=True)
    assert type(trained.network.network) is nets.Good


@pytest.mark.parametrize("adapted", [True, False], ids=["adapter", "direct"])
def test_a_missing_package_is_named(adapted, model, tmp_path):
    """On a machine without the network's package: as that of the plans, of which torch knows nothing."""
    plans = json.loads((model / "plans.json").read_text())
    named = plans["configurations"]["2d"]["architecture"]
    if adapted:
        named["arch_kwargs"]["network"] = "nowhere.nets.Net"
    else:
        named["network_class_name"] = "nowhere.nets.Net"
    copied = tmp_path / "model"
    (copied / "fold_0").mkdir(parents=True)
    (copied / "plans.json").write_text(json.dumps(plans))
    (copied / "dataset.json").write_bytes((model / "dataset.json").read_bytes())
    (copied / "fold_0" / "checkpoint_final.pth").symlink_to(model / "fold_0" / "checkpoint_final.pth")
    with pytest.raises(UserError, match="needs the package nowhere, which is not installed here"):
        load_trained_model(copied, folds=(0,), trust_checkpoint=True)
