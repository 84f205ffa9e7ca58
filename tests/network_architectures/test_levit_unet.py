import pytest
import torch
from timm.models.levit import Attention as TimmAttention
from timm.models.levit import AttentionDownsample as TimmAttentionDownsample
from torch import nn

from nnunetv2_levit.errors import UserError
from nnunetv2_levit.network_architectures import create
from nnunetv2_levit.network_architectures.layers.grids import stage_grids
from nnunetv2_levit.network_architectures.levit_unet.attention import Attention


def parameters(name, **options):
    network = create(name, in_channels=1, num_classes=9, image_size=(224, 224), **options)
    return sum(p.numel() for p in network.parameters())


@pytest.mark.parametrize(
    ("name", "count"),
    [("levit_unet_128s", 15_904_715), ("levit_unet_192", 19_904_670), ("levit_unet_384", 52_166_029)],
)
def test_parameter_counts_of_the_paper(name, count):
    assert parameters(name) == count


@pytest.mark.parametrize(("skips", "millions"), [(0, 49.840), (1, 49.844), (2, 49.954), (3, 50.397), (4, 52.166)])
def test_parameter_counts_by_skip_connections(skips, millions):
    assert parameters("levit_unet_384", skips=skips) / 1e6 == pytest.approx(millions, abs=5e-4)


@pytest.mark.parametrize(("variant", "millions"), [("128s", 5.458), ("192", 5.967), ("384", 7.784)])
def test_parameter_counts_without_transformer(variant, millions):
    assert parameters(f"levit_unet_{variant}_conv") / 1e6 == pytest.approx(millions, abs=5e-4)


def test_skip_connections_carry_what_they_say():
    """Each further skip makes the output depend on one further convolutional map, from c1 inwards."""
    for skips in range(5):
        network = create("levit_unet_128s", in_channels=1, num_classes=2, image_size=(64, 64), skips=skips).eval()
        maps = [torch.randn(1, c, s, s, requires_grad=True) for c, s in ((16, 32), (32, 16), (64, 8), (128, 4))]
        transformer = [torch.randn(1, c, s, s) for c, s in ((128, 4), (256, 2), (384, 1))]
        network.decoder((maps, transformer), (64, 64), auxiliary=False)[0].sum().backward()
        assert [m.grad is not None for m in maps] == [skips > i for i in range(4)]


@pytest.mark.parametrize("grid", [(14, 14), (6, 10)])
@pytest.mark.parametrize("stride", [1, 2])
def test_attention_agrees_with_timms(grid, stride):
    shared = dict(key_dim=16, num_heads=4, resolution=grid, act_layer=nn.Hardswish)
    if stride == 1:
        reference = TimmAttention(64, attn_ratio=2, **shared)
    else:
        reference = TimmAttentionDownsample(64, 96, attn_ratio=4, **shared)
    ours = Attention(
        width=64,
        out_width=64 if stride == 1 else 96,
        heads=4,
        key_dim=16,
        ratio=2 if stride == 1 else 4,
        grid=grid,
        query_stride=stride,
        residual=stride == 1,
    )
    with torch.no_grad():
        for parameter in reference.parameters():
            parameter.normal_()
    ours.load_state_dict(reference.state_dict())
    reference.double().eval()
    ours.double().eval()
    x = torch.randn(2, grid[0] * grid[1], 64, dtype=torch.float64)
    with torch.no_grad():
        torch.testing.assert_close(ours(x, grid), reference(x))


def test_grids_round_up_as_strided_convolutions_do():
    assert stage_grids((224, 224), first_stride=16, stages=3) == [(14, 14), (7, 7), (4, 4)]
    assert stage_grids((40, 56), first_stride=16, stages=3) == [(3, 4), (2, 2), (1, 1)]


def test_a_smaller_image_uses_the_near_offsets_of_the_biases():
    torch.manual_seed(0)
    large = create("levit_unet_128s", in_channels=1, num_classes=2, image_size=(128, 96)).eval()
    with torch.no_grad():
        for name, parameter in large.named_parameters():
            if name.endswith("attention_biases"):
                parameter.normal_()
        small = create("levit_unet_128s", in_channels=1, num_classes=2, image_size=(64, 64)).eval()
        small.load_state_dict(
            large.adapt_state_dict(large.state_dict(), image_size=(128, 96))
            | small.adapt_state_dict(large.state_dict(), image_size=(128, 96))
        )
        x = torch.randn(1, 1, 64, 64)
        torch.testing.assert_close(large(x), small(x))


def test_a_larger_image_than_built_for_is_refused():
    network = create("levit_unet_128s", in_channels=1, num_classes=2, image_size=(64, 64)).eval()
    with pytest.raises(ValueError, match="4x4 and got 8x8"):
        network(torch.randn(1, 1, 128, 128))


def test_identity_attention_mixes_no_tokens():
    network = create(
        "levit_unet_128s", in_channels=1, num_classes=2, image_size=(64, 64), identity_attention=True
    ).eval()
    assert not any("qkv" in name or "attention_biases" in name for name in network.state_dict())
    tokens = torch.randn(1, 16, 128)
    changed = tokens.clone()
    changed[0, 5] += 1
    with torch.no_grad():
        stage = network.encoder.stages[0]
        difference = (stage(changed, (4, 4))[0] - stage(tokens, (4, 4))[0]).abs().sum(2)[0]
    assert (difference > 0).tolist() == [i == 5 for i in range(16)]


def test_attention_core_runs_in_fp32_under_autocast(monkeypatch):
    seen = []
    original = torch.nn.functional.scaled_dot_product_attention

    def record(query, key, value, attn_mask):
        seen.append((query.dtype, attn_mask.dtype, torch.is_autocast_enabled("cpu")))
        return original(query, key, value, attn_mask=attn_mask)

    monkeypatch.setattr(torch.nn.functional, "scaled_dot_product_attention", record)
    network = create("levit_unet_128s", in_channels=1, num_classes=2, image_size=(64, 64)).eval()
    with torch.autocast("cpu", dtype=torch.bfloat16), torch.no_grad():
        network(torch.randn(1, 1, 64, 64))
    assert set(seen) == {(torch.float32, torch.float32, False)}
    assert len(seen) == 2 + 3 + 4 + 2


@pytest.mark.parametrize(("options", "words"), [({"skips": 5}, "0 to 4"), ({"skips": -1}, "0 to 4")])
def test_impossible_options_are_refused(options, words):
    with pytest.raises(UserError, match=words):
        create("levit_unet_192", in_channels=1, num_classes=2, image_size=(64, 64), **options)
