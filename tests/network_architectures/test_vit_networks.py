"""What the networks with a vision transformer share, and their parts."""

import pytest
import timm
import torch
from safetensors.torch import save_file
from torch._subclasses.fake_tensor import FakeTensorMode

from nnunetv2_levit.errors import UserError
from nnunetv2_levit.network_architectures import create
from nnunetv2_levit.network_architectures.vit_hybrids.fusion import BiFusion, ChannelGate, SpatialGate
from nnunetv2_levit.network_architectures.vit_hybrids.resnetv2_encoder import ResNetV2Encoder
from nnunetv2_levit.network_architectures.vit_hybrids.vit_encoder import ViTEncoder, resize_position_embedding


def build(name, image_size=(64, 80), in_channels=1, num_classes=4, **options):
    torch.manual_seed(0)
    return create(name, in_channels=in_channels, num_classes=num_classes, image_size=image_size, **options)


@pytest.mark.parametrize(
    ("name", "classes", "image_size", "count"),
    [
        # the reference carries 384 more, its class token, which never gets a gradient
        ("transfuse_s", 1, (192, 256), 26_248_725 - 384),
        ("transfuse_s", 1, (352, 352), 26_360_853 - 384),
        ("transunet", 9, (224, 224), 105_277_081),
        ("transunet_3blocks", 9, (224, 224), 41_486_233),
        ("transunet_1block", 9, (224, 224), 27_310_489),
        ("unetr2d", 9, (224, 224), 111_817_033),
        ("unetr2d_3blocks", 9, (224, 224), 27_816_905),
        ("unetr2d_1block", 9, (224, 224), 13_641_161),
        ("cats2d", 9, (224, 224), 136_813_449),
        ("cats2d_3blocks", 9, (224, 224), 53_153_609),
    ],
)
def test_parameter_counts(name, classes, image_size, count):
    with torch.device("meta"):
        network = build(
            name, image_size, in_channels=3, num_classes=classes, auxiliary_heads=name.startswith("transfuse")
        )
    assert sum(p.numel() for p in network.parameters()) == count


def test_transfuse_l_has_the_papers_millions():
    with torch.device("meta"):
        network = build("transfuse_l", (192, 256), in_channels=3, num_classes=1, auxiliary_heads=True)
    assert round(sum(p.numel() for p in network.parameters()) / 1e6, 2) == pytest.approx(129.48, abs=0.03)


def test_position_embeddings_are_resized_bilinearly_with_aligned_corners():
    table = torch.tensor([[0.0, 1.0, 2.0, 10.0, 11.0, 12.0]]).view(1, 6, 1)
    resized = resize_position_embedding(table, old_grid=(2, 3), new_grid=(3, 5))
    expected = [[0, 0.5, 1, 1.5, 2], [5, 5.5, 6, 6.5, 7], [10, 10.5, 11, 11.5, 12]]
    torch.testing.assert_close(resized.view(3, 5), torch.tensor(expected))
    assert resize_position_embedding(table, old_grid=(2, 3), new_grid=(2, 3)) is table
    with pytest.raises(ValueError, match="do not belong to a grid of 3x3"):
        resize_position_embedding(table, old_grid=(3, 3), new_grid=(2, 3))


def test_an_image_of_another_size_gets_resized_positions():
    small, large = (ViTEncoder(in_channels=1, grid=g, width=12, heads=2, blocks=2).eval() for g in ((2, 3), (4, 4)))
    state = small.state_dict()
    state["pos_embed"] = resize_position_embedding(state["pos_embed"], old_grid=(2, 3), new_grid=(4, 4))
    large.load_state_dict(state)
    x = torch.randn(1, 1, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(small(x)[0], large(x)[0])


def test_taps_are_not_normed_and_the_last_output_is():
    encoder = ViTEncoder(in_channels=1, grid=(2, 3), width=12, heads=2, blocks=3, taps=(1, 3)).eval()
    with torch.no_grad():
        first, third, last = encoder(torch.randn(1, 1, 32, 48))
        assert first.shape == third.shape == last.shape == (1, 12, 2, 3)
        torch.testing.assert_close(encoder.norm(third.flatten(2).transpose(1, 2)), last.flatten(2).transpose(1, 2))
    assert not torch.equal(first, third)


@pytest.mark.parametrize("name", ["transfuse_s", "unetr2d_1block"])
def test_a_checkpoint_of_another_patch_size_fits(name):
    source, target = build(name, (96, 64)), build(name, (64, 160))
    target.load_state_dict(target.adapt_state_dict(source.state_dict(), image_size=(96, 64)))
    table = source.vit.pos_embed.view(6, 4, -1)
    torch.testing.assert_close(target.vit.pos_embed.view(4, 10, -1)[::3, ::9], table[::5, ::3])


@pytest.mark.parametrize("name", ["transfuse_s", "unetr2d_1block", "transunet_1block", "cats2d_1block"])
def test_only_dropout_makes_training_passes_random(name):
    images = torch.randn(2, 1, 64, 80)
    for dropout in (None, 0.0):
        network = build(name, blocks=1, **({} if dropout is None else {"dropout": dropout}))
        with torch.no_grad():
            first, second = network(images), network(images)
        assert torch.equal(first, second) == (dropout == 0)


def test_transunets_encoder_pads_only_the_skip():
    encoder = ResNetV2Encoder(1).eval()
    with torch.no_grad():
        maps = encoder(torch.randn(1, 1, 96, 64))
    assert [tuple(m.shape[1:]) for m in maps] == [(64, 48, 32), (256, 24, 16), (512, 12, 8), (1024, 6, 4)]
    assert maps[1][:, :, -1].abs().max() == maps[1][:, :, :, -1].abs().max() == 0
    assert maps[1][:, :, -2].abs().max() > 0


@pytest.mark.parametrize(
    ("name", "module"), [("transunet_1block", "cnn"), ("transfuse_lstar", "cnn"), ("unetr2d_1block", "vit")]
)
def test_norms_of_the_encoders_stay_in_fp16_under_cudas_autocast(name, module):
    """On tensors that pretend to be there; CUDA's autocast computes norms in fp32, a CPU's does not."""
    encoder = getattr(build(name, blocks=1), module)
    seen = []
    for part in encoder.modules():
        part.register_forward_hook(lambda part, _, out: seen.append((type(part).__name__, out)))
    with FakeTensorMode(), torch.device("cuda"), torch.no_grad():
        for part in encoder.modules():
            for tensors in (part._parameters, part._buffers):
                tensors |= {key: torch.empty(value.shape) for key, value in tensors.items() if value is not None}
        torch.set_autocast_dtype("cuda", torch.half)
        torch.set_autocast_enabled("cuda", True)
        try:
            encoder(torch.randn(1, 1, 64, 80))
        finally:
            torch.set_autocast_enabled("cuda", False)
            torch.clear_autocast_cache()
    norms = [(kind, out.dtype) for kind, out in seen if "Norm" in kind]
    assert len(norms) > 2
    assert {dtype for _, dtype in norms} == {torch.half}, norms


def test_gates_by_hand():
    x = torch.tensor([[[[1.0]], [[3.0]]]])
    spatial = SpatialGate().eval()
    spatial.mix.conv.weight.data.zero_()
    spatial.mix.conv.weight.data[0, :, 3, 3] = torch.tensor([1.0, 10.0])  # of the maximum 3 and the mean 2
    with torch.no_grad():
        weight = torch.sigmoid(torch.tensor(23.0 / (1 + spatial.mix.bn.eps) ** 0.5))
        torch.testing.assert_close(spatial(x), x * weight)
        channel = ChannelGate(2, reduction=1)
        for layer in (channel.fc1, channel.fc2):
            layer.weight.data.copy_(torch.eye(2).view(2, 2, 1, 1))
            layer.bias.data.zero_()
        torch.testing.assert_close(channel(x), x * torch.sigmoid(x))


def test_dropout_after_a_fusion_acts_in_training_alone():
    fusion = BiFusion(cnn_width=16, transformer_width=8, reduction=2, dropout=0.5)
    maps = torch.randn(2, 16, 4, 4), torch.randn(2, 8, 4, 4)
    torch.manual_seed(0)
    dropped = (fusion(*maps).abs().sum((2, 3)) == 0).sum()
    assert 0 < dropped < 32
    assert (fusion.eval()(*maps).abs().sum((2, 3)) == 0).sum() == 0


def timm_file(folder, name, **options):
    torch.manual_seed(0)
    model = timm.create_model(name, pretrained=False, **options)
    path = folder / f"{name}.safetensors"
    save_file(model.state_dict(), path)
    return model.state_dict(), path


def test_pretrained_branches_of_transfuse(tmp_path):
    cnn, cnn_path = timm_file(tmp_path, "resnet34")
    vit, vit_path = timm_file(tmp_path, "deit_small_patch16_224", depth=2)
    network = build("transfuse_s", blocks=2, pretrained=(cnn_path, vit_path))
    kernel = network.cnn.state_dict()["conv1.weight"]
    torch.testing.assert_close(kernel, cnn["conv1.weight"].sum(1, keepdim=True))
    torch.testing.assert_close(network.cnn.state_dict()["layer3.5.conv2.weight"], cnn["layer3.5.conv2.weight"])
    torch.testing.assert_close(network.vit.blocks[1].mlp.fc2.weight, vit["blocks.1.mlp.fc2.weight"])
    torch.testing.assert_close(network.vit.pos_embed[0, 0], vit["pos_embed"][0, 1])  # after the class token's
    report = network.pretrained_report
    assert not any(name.startswith(("cnn.", "vit.")) for name in report.random)
    assert {name.split(".")[0] for name in report.unused} == {"layer4", "fc", "cls_token", "head"}
    assert "from 3 to 1 channels" in report.summary()
    assert "14x14 to 4x5 tokens" in report.summary()
    with pytest.raises(UserError, match=r"2 checkpoints, in this order: resnet34\.tv_in1k, deit_small"):
        build("transfuse_s", pretrained=cnn_path)
    with pytest.raises(UserError, match=r"lacks blocks\.2"):
        build("transfuse_s", pretrained=(cnn_path, vit_path))


def test_nested_names_of_resnetv2_are_found(tmp_path):
    state, path = timm_file(tmp_path, "resnetv2_50x1_bit")
    with torch.device("meta"):
        network = build("transfuse_lstar", blocks=1)
    names = {name: network.pretrained_parts[0].timm_name(name) for name in network.state_dict() if "cnn." in name}
    assert set(names.values()) <= set(state)
    assert all(network.state_dict()[ours].shape[2:] == state[theirs].shape[2:] for ours, theirs in names.items())
    assert path.is_file()


def test_timms_hybrid_maps_onto_transunet_one_to_one(tmp_path):
    state, path = timm_file(tmp_path, "vit_base_r50_s16_224", depth=1)
    network = build("transunet_1block", (224, 192), in_channels=3, pretrained=path)
    report = network.pretrained_report
    assert all(name.startswith("decoder.") for name in report.random)
    assert set(report.unused) <= {"cls_token", "head.weight", "head.bias"}
    assert list(report.adapted) == ["vit.pos_embed"]
    ours = network.cnn.stages[2].blocks[8].conv3.weight
    torch.testing.assert_close(ours, state["patch_embed.backbone.stages.2.blocks.8.conv3.weight"])
    torch.testing.assert_close(network.vit.blocks[0].attn.qkv.weight, state["blocks.0.attn.qkv.weight"])


@pytest.mark.parametrize(
    ("name", "options", "words"),
    [
        ("transunet", {"blocks": 13}, "1 to 12 transformer blocks, not 13"),
        ("unetr2d", {"blocks": 0}, "1 to 12 transformer blocks, not 0"),
        ("transfuse_s", {"blocks": 9}, "1 to 8 transformer blocks"),
        ("levit_unet_128s", {"blocks": 5}, "1 to 4 transformer blocks"),
        ("unet2022_tiny", {"blocks": 4}, "1 to 3 transformer blocks"),
        ("cats2d", {"resnet": "resnet18"}, "resnet50 and resnet34"),
    ],
)
def test_what_cannot_be_built_is_refused_with_a_sentence(name, options, words):
    with pytest.raises(UserError, match=words):
        build(name, **options)
