"""``attention`` and ``cam`` on small model folders: files, numbers, slices, queries, the resumable knock-out."""

import json
import shutil
from types import SimpleNamespace

import numpy as np
import pytest
import SimpleITK as sitk
import torch
from torch import nn

import nnunetv2_levit as levit
from nnunetv2_levit import cli
from nnunetv2_levit.analysis import attention_report, class_activation, knockout_study
from nnunetv2_levit.analysis.analysed_model import load_analysed_model
from nnunetv2_levit.analysis.attention_report import write_knock_out
from nnunetv2_levit.analysis.case_slices import find_analysed_cases
from nnunetv2_levit.analysis.transformer_blocks import transformer_blocks
from nnunetv2_levit.errors import UserError
from nnunetv2_levit.figures import attention as figures
from nnunetv2_levit.inference.case_files import Case
from nnunetv2_levit.nnunet.environment import VARIABLE, plugin_folder
from tests.inference.model_folders import write_case, write_model_folder

TRAINERS = (
    "LeViTUNetTrainer_128s_blocks1",
    "UNet2022Trainer_blocks1",
    "TransFuseTrainer_blocks1",
    "UNETR2DTrainer_1block",
)
PATCH = (32, 32)
SPACING = 1.5  # of the plan
CASES = ("patient001_frame01", "patient002_frame01")


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    root, made = tmp_path_factory.mktemp("trained"), {}

    def make(trainer):
        if trainer not in made:
            folder = root / f"{trainer}__nnUNetPlans__2d"
            with pytest.MonkeyPatch.context() as patch:
                patch.setenv(VARIABLE, str(plugin_folder()))
                made[trainer] = write_model_folder(folder, trainer=trainer, folds=(0,), patch_size=PATCH)
        return made[trainer]

    return make


def write_labels(folder, name, labels):
    folder.mkdir(parents=True, exist_ok=True)
    image = sitk.GetImageFromArray(labels.astype(np.uint8))
    image.SetSpacing((SPACING, SPACING, 10.0))
    sitk.WriteImage(image, str(folder / f"{name}.nii.gz"))


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Two cases of three slices; the structures are largest in slice 1."""
    root = tmp_path_factory.mktemp("data")
    for seed, name in enumerate(CASES):
        volume = 10 + np.random.default_rng(seed).random((3, 32, 30)) * 100
        write_case(root / "images", name, volume, spacing=SPACING)
        labels = np.zeros(volume.shape)
        labels[:, 8:14, 6:12] = 1
        labels[1, 16:26, 8:20] = 2
        labels[1, 4:12, 16:26] = 3
        write_labels(root / "labels", name, labels)
    return root


def run(*arguments):
    cli.main([str(argument) for argument in arguments])


@pytest.mark.parametrize("trainer", TRAINERS)
def test_pictures_and_numbers_of_each_family(models, data, tmp_path, trainer, capsys):
    images = data / "images" / f"{CASES[0]}_0000.nii.gz"
    out = tmp_path / "out"
    run("attention", "-m", models(trainer), "-i", images, "--labels", data / "labels", "-o", out)
    assert "outside the transformer blocks" in capsys.readouterr().out
    result = json.loads((out / "attention.json").read_text())
    (case,) = result["cases"]
    assert (case["slice"], case["structures_from"], case["structures_absent"]) == (1, "ground truth", [])
    assert [query["structure"] for query in case["queries"]] == ["right ventricle", "myocardium", "left ventricle"]
    for layer in case["layers"]:
        for owner in (layer, layer["uniform"], layer["untrained"]):
            assert owner["distance_mm"]["mean"] == pytest.approx(SPACING * owner["distance_px"]["mean"])
            assert owner["entropy"]["mean"] <= np.log(layer["keys_of_a_query"]) + 1e-6
            shares = [share["mean"] for share in owner["outside_share"].values() if share is not None]
            assert all(0 <= share <= 1 for share in shares)
        assert len(layer["distance_px"]["heads"]) > 1
        assert ("branch_norms" in layer) == trainer.startswith("UNet2022")
    assert bool(case["gates"]) == trainer.startswith("TransFuse")
    pictures = {path.name for path in (out / CASES[0]).iterdir()}
    assert pictures == {"maps.png", "flow.png", "layers.png"} | ({"gates.png"} if case["gates"] else set())
    page = (out / "attention.html").read_text()
    assert page.count("<img") == len(pictures)
    assert 'src="http' not in page
    rows = (out / "attention.csv").read_text().splitlines()
    assert len(rows) == 1 + sum(1 + len(layer["distance_px"]["heads"]) for layer in case["layers"])


def test_a_case_without_a_structure_is_skipped(models, data, tmp_path, capsys):
    """Of several cases; alone, the sentence says what the command can do about it."""
    labels = tmp_path / "labels"
    shutil.copytree(data / "labels", labels)
    write_labels(labels, CASES[0], np.zeros((3, 32, 30)))
    words = ("-m", models(TRAINERS[0]), "--labels", labels)
    out = tmp_path / "out"
    run("attention", *words, "-i", data / "images", "-o", out)
    result = json.loads((out / "attention.json").read_text())
    assert [case["case"] for case in result["cases"]] == [CASES[1]]
    assert result["skipped"] == [CASES[0]]
    sentence = f"Skipped, as there is nothing to ask about: {CASES[0]}"
    assert sentence in capsys.readouterr().out
    assert sentence in (out / "attention.html").read_text()
    for command, ways in (
        ("attention", "give a place with --query or another case with -i"),
        ("cam", "give another case"),
    ):
        if command == "cam":
            pytest.importorskip("pytorch_grad_cam")
        with pytest.raises(SystemExit):
            run(command, *words, "-i", data / "images" / f"{CASES[0]}_0000.nii.gz", "-o", tmp_path / command)
        assert f"{CASES[0]} has nothing to ask about: {ways}" in capsys.readouterr().err
    write_labels(labels, CASES[1], np.zeros((3, 32, 30)))
    with pytest.raises(UserError, match=f"no case has a structure to ask about, {CASES[0]} first: give another case"):
        levit.attention(models(TRAINERS[0]), images=data / "images", labels=labels, output=tmp_path / "none")


def test_class_activation_skips_it_too(models, data, tmp_path, capsys):
    pytest.importorskip("pytorch_grad_cam")
    labels, out = tmp_path / "labels", tmp_path / "out"
    shutil.copytree(data / "labels", labels)
    write_labels(labels, CASES[0], np.zeros((3, 32, 30)))
    run("cam", "-m", models("nnUNetTrainer"), "-i", data / "images", "--labels", labels, "-o", out)
    assert json.loads((out / "class_activation.json").read_text())["skipped"] == [CASES[0]]
    for said in (capsys.readouterr().out, (out / "class_activation.html").read_text()):
        assert f"Skipped, as there is nothing to ask about: {CASES[0]}" in said


def test_layers_have_the_colours_of_the_maps(tmp_path, monkeypatch):
    """A structure that is absent from the slice takes no colour away."""
    drawn = []
    monkeypatch.setattr(figures, "save", lambda figure, _: drawn.append(figure))
    monkeypatch.setattr(attention_report, "draw_maps", lambda *_, **__: None)
    mask = {"myocardium": np.ones((4, 4), dtype=bool)}
    patch = SimpleNamespace(queries=[], image=np.zeros((1, 4, 4)), masks=mask, case="a", slice_index=0, slices=1,
                            source="ground truth")  # fmt: skip
    analysis = SimpleNamespace(patch=patch, maps=[], flow_maps=[], head_maps={}, gates=[], layers=[])
    model = SimpleNamespace(structures={"right ventricle": (1,), "myocardium": (2,)}, spacing=(1.0, 1.0))
    attention_report.write_pictures(analysis, model, tmp_path / "a", raw=False)
    (legend,) = drawn[0].legends
    colours = {handle.get_label(): handle.get_color() for handle in legend.legend_handles}
    assert colours["myocardium"] == attention_report.backdrop_of(analysis, model).colours["myocardium"]


def test_queries_by_coordinate_raw_scores_and_each_head(models, data, tmp_path):
    images = data / "images" / f"{CASES[0]}_0000.nii.gz"
    arguments = dict(slice_index=2, queries=[(9, 7), (30, 20)], scores="raw", heads="each")
    result = levit.attention(models(TRAINERS[3]), images=images, output=tmp_path / "out", **arguments)
    (case,) = result["cases"]
    assert case["slice"] == 2
    assert [query["name"] for query in case["queries"]] == ["9,7", "30,20"]
    corner = np.array(case["patch_corner"])
    for query, place in zip(case["queries"], [(9.5, 7.5), (30.5, 20.5)], strict=True):
        assert np.allclose(np.array(query["place_px"]) + corner, place, atol=0.6)  # the plan's spacing is the image's
    assert {"heads_9_7.png", "heads_30_20.png"} <= {path.name for path in (tmp_path / "out" / CASES[0]).iterdir()}


def test_the_knock_out_measures_what_predict_and_evaluate_do_and_is_resumed(models, data, tmp_path, monkeypatch):
    folder, out = models(TRAINERS[0]), tmp_path / "out"
    model = load_analysed_model(folder)
    blocks = transformer_blocks(model.network)
    cases = find_analysed_cases(model, data / "images")

    def study():
        return knockout_study.knock_out_study(model, blocks, cases=cases, labels=data / "labels", output=out)

    first = study()
    levit.predict(model=folder, images=data / "images", output=tmp_path / "p", folds=(0,), mirroring=False,
                  device="cpu", fp32_sums=True, preprocessing_workers=0, exporting_workers=0)  # fmt: skip
    evaluated = levit.evaluate(predictions=tmp_path / "p", truth=data / "labels", dataset=folder)
    assert first["baseline"]["dice"]["mean"] == pytest.approx(evaluated["mean"]["dice"]["mean"], abs=2e-3)
    assert first["baseline"]["hd95"]["mean"] == pytest.approx(evaluated["mean"]["hd95"]["mean"], rel=2e-2)
    keys = [row["key"] for row in first["knock_outs"]]
    # 3 stages of a block, 2 subsamplings
    assert [key for key in keys if "from" not in key] == [
        *(f"attention-{n:02d}" for n in range(1, 6)),
        *(f"block-{n:02d}" for n in (1, 3, 5)),
    ]
    assert {path.name for path in (out / "knock_out").iterdir()} == {f"{case}.json" for case in CASES}
    assert first["patients"] == 2
    assert all(row["dice"]["ci95"] is not None for row in first["knock_outs"])

    assert first["without_attention"].startswith("with the attention of all blocks replaced by the identity, ")
    page = write_knock_out(first, out)
    assert first["sentence"].split(":")[0] in page[0]
    assert (out / "knock_out.png").is_file()
    assert (out / "knock_out.csv").read_text().count("\n") == 1 + 2 * (1 + len(keys))
    assert json.loads((out / "knock_out.json").read_text()) == first

    done = []
    compute = knockout_study._case_results
    monkeypatch.setattr(knockout_study, "_case_results", lambda *a, **k: done.append(a[1].name) or compute(*a, **k))
    (out / "knock_out" / f"{CASES[1]}.json").unlink()
    assert study() == first
    assert done == [CASES[1]]


@pytest.mark.parametrize("changed", ["images", "labels"])
def test_a_case_whose_files_are_other_ones_is_measured_again(data, tmp_path, monkeypatch, changed):
    folders = {name: tmp_path / name for name in ("images", "labels")}
    for name, folder in folders.items():
        shutil.copytree(data / name, folder)
    model = SimpleNamespace(checkpoint_digest="", network=nn.Identity(),
                            trained=SimpleNamespace(dataset={"file_ending": ".nii.gz"}))  # fmt: skip
    done = []

    def measured(_, case, *__, **___):
        done.append(case.name)
        return {"results": {"baseline": {"left ventricle": {"dice": 1.0, "hd95": 0.0}}}, "unit": "mm"}

    monkeypatch.setattr(knockout_study, "_case_results", measured)
    monkeypatch.setattr(knockout_study, "_summary", lambda *_, **__: {})

    def study():
        cases = [Case(name, (folders["images"] / f"{name}_0000.nii.gz",), tmp_path) for name in CASES]
        knockout_study.knock_out_study(model, [], cases=cases, labels=folders["labels"], output=tmp_path / "out")

    study()
    study()
    assert done == [*CASES]
    file = next(path for path in folders[changed].iterdir() if path.name.startswith(CASES[0]))
    file.write_bytes(file.read_bytes() + b" ")
    study()
    folders[changed] = folders[changed].rename(tmp_path / "others")
    study()
    assert done == [*CASES, CASES[0], *CASES]


def test_class_activation_of_nnunets_own_network(models, data, tmp_path):
    pytest.importorskip("pytorch_grad_cam")
    model = models("nnUNetTrainer")
    images = data / "images" / f"{CASES[0]}_0000.nii.gz"
    result = levit.class_activation(model, images=images, labels=data / "labels", output=tmp_path / "out")
    assert result["layers"][0].startswith("encoder.stages.2")
    shares = result["cases"][0]["share_inside"][result["layers"][0]]
    assert set(shares) == {"right ventricle", "myocardium", "left ventricle"}
    assert (tmp_path / "out" / f"{CASES[0]}.png").is_file()
    named = levit.class_activation(
        model, images=images, labels=data / "labels", output=tmp_path / "named", layers=["encoder.stages.1"],
        method="hirescam",
    )  # fmt: skip
    assert named["layers"] == ["encoder.stages.1"]
    assert "class_activation.html" in {path.name for path in (tmp_path / "named").iterdir()}


class ChannelsLast(nn.Module):
    """A convolution, and a linear layer over its channels with an activation after it."""

    def __init__(self, *, inplace=False):
        super().__init__()
        self.conv = nn.Conv2d(1, 3, 3, padding=1)
        self.act = nn.LeakyReLU(0.01, inplace=inplace)
        self.linear, self.gelu = nn.Linear(3, 5), nn.GELU()
        self.head = nn.Conv2d(5, 2, 1)

    def forward(self, images):
        x = self.gelu(self.linear(self.act(self.conv(images)).permute(0, 2, 3, 1)))
        return self.head(x.permute(0, 3, 1, 2))


def test_layers_with_channels_last_have_no_activation_map():
    network, image = ChannelsLast(), torch.zeros(1, 6, 8)
    assert class_activation.feature_maps(network, image) == {"conv": (3, 6, 8), "act": (3, 6, 8), "head": (2, 6, 8)}
    with pytest.raises(UserError, match="no layer 'gelu' that returns a map with its channels before rows"):
        class_activation._chosen_layers(network, ["conv", "gelu"], image)


def test_an_activation_in_place_does_not_change_the_map_of_the_layer_before():
    pytest.importorskip("pytorch_grad_cam")
    patch = SimpleNamespace(image=np.random.default_rng(0).normal(size=(1, 8, 8)).astype(np.float32),
                            masks={"heart": np.eye(8, dtype=bool)})  # fmt: skip
    maps = []
    for inplace in (False, True):
        torch.manual_seed(0)
        network = ChannelsLast(inplace=inplace).eval()
        model = SimpleNamespace(network=network, device=torch.device("cpu"), head_of=lambda _: 1)
        maps.append(class_activation.activation_map(model, patch, structure="heart", layer="conv"))
    assert maps[0].max() > 0
    np.testing.assert_allclose(*maps)
