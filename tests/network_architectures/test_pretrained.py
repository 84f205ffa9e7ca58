"""Pretrained weights, exercised on checkpoints that the tests write from timm's own models."""

import pytest
import timm
import torch
from safetensors.torch import save_file

from nnunetv2_levit.errors import UserError
from nnunetv2_levit.network_architectures import create
from nnunetv2_levit.network_architectures.pretrained import WEIGHTS_FOLDER_VARIABLE, find_weights, read_state_dict

TAG = "levit_128s.fb_dist_in1k"


@pytest.fixture(scope="module")
def classifier():
    """timm's classifier with weights at which nothing is zero."""
    torch.manual_seed(0)
    model = timm.create_model("levit_128s", pretrained=False)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return model.eval()


@pytest.fixture
def checkpoint(classifier, tmp_path):
    path = tmp_path / f"{TAG}.safetensors"
    save_file(classifier.state_dict(), path)
    return path


def build(image_size=(224, 224), in_channels=3, **options):
    return create("levit_unet_128s", in_channels=in_channels, num_classes=2, image_size=image_size, **options)


def test_the_encoder_computes_what_timms_does(classifier, checkpoint):
    network = build(pretrained=checkpoint).double().eval()
    x = torch.randn(1, 3, 224, 224, dtype=torch.float64)
    with torch.no_grad():
        expected = classifier.double().forward_intermediates(x, intermediates_only=True)
        _, maps = network.encoder(x)
        classifier.float()
    for ours, theirs in zip(maps, expected, strict=True):
        torch.testing.assert_close(ours, theirs)
    report = network.pretrained_report
    assert set(report.loaded) == {f"encoder.{name}" for name in network.encoder.state_dict()}
    assert {name.split(".")[0] for name in report.unused} == {"head", "head_dist"}
    assert not report.adapted


def test_one_channel_sums_the_kernels_and_a_pth_file_works_too(classifier, tmp_path):
    path = tmp_path / "weights.pth"
    torch.save({"model": classifier.state_dict()}, path)
    network = build(in_channels=1, pretrained=path)
    kernel = network.encoder.stem.conv1.linear.weight
    torch.testing.assert_close(kernel, classifier.stem.conv1.linear.weight.sum(1, keepdim=True))
    assert "3 to 1 channels" in network.pretrained_report.summary()


@pytest.mark.parametrize("policy", ["extend", "scale"])
def test_biases_follow_the_patch_size(classifier, checkpoint, policy):
    network = build(image_size=(256, 192), pretrained=checkpoint, bias_policy=policy)
    old = classifier.stages[0].blocks[0].attn.attention_biases
    new = network.encoder.stages[0].blocks[0].attn.attention_biases
    assert new.shape == (4, 16 * 12)
    torch.testing.assert_close(new[:, 0], old[:, 0])
    if policy == "extend":
        torch.testing.assert_close(new.view(4, 16, 12)[:, :14], old.view(4, 14, 14)[:, :, :12])
    assert policy in network.pretrained_report.summary()


def test_weights_of_the_convolutional_form_fit(classifier, tmp_path):
    state = {
        name: value[:, :, None, None] if value.ndim == 2 and name.endswith("linear.weight") else value
        for name, value in classifier.state_dict().items()
    }
    path = tmp_path / "conv.pth"
    torch.save(state, path)
    network = build(pretrained=path)
    torch.testing.assert_close(
        network.encoder.stages[0].blocks[0].attn.qkv.linear.weight,
        classifier.stages[0].blocks[0].attn.qkv.linear.weight,
    )


def test_a_tag_is_found_in_the_weights_folder(checkpoint, monkeypatch):
    monkeypatch.setenv(WEIGHTS_FOLDER_VARIABLE, str(checkpoint.parent))
    assert find_weights(TAG) == checkpoint


def test_weights_that_cannot_be_had_are_named_with_their_place(tmp_path, monkeypatch):
    monkeypatch.setenv(WEIGHTS_FOLDER_VARIABLE, str(tmp_path))
    monkeypatch.setattr("huggingface_hub.hf_hub_download", lambda *_, **__: (_ for _ in ()).throw(OSError("offline")))
    with pytest.raises(UserError) as caught:
        build(pretrained=TAG)
    assert str(tmp_path / f"{TAG}.safetensors") in str(caught.value)
    assert f"https://huggingface.co/timm/{TAG}" in str(caught.value)
    with pytest.raises(UserError, match="there is no weight file"):
        find_weights(tmp_path / "absent.safetensors")


def test_faulty_files_are_named(classifier, checkpoint, tmp_path):
    truncated = tmp_path / "truncated.safetensors"
    truncated.write_bytes(checkpoint.read_bytes()[:1000])
    with pytest.raises(UserError, match=r"truncated\.safetensors"):
        read_state_dict(truncated)
    pickled = tmp_path / "object.pth"
    torch.save(classifier, pickled)  # a pickled module could run code: weights_only refuses it
    with pytest.raises(UserError, match=r"object\.pth"):
        read_state_dict(pickled)
    partial = tmp_path / "partial.pth"
    torch.save({k: v for k, v in classifier.state_dict().items() if "stages.2" not in k}, partial)
    with pytest.raises(UserError, match=r"lacks stages\.2"):
        build(pretrained=partial)
    other = tmp_path / "other.pth"
    torch.save(timm.create_model("levit_192", pretrained=False).state_dict(), other)
    with pytest.raises(UserError, match=r"levit_128s\.fb_dist_in1k"):
        build(pretrained=other)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("levit_unet_128s", {"identity_attention": True}),
        ("unet2022_tiny", {"block": "swin"}),
        *((f"{name}_1block", {"unet_levels": True}) for name in ("transunet", "unetr2d", "cats2d")),
        *((name, {"unet_levels": True}) for name in ("levit_unet_128s", "unet2022_tiny", "transfuse_s")),
    ],
)
def test_options_that_no_pretrained_weights_fit_refuse_them(name, options):
    with torch.device("meta"), pytest.raises(UserError, match="takes no pretrained weights: train it from scratch"):
        create(name, in_channels=1, num_classes=2, image_size=(64, 64), pretrained="weights.pth", **options)
