"""What is accepted as nnU-Net's and our own JSON, and the sentence where it is not."""

import copy
import json
import multiprocessing
import os

import pytest

from nnunetv2_levit import json_checks, schemas
from nnunetv2_levit.errors import UserError
from nnunetv2_levit.files import beside, check_writable, read_json, write_json, write_whole, written_together
from nnunetv2_levit.nnunet.dataset_description import structures_of
from tests.support.faults import snapshot
from tests.support.json_fuzz import BENCHMARK, DATASET, PLANS

GENUINE = {
    "labels": (schemas.DATASET_WITH_IMAGES, DATASET),
    "modality for channel_names": (
        schemas.DATASET_WITH_IMAGES,
        {"modality": {"0": "CT"}, "labels": {"background": 0, "a": 1}, "file_ending": ".png"},
    ),
    "regions and an ignore label": (
        schemas.DATASET_WITH_IMAGES,
        {
            **DATASET,
            "labels": {"background": 0, "whole": [1, 2], "core": 2, "ignore": 3},
            "regions_class_order": [1, 2],
            "overwrite_image_reader_writer": "SimpleITKIO",
        },
    ),
    "digits in quotes": (schemas.DATASET, {"labels": {"background": "0", "a": "1"}}),
    "keys of others": (schemas.DATASET, {**DATASET, "tensorImageSize": "3D", "x": {"y": [float("nan"), None]}}),
    "plans": (schemas.PLANS_OF_MODEL, PLANS),
    "plans of a cascade": (
        schemas.PLANS_OF_MODEL,
        {
            **PLANS,
            "configurations": {
                "3d_lowres": {"patch_size": [16, 64, 64], "spacing": [3.0, 2, 2], "next_stage": "3d_cascade_fullres"},
                "3d_fullres": {"patch_size": [16, 64, 64], "next_stage": None, "previous_stage": None},
                "3d_cascade_fullres": {"inherits_from": "3d_fullres", "previous_stage": "3d_lowres"},
            },
        },
    ),
    "intensities of a channel without foreground": (
        schemas.PLANS,
        {**PLANS, "foreground_intensity_properties_per_channel": {"0": {"mean": float("nan")}}},
    ),
    "folds": (schemas.SPLITS, [{"train": ["a"], "val": []}]),
    "benchmark": (schemas.BENCHMARK, BENCHMARK),
}


def test_labels_in_quotes_are_labels_as_nnunet_reads_them():
    assert structures_of({"labels": {"background": "0", "a": "1", "b": ["1", 2], "ignore": "3"}}) == (
        {"a": (1,), "b": (1, 2)},
        3,
    )


@pytest.mark.parametrize("kind", GENUINE)
def test_genuine_files_are_accepted(kind, tmp_path):
    schema, content = GENUINE[kind]
    (tmp_path / "x.json").write_text(json.dumps(content))
    assert json.dumps(read_json(tmp_path / "x.json", what="it", schema=schema)) == json.dumps(content)


WRONG = {
    "a side that is text": (schemas.PLANS, PLANS, ("configurations", "2d", "patch_size", 0), "64",
                            "configurations/2d/patch_size/0 is not a whole number above 0 but \"64\""),
    "three numbers in one": (schemas.PLANS, PLANS, ("configurations", "2d", "patch_size"), [64],
                             "configurations/2d/patch_size is not a list of two or three whole numbers above 0"),
    "true for a number": (schemas.BENCHMARK, BENCHMARK, ("rows", 0, "batch_size"), True, "rows/0/batch_size"),
    "infinite": (schemas.BENCHMARK, BENCHMARK, ("rows", 1, "gmac_per_image"), float("inf"), "not a finite number"),
    "beyond any integer": (schemas.BENCHMARK, BENCHMARK, ("rows", 0, "parameters"), 10**400, "rows/0/parameters"),
    "background elsewhere": (schemas.DATASET, DATASET, ("labels", "background"), 1, "labels/background is not 0"),
    "an empty region": (schemas.DATASET, DATASET, ("labels", "RV"), [], "labels/RV is not a label"),
    "a number as a name": (schemas.DATASET, DATASET, ("file_ending",), 3, "file_ending is not a file ending"),
    "half a character": (schemas.DATASET, DATASET, ("name",), "\ud800", "half a character"),
}  # fmt: skip


@pytest.mark.parametrize("kind", WRONG)
def test_the_sentence_names_file_place_and_what_is_expected(kind, tmp_path):
    schema, content, place, value, words = WRONG[kind]
    damaged = parent = copy.deepcopy(content)
    for key in place[:-1]:
        parent = parent[key]
    parent[place[-1]] = value
    path = tmp_path / "x.json"
    path.write_text(json.dumps(damaged))
    with pytest.raises(UserError) as refused:
        read_json(path, what="it", schema=schema)
    sentence = str(refused.value)
    assert sentence.startswith(f"{path}: ")
    assert words in sentence
    assert sentence.count("\n") == 0


NOT_JSON = {
    "nothing": (b"", "empty"),
    "other text": (b"labels: 3", "Expecting value"),
    "no UTF-8": (b'{"a": "\xff"}', "no UTF-8"),
    "a name twice": (b'{"a": 1, "a": 2}', "'a' twice"),
    "nested without end": (b"[" * 100_000, "nested"),
    "nested deeply": (b"[" * 100 + b"]" * 100, "nested"),
    "digits without end": (b"1" * 5000, "digits"),
}


@pytest.mark.parametrize("kind", NOT_JSON)
def test_what_is_no_json_is_named(kind, tmp_path):
    content, words = NOT_JSON[kind]
    path = tmp_path / "x.json"
    path.write_bytes(content)
    with pytest.raises(UserError, match=words) as refused:
        read_json(path, what="it")
    assert str(path) in str(refused.value)


@pytest.mark.parametrize("path", ["folder", "none.json", "file/x.json", "n" * 300], ids=lambda path: path[:12])
def test_what_is_no_file_is_named(path, tmp_path):
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=path):
        read_json(tmp_path / path, what="it")


@pytest.mark.parametrize(("parent", "words"), [("none", "'none', which is not there"), ("b", "itself")])
def test_inheritance_that_leads_nowhere(parent, words, tmp_path):
    plans = {"configurations": {"a": {"inherits_from": parent}, "b": {"inherits_from": "a"}}}
    with pytest.raises(UserError, match=words):
        json_checks.check_inheritance(plans, path=tmp_path)


def test_what_is_no_ordinary_file_is_never_replaced(tmp_path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with pytest.raises(UserError, match="no ordinary file"):
        check_writable(pipe)
    with pytest.raises(UserError, match="no ordinary file"):
        write_whole(pipe, lambda path: path.write_text("x"))
    assert pipe.is_fifo()
    assert [path.name for path in tmp_path.iterdir()] == ["pipe"]


UNWRITABLE = {
    "below a file": "file/x.json",
    "a folder": "folder",
    "no name": "/",
    "a long name": "n" * 300,
    "the system": "/proc/x/y.json",
}


@pytest.mark.parametrize("kind", UNWRITABLE)
def test_a_place_that_cannot_be_written_is_found_before_the_work_and_leaves_nothing(kind, tmp_path):
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").write_text("")
    before = snapshot(tmp_path)
    target = tmp_path / UNWRITABLE[kind]
    with pytest.raises(UserError):
        check_writable(target)
    with pytest.raises(UserError):
        write_whole(target, lambda path: path.write_text("x"))
    assert snapshot(tmp_path) == before
    check_writable(tmp_path / "new" / "x.json")
    check_writable(tmp_path / "new", folder=True)
    assert snapshot(tmp_path) == before


def test_files_are_written_all_or_none(tmp_path):
    folder = tmp_path / "new" / "out"

    def fill(folder, *names, error=None):
        with written_together(folder) as partial:
            for name in names:
                (partial / name).write_text("new")
            if error is not None:
                raise error

    with pytest.raises(UserError, match="No space"):
        fill(folder, "a", error=OSError(28, "No space left on device"))
    assert snapshot(tmp_path) == {}
    with written_together(folder) as partial:
        (partial / "a").write_text("old")
    (folder / "b").mkdir()
    before = snapshot(tmp_path)
    with pytest.raises(UserError, match="b' is a folder"):
        fill(folder, "a", "b")
    assert snapshot(tmp_path) == before


def _write_often(path):
    for number in range(200):
        write_json(path, {"number": number})


def test_several_processes_write_one_file(tmp_path):
    """As the parts of a prediction do, into one folder."""
    context = multiprocessing.get_context("fork")
    processes = [context.Process(target=_write_often, args=(tmp_path / "plans.json",)) for _ in range(4)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    assert [process.exitcode for process in processes] == [0] * 4
    assert [path.name for path in tmp_path.iterdir()] == ["plans.json"]


def test_a_failed_write_says_so_where_its_folder_cannot_be_cleaned(tmp_path, monkeypatch):
    def denied(*_, **__):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("pathlib.Path.unlink", denied)
    with pytest.raises(UserError, match="Permission denied"):
        write_whole(tmp_path / "x", denied)


def test_a_name_that_is_that_of_its_own_picture(tmp_path):
    assert beside(tmp_path / "c.json", ".png", ".md") == [tmp_path / "c.png", tmp_path / "c.md"]
    for name in ("c.png", "c.PNG", "c.md"):
        with pytest.raises(UserError, match="json"):
            beside(tmp_path / name, ".png", ".md")
