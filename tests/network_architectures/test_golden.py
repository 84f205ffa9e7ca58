"""Registered networks against recorded outputs of the reference implementations, in float64."""

import re

import numpy as np
import pytest
import torch

from nnunetv2_levit.inference.backends import memory_format
from nnunetv2_levit.network_architectures import create
from tests.support import golden


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


def renamed(key: str, rules: tuple[tuple[str, str], ...]) -> str:
    for pattern, replacement in rules:
        key = re.sub(pattern, replacement, key)
    return key


VIT_RULES = (
    (r"^trans(former)?\.embeddings\.position_embeddings", "vit.pos_embed"),
    (r"^trans(former)?\.embeddings\.patch_embeddings", "vit.patch_embed.proj"),
    (r"^trans(former)?\.encoder\.encoder_norm", "vit.norm"),
    (r"^trans(former)?\.encoder\.layer", "vit.blocks"),
    (r"attention_norm", "norm1"),
    (r"ffn_norm", "norm2"),
    (r"\.ffn\.", ".mlp."),
    (r"\.attn\.(query|key|value)\.", ".attn.qkv."),  # three tensors of one name are put together in this order
    (r"\.attn\.out\.", ".attn.proj."),
)
SEQUENTIAL_DOUBLE_CONV = tuple(
    (rf"\.conv\.{index}\.", f".{name}.") for index, name in ((0, "conv1"), (1, "bn1"), (3, "conv2"), (4, "bn2"))
)


def transunet_name(key: str) -> str:
    key = key.replace("transformer.embeddings.hybrid_model.", "cnn.")
    key = re.sub(r"body\.block(\d)\.unit(\d+)", lambda m: f"stages.{int(m[1]) - 1}.blocks.{int(m[2]) - 1}", key)
    rules = (
        (r"root\.conv", "stem.conv"),
        (r"root\.gn", "stem.norm"),
        (r"downsample\.weight", "downsample.conv.weight"),
        (r"gn_proj", "downsample.norm"),
        (r"\.gn(\d)", r".norm\1"),
        (r"conv_more\.0", "reduction.conv"),
        (r"conv_more\.1", "reduction.bn"),
        (r"(decoder\.blocks\.\d)\.conv(\d)\.0", r"\1.conv\2"),
        (r"(decoder\.blocks\.\d)\.conv(\d)\.1", r"\1.bn\2"),
        (r"segmentation_head\.0", "decoder.seg_layers.0"),
    )
    return renamed(key, VIT_RULES + rules)


def pyramid_name(key: str) -> str:
    key = re.sub(r"^(img_conv|dc\d|u[14]0)\.conv", r"\1_.conv", key)
    key = re.sub(r"^u(\d)([123])\.conv", lambda m: f"branches.{int(m[1]) - 1}.{int(m[2]) - 1}.conv", key)
    if "_." in key:
        key = renamed(key.replace("_.", "."), SEQUENTIAL_DOUBLE_CONV)
    elif key.startswith("branches"):
        key = renamed(key, ((r"\.conv\.0\.", ".up."), (r"\.conv\.1\.", ".conv."), (r"\.conv\.2\.", ".bn.")))
    rules = (
        (r"^backbone", "cnn"),
        (r"^img_conv", "decoder.image_conv"),
        (r"^u[14]0", "bottleneck"),
        (r"^u41", "decoder.ups.0"),
        (r"^du([12])", r"decoder.ups.\1"),
        (r"^du3", "decoder.image_up"),
        (r"^dc1", "decoder.convs.0"),
        (r"^dc2", "decoder.convs.1"),
        (r"^dc3", "decoder.half_conv"),
        (r"^dc4", "decoder.image_fusion"),
        (r"segmentation_head", "decoder.seg_layers.0"),
    )
    return renamed(key, VIT_RULES + rules)


def transfuse_name(key: str) -> str | None:
    if key.endswith("cls_token"):  # never read by the reference: left out
        return None
    rules = (
        (r"^resnet", "cnn"),
        (r"^transformer", "vit"),
        (r"^up([12])\.", lambda m: f"transformer_ups.{int(m[1]) - 1}."),
        (r"^up_c\.", "fusions.0."),
        (r"^up_c_([12])_1\.", r"fusions.\1."),
        (r"^up_c_([12])_2\.", lambda m: f"ups.{int(m[1]) - 1}."),
        (r"\.double_conv\.0", ".first.conv"),
        (r"\.double_conv\.1", ".first.bn"),
        (r"\.double_conv\.3", ".second.conv"),
        (r"\.double_conv\.4", ".second.bn"),
        (r"\.identity\.0", ".shortcut.conv"),
        (r"\.identity\.1", ".shortcut.bn"),
        (r"^transformer_ups\.(\d)\.conv\.", r"transformer_ups.\1."),
        (r"\.attn_block\.W_g\.0", ".gate.x_conv.conv"),
        (r"\.attn_block\.W_g\.1", ".gate.x_conv.bn"),
        (r"\.attn_block\.W_x\.0", ".gate.skip_conv.conv"),
        (r"\.attn_block\.W_x\.1", ".gate.skip_conv.bn"),
        (r"\.attn_block\.psi\.0", ".gate.psi.conv"),
        (r"\.attn_block\.psi\.1", ".gate.psi.bn"),
        (r"\.fc([12])", r".transformer_gate.fc\1"),
        (r"\.mlp\.transformer_gate\.", ".mlp."),
        (r"\.spatial\.", ".cnn_gate.mix."),
        (r"\.W_g\.", ".cnn_conv."),
        (r"\.W_x\.", ".transformer_conv."),
        (r"\.W\.", ".interaction."),
        (r"\.residual\.skip_layer\.conv", ".mix.shortcut"),
        (r"\.residual\.conv(\d)\.conv", r".mix.conv\1"),
        (r"\.residual\.bn", ".mix.bn"),
        # our order: final, transformer, first fusion
        (r"^final_2\.1\.conv", "decoder.seg_layers.0"),
        (r"^final_2\.0", "decoder.chains.0.0"),
        (r"^final_1\.1\.conv", "decoder.seg_layers.1"),
        (r"^final_1\.0", "decoder.chains.1.0"),
        (r"^final_x\.2\.conv", "decoder.seg_layers.2"),
        (r"^final_x\.([01])", r"decoder.chains.2.\1"),
    )
    return renamed(key, rules)


UNET2022 = ("unet2022_tiny", {"auxiliary_heads": True}, unet2022_name)
UNET2022_P8 = ("unet2022_tiny", {"auxiliary_heads": True, "stem_stride": 8}, unet2022_name)
CASES = {f"levit_unet_{v}_224": (f"levit_unet_{v}", {}, levit_unet_name) for v in ("128s", "192", "384")} | {
    "unet2022_e96_224": UNET2022,
    "unet2022_e96_320": UNET2022,
    "unet2022_e96_512_p8": UNET2022_P8,
    "transfuse_s_192x256": ("transfuse_s", {"auxiliary_heads": True}, transfuse_name),
    "transfuse_s_352": ("transfuse_s", {"auxiliary_heads": True}, transfuse_name),
}
for blocks, suffix in ((12, ""), (3, "_3blocks"), (1, "_1block")):
    CASES[f"transunet_{blocks}_224"] = (f"transunet{suffix}", {}, transunet_name)
    CASES[f"unetr2d_{blocks}_224"] = (f"unetr2d{suffix}", {}, pyramid_name)
    if blocks > 1:
        CASES[f"cats2d_r50_{blocks}_224"] = (f"cats2d{suffix}", {}, pyramid_name)

# parameters of the reference that never get a gradient, and which of our outputs is the reference's k-th
LEFT_OUT = {"transfuse_s_192x256": 384, "transfuse_s_352": 384}
ORDER = dict.fromkeys(LEFT_OUT, (2, 1, 0))
# as shares of the largest number; on a CPU errors are up to 1e-5, 0.012 and 0.05
MOST_ON_A_GPU = {torch.float32: 1e-3, torch.float16: 0.05, torch.bfloat16: 0.2}


def with_recorded_weights(case):
    """The network in float64, and the manifest of its reference."""
    name, options, rename = CASES[case]
    manifest, _ = golden.recorded(case)
    _, channels, *size = manifest["input_shape"]
    network = create(
        name, in_channels=channels, num_classes=manifest["num_classes"], image_size=tuple(size), **options
    ).double()
    parts: dict[str, list[torch.Tensor]] = {}
    for key, shape in manifest["state"]:
        if (ours := rename(key)) is not None:
            parts.setdefault(ours, []).append(torch.from_numpy(golden.draw_tensor(key, shape)))
    state = {key: values[0] if len(values) == 1 else torch.cat(values) for key, values in parts.items()}
    network.load_state_dict(state, strict=True, assign=True)
    return network.eval(), manifest


def largest_error(case, compute, image):
    """Largest difference from the recorded outputs, as a share of the largest number of each output."""
    manifest, recorded = golden.recorded(case)
    with torch.no_grad():
        outputs = compute(image)
    outputs = outputs if isinstance(outputs, list) else [outputs]
    outputs = [outputs[index] for index in ORDER.get(case, range(len(outputs)))]
    assert [list(output.shape) for output in outputs] == manifest["outputs"]
    stride = manifest["stride"]
    return max(
        np.abs(output[..., ::stride, ::stride].double().cpu().numpy() - expected).max() / np.abs(expected).max()
        for output, expected in ((output, recorded[f"out{index}"]) for index, output in enumerate(outputs))
    )


@pytest.mark.parametrize("case", CASES)
def test_golden_case(case):
    network, manifest = with_recorded_weights(case)
    assert sum(p.numel() for p in network.parameters()) == manifest["parameters"] - LEFT_OUT.get(case, 0)
    assert largest_error(case, network, torch.from_numpy(golden.draw_image(manifest["input_shape"]))) <= 1e-6


@pytest.mark.gpu
@pytest.mark.parametrize("case", CASES)
def test_golden_case_on_a_gpu(case, monkeypatch):
    """In fp32 (without tf32, which rounds to ten bits), and under autocast, as nnU-Net trains and predicts."""
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    network, manifest = with_recorded_weights(case)
    network = network.float().to("cuda", memory_format=memory_format(network))
    image = torch.from_numpy(golden.draw_image(manifest["input_shape"])).float().to("cuda")
    for dtype, most in MOST_ON_A_GPU.items():
        with torch.autocast("cuda", dtype, enabled=dtype != torch.float32):
            assert largest_error(case, network, image) <= most
