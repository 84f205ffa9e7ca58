"""Comparison, the papers' tables, and the report that gathers them."""

import copy
import json
import re
import statistics

import numpy as np
import pytest
import SimpleITK as sitk

from nnunetv2_levit.dataset_conversion.pictures import POLYP_TESTS
from nnunetv2_levit.errors import UserError
from nnunetv2_levit.evaluation.compare import compare
from nnunetv2_levit.evaluation.evaluate import evaluate
from nnunetv2_levit.evaluation.paper_rows import beside_the_papers, papers, tables_of
from nnunetv2_levit.evaluation.qualitative import chosen_cases, error_map
from nnunetv2_levit.evaluation.speed_accuracy import printed_points
from nnunetv2_levit.evaluation.stored import load_evaluation
from nnunetv2_levit.tables import comparison_markdown, papers_markdown
from tests.conftest import SHARED, reference_or_skip
from tests.evaluation.test_evaluate import fails, run

TABLES = [(paper["paper"], table) for paper in papers() for table in paper["tables"]]
each_table = pytest.mark.parametrize(
    ("paper", "table"), TABLES, ids=[f"{name}-{table['table']}".replace(" ", "_") for name, table in TABLES]
)
TEXTS = {
    "LeViT-UNet": "levit-unet.txt",
    "TransFuse": "transfuse.txt",
    "UNet-2022": "unet-2022.txt",
    "attention study": "attention-information-slides.txt",
}
# rows of LeViT-UNet's Table 1 whose printed mean is not the mean of their printed structures
INCONSISTENT = {("LeViT-UNet", "1", "R50 U-Net [23]"), ("LeViT-UNet", "1", "R50 Att-UNet [23]")}


@pytest.fixture
def results(folders):
    for name in ("A", "B"):
        evaluate(
            predictions=folders / name,
            truth=str(folders / "labelsTr"),
            protocol="levit-unet",
            output=folders / f"{name}-result",
        )
    return folders


@each_table
def test_every_printed_number_is_in_the_paper(paper, table):
    text = reference_or_skip(SHARED / "papers", "the papers' texts") / TEXTS[paper]
    first, last = table["text_lines"]
    printed = re.sub(r"<[^>]+>|\$|\\times", " ", "\n".join(text.read_text().split("\n")[first - 1 : last]))
    numbers = {float(n.replace(",", ".")) for n in re.findall(r"\d+(?:[.,]\d+)?", printed)}
    for row in table["rows"]:
        assert set(row["values"]) == set(table["columns"])
        for value in row["values"].values():
            if isinstance(value, int | float):
                assert abs(value) in numbers, (row["method"], value)


@each_table
def test_printed_means_are_the_means_of_the_structures(paper, table):
    structures = [
        c for c in table["columns"] if c[:5] in ("Aorta", "Gallb", "Kidne", "Liver", "Pancr", "Splee", "Stoma")
    ]
    structures += [c for c in table["columns"] if c in ("RV", "Myo", "LV", "PZ", "TZ")]
    mean = "DSC" if "DSC" in table["columns"] else "Mean"
    if not structures or mean not in table["columns"]:
        assert not any(row["method"] in {m for _, _, m in INCONSISTENT} for row in table["rows"])
        return
    for row in table["rows"]:
        average = statistics.mean(row["values"][name] for name in structures)
        rounding = 0.011 if mean == "DSC" else 0.00011
        agrees = average == pytest.approx(row["values"][mean], abs=rounding)
        assert agrees != ((paper, table["table"], row["method"]) in INCONSISTENT), row["method"]


def test_all_tables_of_the_papers_are_there():
    counts = {paper["paper"]: len(paper["tables"]) for paper in papers()}
    assert counts == {"LeViT-UNet": 6, "TransFuse": 6, "UNet-2022": 8, "attention study": 3}
    assert len(printed_points()) == 13


def test_differences_are_model_minus_reference_a_value_a_patient(results):
    result = compare({"A": results / "A-result", "B": str(results / "B-result")})
    row = next(r for r in result["comparisons"] if (r["metric"], r["structure"]) == ("dice", "RV"))
    # B is exact but for one of the two frames of the first patient, two columns off: 0.5 there
    assert result["patient_values"]["B"]["dice"]["RV"] == pytest.approx(
        {"patient001": 0.75, "patient002": 1.0, "patient003": 1.0}
    )
    assert row["patients"] == 3
    assert row["mean"] == pytest.approx((0 + 0.25 + 0.25) / 3)
    assert (row["higher"], row["lower"], row["wilcoxon_p"]) == (2, 0, None)


def test_a_frame_without_a_distance_in_one_model_counts_for_neither(results):
    """Else a model that misses the structure in a patient's harder frame would seem to be the better one."""
    content = json.loads((results / "B-result" / "evaluation.json").read_text())
    misses = copy.deepcopy(content) | {"name": "misses"}
    worst = max(misses["cases"], key=lambda entry: entry["metrics"]["RV"]["hd95"])
    worst["metrics"]["RV"] |= {"hd95": None, "hd": None, "asd": None}
    result = compare({"B": content, "misses": misses})
    row = next(r for r in result["comparisons"] if (r["metric"], r["structure"]) == ("hd95", "RV"))
    assert row["mean"] == 0
    assert (row["cases_without_a_pair"], row["patients_without_a_pair"]) == ([worst["case"]], [])
    assert result["patient_values"]["B"]["hd95"]["RV"] == result["patient_values"]["misses"]["hd95"]["RV"]
    assert "(1 case without a value in both)" in comparison_markdown(result)


def test_seeds_are_averaged_and_folds_put_together(results):
    pooled = compare({"A": results / "A-result", "AB": [results / "A-result", results / "B-result"]})
    assert pooled["models"][1]["pooled_as"] == "seeds"
    assert pooled["patient_values"]["AB"]["dice"]["RV"]["patient002"] == pytest.approx(0.875)
    content = json.loads((results / "B-result" / "evaluation.json").read_text())
    parts = [{**content, "cases": content["cases"][:2]}, {**content, "cases": content["cases"][2:]}]
    for index, part in enumerate(parts):
        (results / f"part{index}.json").write_text(json.dumps(part))
    files = [results / "part0.json", results / "part1.json"]
    folds = compare({"whole": load_evaluation(results / "B-result"), "parts": files})
    assert folds["models"][1]["pooled_as"] == "folds or parts"
    assert all(row["mean"] == 0 for row in folds["comparisons"])
    both = compare({"B": results / "B-result", "twice": [*files, *({**part} for part in parts)]})
    assert both["models"][1]["pooled_as"] == "folds and seeds"
    assert all(row["mean"] == 0 for row in both["comparisons"])
    with pytest.raises(UserError, match="share some of their cases"):
        compare({"A": results / "A-result", "x": [results / "B-result", files[0]]})
    with pytest.raises(UserError, match="not evaluated on the same cases"):
        compare({"A": results / "A-result", "x": files[0]})


def test_seeds_that_give_a_case_to_other_patients_are_refused(results):
    """They would count as further patients."""
    content = json.loads((results / "B-result" / "evaluation.json").read_text())
    other = copy.deepcopy(content)
    for entry in other["cases"]:
        entry["patient"] = entry["case"]
    with pytest.raises(UserError, match="to the patients patient001 and patient001_frame01"):
        compare({"A": results / "A-result", "B": [content, other]})
    with pytest.raises(UserError, match="the results of A and other give the case"):
        compare({"A": results / "A-result", "other": other})


def test_what_a_seed_invents_counts(results):
    content = json.loads((results / "B-result" / "evaluation.json").read_text())
    seeds = [copy.deepcopy(content) for _ in range(2)]
    for seed, dice in zip(seeds, (0.0, None), strict=True):  # the truth lacks the RV: one seed predicts it
        seed["cases"][1]["metrics"]["RV"] |= {"dice": dice, "hd95": None}
    result = compare({"B": content, "seeds": seeds})
    values = result["patient_values"]["seeds"]
    assert values["dice"]["RV"]["patient001"] == pytest.approx(content["cases"][0]["metrics"]["RV"]["dice"] / 2)
    rows = {row["metric"]: row for row in result["comparisons"] if row["structure"] == "RV"}
    assert rows["dice"]["cases_without_a_pair"] == []
    assert rows["hd95"]["cases_without_a_pair"] == [content["cases"][1]["case"]]


def test_compare_writes_its_tables_and_picture(results, capsys):
    run("compare", results / "A-result", f"B={results / 'B-result'}", "-o", results / "compared")
    assert "| B | DSC (%) ↑ | RV | 75.00 | 91.67 | +16.67 |" in capsys.readouterr().out
    assert sorted(path.suffix for path in (results / "compared").iterdir()) == [".csv", ".json", ".md", ".png"]
    assert len((results / "compared" / "comparison.csv").read_text().splitlines()) == 1 + 4 * 4
    assert "at least two" in fails(capsys, "compare", results / "A-result", "-o", results / "compared")
    assert "does not exist" in fails(capsys, "compare", results / "A-result", results / "no", "-o", results / "x")


def test_a_measured_row_says_why_it_is_not_comparable(results):
    content = json.loads((results / "A-result" / "evaluation.json").read_text())
    beside = beside_the_papers([content], "ACDC")
    assert {row["source"] for row in beside["printed"]} == {"LeViT-UNet, table 6", "UNet-2022, table 2"}
    ours, theirs = beside["measured"]
    assert ours["values"]["rv"] == pytest.approx(75.0)
    assert [r.split(":")[0] for r in ours["comparable"]["LeViT-UNet, table 6"]] == ["another split", "another protocol"]
    assert [r.split(":")[0] for r in theirs["comparable"]["LeViT-UNet, table 6"]] == ["another split"]
    text = papers_markdown(beside)
    assert "**not comparable** [1]" in text
    assert "| LeViT-UNet, table 6 | LeViT-UNet-384 |" in text
    # on TransUNet's twelve Synapse cases, by its protocol, a row is comparable
    table = next(t for t in tables_of("Synapse") if (t["paper"], t["table"]) == ("LeViT-UNet", "1"))
    names = {"RV": "aorta", "MYO": "left kidney", "LV": "liver"}
    organs = json.loads(re.sub("|".join(names), lambda match: names[match[0]], json.dumps(content)))
    same = {**organs, "cases": [{**organs["cases"][0], "case": case} for case in table["split_cases"]]}
    comparable = beside_the_papers([same], "Synapse")["measured"][1]["comparable"]
    assert comparable["LeViT-UNet, table 1"] == []
    more = json.loads(json.dumps(same).replace("liver", "inferior vena cava"))
    comparable = beside_the_papers([more], "Synapse")["measured"][1]["comparable"]
    assert "without inferior vena cava" in comparable["LeViT-UNet, table 1"][0]
    assert "without inferior vena cava" in comparable["UNet-2022, table 5"][0]


@pytest.mark.parametrize(
    ("dataset", "structures", "source", "printed"),
    [
        ("Prostate", ("PZ", "TZ"), "TransFuse, table 4", {"dsc": 73.33, "pz": 62.85, "tz": 83.8}),
        ("ISIC-2017", ("lesion",), "TransFuse, table 2", {"dsc": 84.9, "iou": 76.5}),
        ("ISBI-2012", ("cell",), "UNet-2022, table 3", {"iou": 88.3}),
    ],
)
def test_printed_shares_stand_in_per_cent_beside_measured_ones(results, dataset, structures, source, printed):
    content = json.loads((results / "A-result" / "evaluation.json").read_text())
    measured = {
        **content,
        "structures": {name: [1] for name in structures},
        "summary": {name: content["summary"]["RV"] for name in structures},
        "protocol": {"name": "none", "columns": {}, "mean": {}, "structures": {name: {} for name in structures}},
    }
    beside = beside_the_papers([measured], dataset)
    row = next(row for row in beside["printed"] if row["source"] == source)
    assert {name: value for name, value in row["values"].items() if value is not None} == pytest.approx(printed)


def test_polyps_stand_beside_the_papers_test_sets(results):
    """TransFuse's table has a column for each of PraNet's test sets, after which the converter names its cases."""
    content = json.loads((results / "A-result" / "evaluation.json").read_text())
    scores = {"Kvasir_1": 0.9, "Kvasir_2": 0.7, "CVC-300_1": 0.5}
    cases = [
        {**content["cases"][0], "case": case, "protocol": {"polyp": {"mdice": score, "miou": score / 2}}}
        for case, score in scores.items()
    ]
    measured = {
        **content,
        "cases": cases,
        "structures": {"polyp": [1]},
        "summary": {"polyp": content["summary"]["RV"]},
        "protocol": {"name": "polyp", "columns": {}, "mean": {}, "structures": {"polyp": {}}},
    }
    beside = beside_the_papers([measured], "Polyp")
    assert {name.split(" ")[0] for name in beside["test_sets"]} == set(POLYP_TESTS)
    ours, theirs = beside["measured"]
    names = ("Kvasir mDice", "Kvasir mIoU", "CVC-300 mDice", "CVC-ColonDB mDice")
    assert [theirs["values"][name] for name in names] == [pytest.approx(80), pytest.approx(40), pytest.approx(50), None]
    assert not any("mDice" in name for name in ours["values"])
    printed = next(row for row in beside["printed"] if row["method"].startswith("TransFuse-S"))
    assert [printed["values"][name] for name in names] == pytest.approx([91.8, 86.8, 90.2, 77.3])
    heading = next(line for line in papers_markdown(beside).splitlines() if line.startswith("| source"))
    assert heading.split(" | ")[7:10] == ["polyp DSC (%)", "Kvasir mDice (%)", "Kvasir mIoU (%)"]


def test_worst_median_and_best(results):
    content = json.loads((results / "B-result" / "evaluation.json").read_text())
    chosen = chosen_cases(content)
    assert chosen["worst"] == "patient001_frame01"
    assert len(set(chosen.values())) == 3
    prediction, truth = np.array([[0, 1, 2, 1]]), np.array([[1, 0, 1, 1]])
    np.testing.assert_array_equal(error_map(prediction, truth), [[1, 2, 3, 0]])


def test_the_report_is_one_page_that_needs_nothing_else(results, capsys):
    (results / "imagesTr").mkdir()
    for path in (results / "labelsTr").iterdir():
        target = results / "imagesTr" / path.name.replace(".nii.gz", "_0000.nii.gz")
        sitk.WriteImage(sitk.Cast(sitk.ReadImage(str(path)), sitk.sitkFloat32), str(target))
    benchmark = {
        "device": "a machine",
        "modes": ["folded", "inference"],
        "rows": [
            {
                "network": "levit_unet_128s",
                "patch_size": [64, 64],
                "batch_size": batch,
                "seconds_per_image": {"folded": 0.001, "inference": seconds},
                "parameters": 16_000_000,
            }
            for batch, seconds in ((1, 0.02), (4, 0.01))
        ],
    }
    (results / "benchmark.json").write_text(json.dumps(benchmark))
    run(
        *("report", f"A={results / 'A-result'}", f"B={results / 'B-result'}", "-o", results / "report"),
        *("--images", results / "imagesTr", "--benchmark", results / "benchmark.json"),
        *("--network", "A=levit_unet_128s"),
    )
    page = (results / "report" / "report.html").read_text()
    assert "<script" not in page
    assert not re.findall(r"(?:src|href)=\"(?!data:image/png;base64,)", page)
    assert page.count('src="data:image/png;base64,') == 3  # comparison, cases, speed
    for text in ("Compared with A", "Empty structures", "protocol levit-unet", "not comparable", "worst, median"):
        assert text.lower() in page.lower()
    content = json.loads((results / "report" / "report.json").read_text())
    assert content["speed"][0]["images_per_second"] == pytest.approx(100)
    assert content["speed"][0]["batch_size"] == 4
    assert set(content["panel"]) == {"worst", "median", "best"}
    assert "is missing" in fails(
        capsys, "report", results / "A-result", "-o", results / "other", "--images", results / "labelsTr"
    )
    assert "no transcribed paper" in fails(
        capsys, "report", results / "A-result", "-o", results / "other", "--paper-dataset", "knees"
    )


def test_a_case_with_html_in_its_name_is_shown_as_text():
    from nnunetv2_levit.evaluation.html_page import html_page

    page = html_page("<b>", ["| a |\n| --- |\n| <script>x</script> |\n"])
    assert "<script" not in page
    assert "<b>" not in page
