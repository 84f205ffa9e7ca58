"""Options of networks that no paper has: they keep the contract, and the faithful network stays as it was."""

from types import SimpleNamespace

import pytest
import torch
from torch import nn

from nnunetv2_levit.network_architectures.folding import fold_batch_norm
from nnunetv2_levit.trainers.naming import trainer_class

OPTIONS = [
    *(f"LeViTUNetTrainer_128s_{o}" for o in ("instancenorm", "groupnorm", "tokenln")),
    "LeViTUNetTrainer_128s_blocks1_instancenorm_tokenln_ds",
    "LeViTUNetTrainer_128s_conv_skips0_instancenorm",
    "LeViTUNetTrainer_128s_unetlevels_ds",
    "LeViTUNetTrainer_128s_conv_unetlevels",
    "UNETR2DTrainer_blocks2_convstem_primus",
    "CATS2DTrainer_1block_r34_convstem",
    "TransFuseTrainer_blocks1_unetlevels",
    "TransUNetTrainer_1block_unetlevels",
    "UNETR2DTrainer_1block_convstem_unetlevels_ds",
    "CATS2DTrainer_unetlevels",
]


def build(name, size=(64, 80)):
    torch.manual_seed(0)
    cls = trainer_class(name)
    return cls.build_network_architecture(None, SimpleNamespace(patch_size=size), 2, 3, cls.trains_all_outputs())


@pytest.mark.parametrize("name", [*OPTIONS, "UNet2022Trainer_blocks1_unetlevels"])
def test_any_size_gives_logits_of_that_size_and_folding_changes_nothing(name):
    for size in ((32, 32), (97, 131)):
        network = build(name, size).eval()
        network.deep_supervision = False
        images = torch.randn(2, 2, *size)
        with torch.no_grad():
            logits = network(images)
            assert logits.shape == (2, 3, *size)
            torch.testing.assert_close(fold_batch_norm(network)(images), logits, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("name", OPTIONS)
def test_it_is_the_faithful_network_and_what_the_option_adds(name):
    family = name.split("_")[0]
    faithful = ("128s", "conv", "skips0", "blocks1", "blocks2", "1block", "r34", "ds")
    words = [word for word in name.split("_")[1:] if word in faithful]
    plain, changed = (
        {key: value.shape for key, value in build(which).state_dict().items()}
        for which in ("_".join([family, *words]), name)
    )
    assert plain != changed
    transformer = {key for key in plain if ("vit.blocks" in key or "encoder.stages" in key) and key.endswith("weight")}
    assert {key for key in transformer if changed.get(key) != plain[key]} == set()


@pytest.mark.parametrize(
    ("option", "kind", "left"),
    [("instancenorm", nn.InstanceNorm2d, nn.BatchNorm1d), ("groupnorm", nn.GroupNorm, nn.BatchNorm1d)],
)
def test_the_norms_of_maps_are_replaced_and_those_of_tokens_are_not(option, kind, left):
    modules = list(build(f"LeViTUNetTrainer_128s_{option}").modules())
    assert not any(isinstance(module, nn.BatchNorm2d) for module in modules)
    assert any(isinstance(module, kind) for module in modules)
    assert any(isinstance(module, left) for module in modules)


def test_with_both_no_output_depends_on_the_other_images_of_a_batch():
    network = build("LeViTUNetTrainer_128s_instancenorm_tokenln").train()
    images = torch.randn(3, 2, 64, 80)
    together, alone = network(images)[:1], network(images[:1])
    torch.testing.assert_close(together, alone, rtol=1e-3, atol=1e-4)
    batch_norm = build("LeViTUNetTrainer_128s").train()
    assert not torch.allclose(batch_norm(images)[:1], batch_norm(images[:1]), rtol=1e-2, atol=1e-2)
