import pytest
import timm
import torch
from safetensors.torch import save_file

from nnunetv2_levit.errors import UserError
from nnunetv2_levit.network_architectures import create
from nnunetv2_levit.network_architectures.layers.attention_bias import resize_relative_position_table
from nnunetv2_levit.network_architectures.layers.grids import stage_grids
from nnunetv2_levit.network_architectures.unet2022.pi_block import PIBlock
from nnunetv2_levit.network_architectures.unet2022.window_attention import WindowedMixing, shift_mask
from nnunetv2_levit.network_architectures.unet2022.windows import choose_windows


def build(size="tiny", image_size=(64, 64), in_channels=1, num_classes=9, **options):
    torch.manual_seed(0)
    return create(
        f"unet2022_{size}", in_channels=in_channels, num_classes=num_classes, image_size=image_size, **options
    )


def count(network):
    return sum(p.numel() for p in network.parameters())


def test_parameter_counts_of_the_paper():
    assert count(build(image_size=(224, 224), auxiliary_heads=True)) == 41_248_449
    assert count(build(image_size=(320, 320), auxiliary_heads=True)) == 41_329_665
    assert count(build(image_size=(512, 512), num_classes=2, stem_stride=8, auxiliary_heads=True)) == 42_065_940
    base = count(build("base", image_size=(224, 224), auxiliary_heads=True))
    large = count(build("large", image_size=(224, 224), num_classes=4, auxiliary_heads=True))
    assert (round(base / 1e6, 2), round(large / 1e6, 2)) == (72.93, 163.08)


@pytest.mark.parametrize(
    ("size", "stride", "published"),
    [(224, 4, (7, 7, 14, 7)), (320, 4, (10, 10, 20, 10)), (512, 8, (16, 16, 16, 8))],
)
def test_the_window_rule_yields_the_published_lists(size, stride, published):
    assert choose_windows((size, size), stride) == [(w, w) for w in published]


@pytest.mark.parametrize("stride", [4, 8])
def test_windows_fit_every_map_and_divide_those_of_round_sizes(stride):
    for side in range(8 * stride, 1025, 8):
        size = (side, 8 * stride * 3)
        for window, grid in zip(
            choose_windows(size, stride), stage_grids(size, first_stride=stride, stages=4), strict=True
        ):
            assert all(1 <= w <= g for w, g in zip(window, grid, strict=True))
            if side % (8 * stride) == 0:
                assert grid[0] % window[0] == grid[1] % window[1] == 0


def test_isics_windows_can_be_given():
    network = build(image_size=(512, 512), stem_stride=8, windows=(8, 8, (16, 16), 8))
    assert [stage[0].mixing.window for stage in network.encoder.stages] == [(8, 8), (8, 8), (16, 16), (8, 8)]


def test_the_shift_mask_by_hand():
    """A row of four tokens, windows of two, shifted by one: after the roll the last window holds tokens 3 and 0."""
    mask = shift_mask((1, 4), (1, 2), (0, 1))
    assert mask.tolist() == [[[0, 0], [0, 0]], [[0, -100], [-100, 0]]]


@pytest.mark.parametrize("grid", [(8, 12), (10, 9)])
@pytest.mark.parametrize("masked", [True, False])
def test_shifted_windows_are_separated_where_the_roll_joined_them(grid, masked):
    """Changing one token changes exactly the tokens of its window that lie on its side of the map's border."""
    torch.manual_seed(0)
    window, shift = (4, 3), (2, 1)
    mixing = WindowedMixing(width=8, heads=2, window=window, grid=grid, shifted=True, convolution=False).double()
    if not masked:
        mixing.mask.zero_()
    x = torch.randn(1, 8, *grid, dtype=torch.float64)
    leaked = 0
    for y0, x0 in ((0, 0), (1, 5), (3, 0), (grid[0] - 1, grid[1] - 1), (5, 4)):
        changed = x.clone()
        changed[0, :, y0, x0] += 1
        with torch.no_grad():
            touched = ((mixing(changed) - mixing(x)).abs().sum(1)[0] > 1e-9).nonzero().tolist()
        # without the roll's wrap-around, windows begin at shift, shift + window, ... (and at 0, cut)
        cells = [(y0 - shift[0]) // window[0], (x0 - shift[1]) // window[1]]
        same = [
            [i, j]
            for i in range(grid[0])
            for j in range(grid[1])
            if [(i - shift[0]) // window[0], (j - shift[1]) // window[1]] == cells
        ]
        leaked += len([token for token in touched if token not in same])
        if masked:
            assert touched == same
    assert (leaked == 0) == masked


def test_no_shift_where_the_window_covers_the_map():
    assert WindowedMixing(width=8, heads=2, window=(6, 5), grid=(6, 5), shifted=True).mask is None
    assert WindowedMixing(width=8, heads=2, window=(6, 5), grid=(6, 10), shifted=True).shift((6, 10)) == (0, 2)


def test_shifted_maps_stay_in_channels_last_memory():
    """On the meta device, where rolled maps lie in memory as they do on CUDA."""
    layouts = []
    with torch.device("meta"):
        mixing = WindowedMixing(width=8, heads=2, window=(4, 4), grid=(8, 8), shifted=True)
        mixing.conv_dw.register_forward_pre_hook(lambda _, images: layouts.append(images[0].stride()))
        x = torch.empty(2, 8, 8, 8).contiguous(memory_format=torch.channels_last)
        layouts.append(mixing(x).stride())
    assert layouts == [x.stride()] * 2


def test_masks_stay_out_of_the_state_dict_and_follow_the_size():
    windows = (4, 4, 4, 2)
    small, large = (build(image_size=(s, s), windows=windows).double().eval() for s in (64, 128))
    assert not any("mask" in name for name in small.state_dict())
    small.load_state_dict(large.state_dict())
    x = torch.randn(1, 1, 64, 64, dtype=torch.float64)
    with torch.no_grad():
        torch.testing.assert_close(large(x), small(x))


def block(**options):
    torch.manual_seed(0)
    return PIBlock(
        width=16, heads=2, window=(4, 4), grid=(4, 4), shifted=False, drop_path=0.2, layer_scale=0.5, **options
    ).eval()


def test_the_block_as_coded_and_as_printed():
    x = torch.randn(2, 16, 4, 4)
    coded, printed = block(), block(paper=True)
    with torch.no_grad():
        for module, paper in ((coded, False), (printed, True)):
            depth = module.local.conv_dw(x).permute(0, 2, 3, 1)
            mlp = module.local.mlp(module.local.norm(depth)).permute(0, 3, 1, 2)
            first = x + (1.0 if paper else 0.5) * mlp
            n = first if paper else module.norm(first.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
            mixing = module.mixing
            attended = mixing.attention(n.permute(0, 2, 3, 1), mixing.attention.bias(None)).reshape(2, 4, 4, 16)
            mixed = attended + mixing.conv_dw(n).permute(0, 2, 3, 1)
            projected = mixing.proj(mixed).permute(0, 3, 1, 2)
            expected = projected + (mixed.permute(0, 3, 1, 2) if paper else first)
            torch.testing.assert_close(module(x), expected)
    assert not any("gamma" in name or name.startswith("norm") for name in printed.state_dict())


@pytest.mark.parametrize(
    ("options", "absent", "present"),
    [
        ({"attention": False}, "mixing.attention", "mixing.conv_dw"),
        ({"convolution": False}, "mixing.conv_dw", "mixing.attention"),
        ({"block": "swin"}, "conv_dw", "relative_position_bias_table"),
        ({"block": "convnext"}, "mixing", "conv_dw"),
        ({"variant": "paper"}, "gamma", "relative_position_bias_table"),
    ],
)
def test_the_papers_ablations(options, absent, present):
    network = build(**options).eval()
    names = list(network.state_dict())
    assert not any(absent in name for name in names)
    assert any(present in name for name in names)
    with torch.no_grad():
        assert torch.isfinite(network(torch.randn(1, 1, 64, 64))).all()


def test_drop_path_rises_over_the_encoder_and_over_the_decoder():
    network = build()
    rates = [b.drop_path.drop_prob for stage in network.encoder.stages for b in stage]
    assert rates == sorted(rates)
    assert (rates[0], rates[-1]) == pytest.approx((0, 0.2))
    rates = [b.drop_path.drop_prob for stage in reversed(network.decoder.stages) for b in stage]
    assert rates == sorted(rates)
    assert (rates[0], rates[-1]) == pytest.approx((0, 0.2))


@pytest.fixture(scope="module")
def convnext(tmp_path_factory):
    torch.manual_seed(0)
    model = timm.create_model("convnext_tiny", pretrained=False).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    path = tmp_path_factory.mktemp("weights") / "convnext_tiny.fb_in1k.safetensors"
    save_file(model.state_dict(), path)
    return model, path


def test_convnexts_blocks_go_into_the_first_part_of_every_block(convnext):
    model, path = convnext
    network = build(pretrained=path).eval()
    report = network.pretrained_report
    assert len(report.loaded) == 189
    assert set(report.loaded) | set(report.random) == set(network.state_dict())
    assert not set(report.loaded) & set(report.random)
    assert all(".local." in name for name in report.loaded)
    assert not any(".local." in name for name in report.random)
    assert any(name.startswith("head") for name in report.unused)
    for part, stages in ((network.encoder, 4), (network.decoder, 3)):
        for index in range(stages):
            for position in range(3):
                x = torch.randn(1, 96 << index, 6, 6)
                with torch.no_grad():
                    ours = part.stages[index][position].local(x)
                    torch.testing.assert_close(ours, model.stages[index].blocks[position](x))
    assert "189 tensors loaded" in report.summary()
    assert "encoder.stem" in report.summary()


def test_convnext_blocks_take_the_same_weights_and_those_of_another_size_are_refused(convnext):
    _, path = convnext
    assert len(build(pretrained=path, block="convnext").pretrained_report.loaded) == 189
    with pytest.raises(UserError, match=r"convnext_base\.fb_in1k"):
        build("base", pretrained=path)


@pytest.mark.parametrize("policy", ["extend", "scale"])
def test_relative_position_tables_keep_their_centre(policy):
    table = torch.randn(5 * 7, 2, dtype=torch.float64)
    resized = resize_relative_position_table(table, old_window=(3, 4), new_window=(6, 2), policy=policy)
    assert resized.shape == (11 * 3, 2)
    torch.testing.assert_close(resized.view(11, 3, 2)[5, 1], table.view(5, 7, 2)[2, 3])
    back = resize_relative_position_table(table.flip(0), old_window=(3, 4), new_window=(6, 2), policy=policy)
    torch.testing.assert_close(back.flip(0), resized)  # both signs of an offset are treated alike
    if policy == "extend":
        torch.testing.assert_close(resized.view(11, 3, 2)[3:8], table.view(5, 7, 2)[:, 2:5])


@pytest.mark.parametrize("options", [{}, {"unet_levels": True, "blocks": 1}], ids=str)
def test_a_checkpoint_of_another_patch_size_fits(options):
    source, target = build(image_size=(96, 64), **options), build(image_size=(64, 160), **options)
    target.load_state_dict(target.adapt_state_dict(source.state_dict(), image_size=(96, 64)))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"image_size": (32, 64), "stem_stride": 8}, "64 pixels a side, or stem stride 4"),
        ({"stem_stride": 2}, "4 or 8"),
        ({"windows": (7, 7, 14)}, "four stages"),
        ({"windows": (32, 7, 4, 2)}, "32x32 of stage 1 does not fit its map of 16x16"),
        ({"windows": (0, 7, 4, 2)}, "does not fit"),
        ({"variant": "printed"}, "variants code and paper"),
        ({"block": "resnet"}, "blocks pi, swin and convnext"),
        ({"attention": False, "convolution": False}, "no second part"),
        ({"in_channels": 0}, "at least one channel"),
        ({"unet_levels": True, "stem_stride": 8}, "leave out stem_stride"),
    ],
)
def test_what_cannot_be_built_is_refused_with_a_sentence(options, words):
    with pytest.raises(UserError, match=words):
        build(**options)
