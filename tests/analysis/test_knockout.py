"""Knock-outs against replacements by hand and against truncation; reused results against computed ones."""

import pytest
import torch
import torch.nn.functional as F

from nnunetv2_levit.analysis.dispensable_blocks import conclusion
from nnunetv2_levit.analysis.knockout import ReusedParts, knock_outs, knocked_out, reusable_parts
from nnunetv2_levit.analysis.transformer_blocks import stages, transformer_blocks
from nnunetv2_levit.analysis.truncation import transfer
from nnunetv2_levit.network_architectures import create

SIZE = (32, 48)
# what they have in common with the networks that a truncation makes of them
BLOCKS = {"transunet": 2, "levit_unet_128s": 2, "unet2022_tiny": 2, "transfuse_s": 2}


def build(name, blocks):
    torch.manual_seed(0)
    network = create(name, in_channels=1, num_classes=2, image_size=SIZE, blocks=blocks).eval()
    with torch.no_grad():
        for parameter in network.parameters():
            if parameter.ndim == 1:  # some branches start at nothing
                parameter.add_(0.1 * torch.randn(parameter.shape))
    return network.double()  # in which a small change is no rounding


@pytest.fixture(scope="module")
def networks():
    made = {}

    def make(name):
        if name not in made:
            made[name] = build(name, BLOCKS[name])
        return made[name]

    return make


@pytest.fixture
def images():
    return torch.randn(2, 1, *SIZE, generator=torch.Generator().manual_seed(2), dtype=torch.float64)


@torch.no_grad()
def outputs(network, images, *items):
    if not items:
        return network(images)
    with knocked_out(items[0]):
        return outputs(network, images, *items[1:])


def by_key(network):
    return {item.key: item for item in knock_outs(transformer_blocks(network))}


def manually(monkeypatch, network, images, calls, grid):
    """Replace fused attention by the values at the queries in the numbered calls."""
    real, count = F.scaled_dot_product_attention, iter(range(10**6))

    def attention(query, key, value, **keywords):
        if next(count) not in calls:
            return real(query, key, value, **keywords)
        if query.shape[2] == value.shape[2]:
            return value
        return value.unflatten(2, grid)[:, :, ::2, ::2].flatten(2, 3)

    monkeypatch.setattr(F, "scaled_dot_product_attention", attention)
    result = outputs(network, images)
    monkeypatch.undo()
    return result


@pytest.mark.parametrize("name", BLOCKS)
def test_an_attention_knocked_out_is_the_identity_put_in_by_hand(networks, images, name, monkeypatch):
    network = networks(name)
    before = outputs(network, images)
    items = by_key(network)
    blocks = transformer_blocks(network)
    for number in (0, 2 if len(blocks) > 2 else 1):  # the third of LeViT's is its first subsampling
        item = items[f"attention-{number + 1:02d}"]
        assert item.blocks == (blocks[number],)
        expected = manually(monkeypatch, network, images, {number}, grid=(2, 3))
        assert torch.allclose(outputs(network, images, item), expected, rtol=0, atol=1e-11)
        assert not torch.allclose(expected, before, rtol=0, atol=1e-9)
    assert torch.equal(outputs(network, images), before)  # nothing is left of it


@pytest.mark.parametrize("name", BLOCKS)
def test_skipping_the_last_blocks_is_truncation(networks, images, name):
    network, most = networks(name), BLOCKS[name]
    items = by_key(network)
    for kept in range(1, most):
        small = create(name, in_channels=1, num_classes=2, image_size=SIZE, blocks=kept).eval().double()
        state, fresh = transfer(network.state_dict(), small)
        assert not fresh
        small.load_state_dict(state)
        item = items[f"block-from-{kept + 1:02d}"]
        assert item.kept == kept
        assert torch.equal(outputs(network, images, item), outputs(small, images))
    nothing_left = items["block-from-01"]
    assert len(nothing_left.blocks) == sum(map(len, stages(transformer_blocks(network)).values()))
    assert torch.isfinite(outputs(network, images, nothing_left)).all()


def test_skipping_all_blocks_of_transunet_leaves_embedding_and_norm(networks, images):
    network = networks("transunet")
    item = by_key(network)["block-from-01"]
    with torch.no_grad():
        maps = network.cnn(images)
        tokens = network.vit.patch_embed(maps[-1]).flatten(2).transpose(1, 2) + network.vit.pos_embed
        bare = network.vit.norm(tokens).transpose(1, 2).unflatten(2, (2, 3))
        expected = network.decoder(bare, maps[:3], SIZE, auxiliary=False)[0]
    assert torch.allclose(outputs(network, images, item), expected, atol=1e-5)


@pytest.mark.parametrize("name", BLOCKS)
def test_reused_results_are_the_computed_ones_to_the_bit(networks, images, name):
    network = networks(name)
    items = knock_outs(transformer_blocks(network))
    parts = ReusedParts(reusable_parts(network, transformer_blocks(network)))
    parts.keeping = True
    with parts.used():
        baseline = outputs(network, images)
    assert torch.equal(baseline, outputs(network, images))
    parts.keeping = False
    for item in items[:: max(1, len(items) // 4)]:
        with parts.used(item.blocks):
            reused = outputs(network, images, item)
        assert torch.equal(reused, outputs(network, images, item)), item.key
    parts.start()
    assert parts.calls == {}
    assert not any("forward" in module.__dict__ for module in network.modules())


def test_the_untouched_part_of_the_network_runs_once(networks, images):
    network = networks("transunet")
    blocks = transformer_blocks(network)
    parts = ReusedParts(reusable_parts(network, blocks))
    ran = []
    handles = [network.cnn.stages[0].register_forward_hook(lambda module, _, __: ran.append(module))]
    handles += [block.attention.register_forward_hook(lambda module, _, __: ran.append(module)) for block in blocks]
    parts.keeping = True
    with parts.used():
        outputs(network, images)
    assert len(ran) == len(handles)
    parts.keeping, ran[:] = False, []
    last = by_key(network)["block-02"]
    with parts.used(last.blocks):
        outputs(network, images, last)
    assert ran == []
    first = by_key(network)["attention-01"]
    with parts.used(first.blocks):
        outputs(network, images, first)
    assert ran == [blocks[0].attention, blocks[1].attention]
    for handle in handles:
        handle.remove()


def test_what_is_knocked_out_of_each_kind_of_network(networks):
    levit = by_key(networks("levit_unet_128s"))
    subsampling = [item for item in levit.values() if "subsampling" in item.title]
    assert {item.what for item in subsampling} == {"attention"}  # its output has another shape than its input
    assert [item.kept for item in levit.values() if item.series == "cumulative"] == [1, 0, 1, 0]
    assert levit["block-from-02"].title == "the first 1 block of each stage left"
    assert {block.title for block in levit["block-from-02"].blocks} == {f"stage 1/{n}, block 2" for n in (16, 32, 64)}
    transunet = by_key(networks("transunet"))
    assert [item.title for item in transunet.values() if item.series == "cumulative"][:2] == [
        "the first 1 block left",
        "no block left",
    ]
    with (
        pytest.raises(ValueError, match="can't be skipped"),
        knocked_out(type(subsampling[0])("x", "x", "block", "single", subsampling[0].blocks)),
    ):
        pass


def row(kept, mean, low=None, high=None):
    interval = None if low is None else [low, high]
    title = f"the first {kept} blocks of each stage left"
    return {
        "what": "block",
        "series": "cumulative",
        "kept": kept,
        "title": title,
        "dice": {"mean": mean, "ci95": interval},
    }


SENTENCES = {
    "some": (
        [row(11, 0.0, -0.001, 0.001), row(10, -0.001, -0.003, 0.001), row(9, -0.05, -0.08, -0.02), row(8, 0, 0, 0)],
        "the last 2 blocks may go: -0.1 Dice [-0.3, +0.1]",
        "--blocks 10",
    ),
    "one": ([row(1, -0.002, -0.004, 0.0), row(0, -0.5, -0.6, -0.4)], "the last block may go: -0.2 Dice", "--blocks 1"),
    "none": (
        [row(1, -0.2, -0.4, -0.1), row(0, -0.5, -0.6, -0.4)],
        "no block may go: without the last block, -20.0",
        None,
    ),
    "all": ([row(0, 0.001, -0.001, 0.002)], "all transformer blocks may go (truncate keeps 1)", "--blocks 1"),
    "a wide interval": ([row(0, 0.0, -0.02, 0.02)], "no block may go", None),
    "one patient": ([row(1, -0.002), row(0, -0.3)], "(too few patients for an interval)", "--blocks 1"),
}


@pytest.mark.parametrize("case", SENTENCES)
def test_the_sentence_says_how_many_blocks_may_go(case):
    rows, sentence, command = SENTENCES[case]
    found = conclusion(rows, margin=0.01, several_stages=False, model="MODEL")
    assert sentence in found["sentence"]
    assert found["command"] is None if command is None else command in found["command"]
    staged = conclusion(rows, margin=0.01, several_stages=True, model="MODEL")["sentence"]
    if case == "some":  # stages may have fewer blocks than the longest
        assert "all but the first 10 blocks of each stage may go" in staged
    assert "of each stage" in staged or found["blocks_that_may_go"] == len(rows)


@pytest.mark.parametrize(
    ("model", "checkpoint", "words"),
    [
        ("MODEL", "checkpoint_final.pth", "-m MODEL --blocks 1 -o MODEL_truncated"),
        ("MODEL", "checkpoint_best.pth", "-o MODEL_truncated -chk checkpoint_best.pth"),
        ("my model", "checkpoint_final.pth", "-m 'my model' --blocks 1 -o 'my model_truncated'"),
    ],
)
def test_the_printed_command_can_be_run(model, checkpoint, words):
    found = conclusion(SENTENCES["one"][0], margin=0.01, several_stages=False, model=model, checkpoint=checkpoint)
    assert found["command"].endswith(words)
