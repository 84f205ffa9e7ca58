"""What `evaluate`, `compare` and `report` refuse before the work, and that nothing stays behind."""

import json

import pytest

from nnunetv2_levit.evaluation import report as report_module
from nnunetv2_levit.evaluation.evaluate import evaluate
from tests.evaluation.conftest import folders  # noqa: F401 (a fixture)
from tests.support.faults import assert_refused, run, snapshot
from tests.support.json_fuzz import BENCHMARK


@pytest.fixture
def results(folders):  # noqa: F811
    for name in ("A", "B"):
        evaluate(predictions=folders / name, truth=folders / "labelsTr", output=folders / f"{name}-result")
    (folders / "benchmark.json").write_text(json.dumps(BENCHMARK))
    (folders / "file").write_text("")
    return folders


def _evaluation(results, change):
    path = results / "B-result" / "evaluation.json"
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


EVALUATE = {
    "a tolerance of infinity": (["--tolerance", "inf"], ["tolerance", "inf"]),
    "a tolerance that is no number": (["--tolerance", "nan"], ["tolerance", "nan"]),
    "a tolerance below 0": (["--tolerance", "-1"], ["tolerance", "-1"]),
    "no processes": (["-w", "0"], ["-w 1"]),
    "processes below 0": (["-w", "-3"], ["-w 1"]),
    "an unknown protocol": (["--protocol", "none"], ["none", "transunet"]),
    "an expression that is none": (["--patient", "("], ["--patient"]),
    "an output below a file": (["-o", "{}/file/x"], ["file is not a folder"]),
    "an output that is a file": (["-o", "{}/file"], ["file is not a folder"]),
    "an output in the system": (["-o", "/proc/none"], ["/proc/none"]),
}


@pytest.mark.parametrize("kind", EVALUATE)
def test_evaluate_refuses(kind, results, capsys):
    flags, words = EVALUATE[kind]
    before = snapshot(results)
    call = ("evaluate", "-p", results / "A", "-g", results / "labelsTr", *(flag.format(results) for flag in flags))
    assert_refused(run(capsys, *call), *words)
    assert snapshot(results) == before


# arguments (with the folder for {}) and words
COMPARE = {
    "one result": (["{}/A-result"], ["at least two"]),
    "one name twice": (["a={}/A-result", "a={}/B-result"], ["the same name"]),
    "one result twice": (["a={}/A-result", "b={}/A-result/evaluation.json"], ["the same result"]),
    "one result pooled twice": (["a={}/A-result", "b={0}/B-result,{0}/B-result"], ["given twice"]),
    "an empty name": (["={}/A-result", "{}/B-result"], ["NAME=RESULT"]),
    "a name without a result": (["a=", "{}/B-result"], ["NAME=RESULT"]),
    "an empty part": (["a={}/A-result,", "{}/B-result"], ["NAME=RESULT"]),
    "a folder without a result": (["{}/A", "{}/B-result"], ["A/evaluation.json does not exist"]),
    "a comparison": (["{}/comparison.json", "{}/B-result"], ["comparison.json", "kind is not 'evaluation'"]),
    "a table": (["{}/A-result/evaluation.csv", "{}/B-result"], ["evaluation.csv is not a result"]),
}
DAMAGED = {
    "a key that another version lacks": (lambda e: e.pop("unit"), ["lacks 'unit'", "made by", "again"]),
    "a metric that is missing": (
        lambda e: e["cases"][2]["metrics"]["RV"].pop("asd"),
        ["cases/2/metrics/RV lacks 'asd'"],
    ),
    "a share above 1": (lambda e: e["cases"][0]["metrics"]["LV"].update(dice=2), ["cases/0/metrics/LV/dice"]),
    "a value that is missing": (
        lambda e: e["cases"][1]["metrics"]["LV"].update(dice=None),
        ["cases/1", "dice is None"],
    ),
    "metrics that contradict": (lambda e: e["cases"][1]["metrics"]["LV"].update(iou=0.1), ["cases/1", "IoU"]),
    "a case twice": (lambda e: e["cases"].append(e["cases"][0]), ["cases/6", "twice"]),
    "a structure less": (lambda e: e["structures"].pop("LV"), ["cases/0", "structures"]),
    "another structure": (lambda e: e["cases"][0]["presence"].pop("LV"), ["presence", "structures"]),
    "an unknown protocol": (lambda e: e.update(protocol={"name": "x"}), ["there is no protocol 'x'"]),
    "no cases": (lambda e: e.update(cases=[]), ["cases is not a list of cases"]),
    "a number that is none": (lambda e: e.update(note=float("nan")), ["note", "finite"]),
    "another tolerance": (lambda e: e.update(tolerance=3), ["differ in tolerance"]),
}


@pytest.mark.parametrize("kind", COMPARE)
def test_compare_refuses(kind, results, capsys):
    arguments, words = COMPARE[kind]
    (results / "comparison.json").write_text('{"kind": "comparison"}')
    before = snapshot(results)
    outcome = run(capsys, "compare", *(text.format(results) for text in arguments), "-o", results / "out")
    assert_refused(outcome, *words)
    assert snapshot(results) == before


@pytest.mark.parametrize("kind", DAMAGED)
@pytest.mark.parametrize("command", ["compare", "report"])
def test_damaged_results_are_refused(command, kind, results, capsys):
    change, words = DAMAGED[kind]
    _evaluation(results, change)
    before = snapshot(results)
    outcome = run(capsys, command, results / "A-result", f"B={results / 'B-result'}", "-o", results / "out")
    assert_refused(outcome, *words, *([] if "differ" in words[0] else ["B-result/evaluation.json"]))
    assert snapshot(results) == before


REPORT = {
    "an output below a file": (["-o", "{}/file/x"], ["file is not a folder"]),
    "an output that is a file": (["-o", "{}/file"], ["file is not a folder"]),
    "images that are not there": (["--images", "{}/none"], ["none is not a folder"]),
    "images of other cases": (["--images", "{}/A"], ["_0000.nii.gz is missing"]),
    "curves without logs": (["--curves", "{}/A"], ["A holds no training_log"]),
    "a dataset without a paper": (["--paper-dataset", "knees"], ["knees"]),
    "a benchmark that is none": (
        ["--benchmark", "{}/dataset.json", "--network", "A=x"],
        ["dataset.json", "lacks 'device'"],
    ),
    "a benchmark that is missing": (["--benchmark", "{}/none", "--network", "A=x"], ["none does not exist"]),
    "a benchmark alone": (["--benchmark", "{}/benchmark.json"], ["belong together"]),
    "a network alone": (["--network", "A=x"], ["belong together"]),
    "a network of no result": (["--benchmark", "{}/benchmark.json", "--network", "Z=x"], ["'Z'"]),
    "a network twice": (["--benchmark", "{}/benchmark.json", "--network", "A=x", "A=y"], ["'A' twice"]),
    "a network that was not measured": (["--benchmark", "{}/benchmark.json", "--network", "A=x"], ["no row of x"]),
    "a network without a name": (["--network", "=x"], ["NAME=VALUE"]),
}


@pytest.mark.parametrize("kind", REPORT)
def test_report_refuses_and_leaves_nothing(kind, results, capsys):
    flags, words = REPORT[kind]
    before = snapshot(results)
    flags = [flag.format(results) for flag in flags]
    outcome = run(capsys, "report", f"A={results / 'A-result'}", "-o", results / "out", *flags)
    assert_refused(outcome, *words)
    assert snapshot(results) == before


def test_a_disk_that_fills_midway_leaves_the_old_report(results, capsys, monkeypatch):
    call = ("report", f"A={results / 'A-result'}", "-o", results / "out")
    assert run(capsys, *call).code == 0
    before = snapshot(results)

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(report_module, "html_page", full)
    assert_refused(run(capsys, *call), "No space left", "out")
    assert snapshot(results) == before


HOSTILE = "![y](http://evil/y.png) $\\frac{ <img src=http://evil/z.png> =1|"


def test_hostile_names_are_shown_as_they_are(results, capsys):
    for name in ("A", "B"):
        path = results / f"{name}-result" / "evaluation.json"
        text = path.read_text().replace('"RV"', json.dumps("=" + HOSTILE)).replace('"patient001"', json.dumps(HOSTILE))
        path.write_text(text.replace('"patient002_frame01"', json.dumps("=HYPERLINK(1)")))
    call = (f"{HOSTILE}={results / 'A-result'}".replace("=1|=", "1|="), f"_b={results / 'B-result'}")
    (results / "x").mkdir()
    names = [call[0].replace("src=http", "src http"), call[1]]
    assert run(capsys, "report", *names, "-o", results / "out").code == 0
    page = (results / "out" / "report.html").read_text()
    assert "<img src=http" not in page
    assert "href" not in page
    assert "![y](http://evil/y.png)" in page
    for path in (results / "out").glob("*.csv"):
        assert not [
            line for line in path.read_text().splitlines() if line.startswith("=") or ",=" in line or ',"=' in line
        ]
