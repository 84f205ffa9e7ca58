"""Registered networks against recorded outputs of the reference implementations, in float64."""

import re

import numpy as np
import pytest
import torch

from nnunetv2_levit.network_architectures import create


def levit_unet_name(key: str) -> str:
    return key.replace("decoder.", "decoder.blocks.").replace("head.", "decoder.seg_layers.0.")


def unet2022_name(key: str) -> str:
    for old, new in (
        ("model_down.patch_embed.project_block", "encoder.stem"),
        ("model_down.patch_embed.norm", "encoder.stem_norm"),
        ("model_down.norm", "encoder.norms."),
        ("model_down.layers", "encoder.stages"),
        ("decoder.layers", "decoder.stages"),
    ):
        key = key.replace(old, new)
    key = re.sub(r"coder\.stages\.(\d)\.blocks\.(\d)\.blocks_tr\.", r"coder.stages.\1.\2.@", key)
    key = re.sub(r"coder\.stages\.(\d)\.blocks\.(\d)\.", r"coder.stages.\1.\2.local.", key)
    key = re.sub(r"stages\.(\d)\.downsample", r"downsamplings.\1", key)
    key = re.sub(r"stages\.(\d)\.Upsample", r"upsamplings.\1", key)
    key = re.sub(r"final\.(\d)\.project_block", r"decoder.head_blocks.\1", key)
    key = re.sub(r"final\.(\d)\.up_final", r"decoder.seg_layers.\1", key)
    for old, new in (
        ("local.dwconv", "local.conv_dw"),
        ("pwconv1", "mlp.fc1"),
        ("pwconv2", "mlp.fc2"),
        ("@norm1", "norm"),
        ("@dwconv", "mixing.conv_dw"),
        ("@attn.proj", "mixing.proj"),
        ("@attn", "mixing.attention"),
    ):
        key = key.replace(old, new)
    return key


UNET2022 = ("unet2022_tiny", {"auxiliary_heads": True}, unet2022_name)
UNET2022_P8 = ("unet2022_tiny", {"auxiliary_heads": True, "stem_stride": 8}, unet2022_name)
CASES = {f"levit_unet_{v}_224": (f"levit_unet_{v}", {}, levit_unet_name) for v in ("128s", "192", "384")} | {
    "unet2022_e96_224": UNET2022,
    "unet2022_e96_320": UNET2022,
    "unet2022_e96_512_p8": UNET2022_P8,
}


@pytest.mark.parametrize("case", CASES)
def test_golden_case(golden, case):
    name, options, rename = CASES[case]
    manifest, recorded = golden.load(case)
    _, channels, *size = manifest["input_shape"]
    network = create(
        name, in_channels=channels, num_classes=manifest["num_classes"], image_size=tuple(size), **options
    ).double()
    state = {rename(key): torch.from_numpy(np.asarray(golden.tensor(key, shape))) for key, shape in manifest["state"]}
    network.load_state_dict(state, strict=True)
    assert sum(p.numel() for p in network.parameters()) == manifest["parameters"]

    network.eval()
    with torch.no_grad():
        outputs = network(torch.from_numpy(golden.image(manifest["input_shape"])))
    outputs = outputs if isinstance(outputs, list) else [outputs]
    assert [list(output.shape) for output in outputs] == manifest["outputs"]
    stride = manifest["stride"]
    for index, output in enumerate(outputs):
        expected = recorded[f"out{index}"]
        error = np.abs(output[..., ::stride, ::stride].numpy() - expected).max()
        assert error <= 1e-6 * np.abs(expected).max()
