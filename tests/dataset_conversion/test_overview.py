import json

import numpy as np
import pytest

from nnunetv2_levit import cli
from nnunetv2_levit.dataset_conversion import overview
from nnunetv2_levit.dataset_conversion.overview import mark_outliers
from nnunetv2_levit.figures import draw_overview
from tests.dataset_conversion.test_converters import write_acdc, write_isic


@pytest.mark.parametrize(("name", "write", "count"), [("acdc", write_acdc, 10), ("isic", write_isic, 5)])
def test_one_picture_and_a_table_of_all_cases(name, write, count, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("nnUNet_raw", str(tmp_path / "raw"))
    (tmp_path / "source").mkdir()
    write(tmp_path / "source")
    cli.main(["convert", name, "-i", str(tmp_path / "source"), "-d", "9"])
    cli.main(["inspect", "-d", "9"])
    assert f"{count} cases" in capsys.readouterr().out
    (folder,) = (tmp_path / "raw").iterdir()
    cases = json.loads((folder / "overview.json").read_text())["cases"]
    assert len(cases) == count
    assert (folder / "overview.png").stat().st_size > 10_000
    assert (folder / "overview.md").read_text().count("\n") == count + 2
    facts = json.loads((folder / "conversion.json").read_text())["cases"]
    for case in cases:
        voxel = 1.6 * 1.6 * 10 / 1000 if name == "acdc" else 1
        voxels = {k: v for k, v in facts[case["case"]]["voxels"].items() if k != "0"}
        assert case["labels"] == pytest.approx({k: v * voxel for k, v in voxels.items()}, abs=1e-3)


def test_what_is_far_from_the_others_is_marked():
    rng = np.random.default_rng(0)
    rows = [
        {
            "case": str(i),
            "spacing_mm": [10.0, 1.5, 1.5 + 0.1 * rng.random()],
            "intensity_1_50_99": [0.0, 100 + rng.random(), 500 + 20 * rng.random()],
            "labels": {"1": 80 + 20 * rng.random()},
        }
        for i in range(20)
    ]
    rows[3]["spacing_mm"][0] = 1.0
    rows[5]["intensity_1_50_99"][1] = 900.0
    rows[7]["labels"]["1"] = 0.001
    rows[9]["labels"] = {}
    mark_outliers(rows, {"LV": [1]})
    assert {row["case"]: row["outliers"] for row in rows if row["outliers"]} == {
        "3": ["spacing z"],
        "5": ["median intensity"],
        "7": ["LV volume"],
        "9": ["no label at all"],
    }


@pytest.mark.parametrize("unit", [1.0, 1e-6, 1e6])
@pytest.mark.parametrize("factor", [1 / 30, 100])
def test_volumes_are_outliers_by_their_ratio_whatever_their_unit(unit, factor):
    rng = np.random.default_rng(0)
    rows = [
        {"case": str(i), "spacing_mm": [1.0] * 3, "intensity_1_50_99": [0.0, 1.0, 2.0], "labels": {}} for i in range(20)
    ]
    for row in rows:
        row["labels"] = {"1": unit * 1500 * rng.uniform(0.9, 1.1), "2": unit * 5}
    rows[4]["labels"]["1"] *= factor
    del rows[8]["labels"]["2"]
    mark_outliers(rows, {"liver": [1], "vessel": [2], "tumour": [3]})
    assert {row["case"]: row["outliers"] for row in rows if row["outliers"]} == {
        "4": ["liver volume"],
        "8": ["no vessel"],
    }


def test_regions_are_measured_and_nothing_but_a_thumbnail_is_kept(tmp_path, monkeypatch):
    """BraTS has regions alone; a slice that is a view keeps its whole volume in memory."""
    monkeypatch.setenv("nnUNet_raw", str(tmp_path / "raw"))
    (tmp_path / "source").mkdir()
    write_acdc(tmp_path / "source")
    cli.main(["convert", "acdc", "-i", str(tmp_path / "source"), "-d", "9"])
    (folder,) = (tmp_path / "raw").iterdir()
    description = json.loads((folder / "dataset.json").read_text())
    description["labels"] = {"background": 0, "heart": [1, 2, 3], "ventricles": [1, 3]}
    description["regions_class_order"] = [1, 2]
    (folder / "dataset.json").write_text(json.dumps(description))
    monkeypatch.setattr(overview, "PICTURE_SIDE", 5)
    kept = []

    def keep_and_draw(pictures, **rest):
        kept.extend(pictures)
        draw_overview(pictures, **rest)

    monkeypatch.setattr(overview, "draw_overview", keep_and_draw)
    cli.main(["inspect", "-d", "9"])
    head, _, first, *_ = (folder / "overview.md").read_text().splitlines()
    cells = dict(zip(head.split(" | "), first.split(" | "), strict=True))
    volumes = json.loads((folder / "overview.json").read_text())["cases"][0]["labels"]
    assert float(cells["heart (ml)"]) == pytest.approx(sum(volumes.values()), rel=1e-3)
    assert float(cells["ventricles (ml)"]) == pytest.approx(sum(volumes.get(key, 0) for key in "13"), rel=1e-3)
    assert all(array.base is None and max(array.shape) < 10 for _, *arrays in kept for array in arrays)


def test_an_unknown_dataset_is_refused(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("nnUNet_raw", str(tmp_path))
    with pytest.raises(SystemExit) as stop:
        cli.main(["inspect", "-d", "9"])
    assert stop.value.code == 2
    assert "id 9" in capsys.readouterr().err
