"""Registered networks against recorded outputs of the reference implementations, in float64."""

import numpy as np
import pytest
import torch

from nnunetv2_levit.network_architectures import create


def levit_unet_name(key: str) -> str:
    return key.replace("decoder.", "decoder.blocks.").replace("head.", "decoder.seg_layers.0.")


CASES = {f"levit_unet_{v}_224": (f"levit_unet_{v}", {}, levit_unet_name) for v in ("128s", "192", "384")}


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
