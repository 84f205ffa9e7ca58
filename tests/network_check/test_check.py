"""Networks that are right, and one for each trap: what `check-network` says of them, and its exit codes."""

import json
from contextlib import nullcontext

import pytest
import torch
from nnunetv2.run.load_pretrained_weights import load_pretrained_weights

from nnunetv2_levit.any_network.adapter import AdaptedNetwork
from nnunetv2_levit.errors import UserError
from nnunetv2_levit.network_check import check as check_module
from nnunetv2_levit.network_check.check import check_network, check_text
from nnunetv2_levit.network_check.rules import RULES
from tests.network_check import broken_networks
from tests.support.faults import run

MODULE = broken_networks.__name__
SHARED = {"in_channels": "{channels}", "num_classes": "{classes}"}
SLOW = ("compile", "onnx", "cost")


def statuses(result):
    return {row["rule"]: row["status"] for row in result["rules"]}


def check(name, *, skip=SLOW, **settings):
    return check_network(f"{MODULE}:{name}", settings=settings, skip=skip)


# network, rule that it breaks, words of what is said or of the remedy
BROKEN = [
    ("OnlyRgb", "channels and classes", "3 channels"),
    ("FourClasses", "channels and classes", "give 4 channels"),
    ("Softmax", "logits", "softmax"),
    ("Tanh", "logits", "tanh"),
    ("UnusedLayer", "gradients", "left_over.weight and 1 more"),
    ("Overflow", "half precision", "not finite"),
    ("SwallowsNan", "nan", "nan_to_num"),
    ("StaleCache", "other weights", "cache"),
    ("Lock", "copies", "deepcopy fails"),
    ("MixesImages", "each image alone", "mean"),
    ("DropsAlways", "repeatable", "nn.Dropout"),
    ("QuarterResolution", "sizes", "4x64x64"),
    ("NormWithActivation", "several GPUs", "SyncBatchNorm"),
    ("FailsInEvaluation", "sizes", "in evaluation"),
]


@pytest.mark.parametrize(("name", "rule", "words"), BROKEN, ids=lambda value: str(value))
def test_a_broken_network_breaks_its_rule_alone(name, rule, words):
    result = check(name)
    assert not result["kept"]
    assert [row for row, status in statuses(result).items() if status == "broken"] == [rule]
    (row,) = (row for row in result["rules"] if row["rule"] == rule)
    assert words in f"{row['said']} {row['remedy']}"
    assert row["remedy"]


# network, rule, what the adapter does
CURED = [
    ("Good", "constructor", []),
    ("PoolsToOnePixel", "constructor", []),
    ("FixedSize", "constructor", []),
    ("MultiplesOf16", "sizes", ["pads to multiples of 16"]),
    ("ListOfOutputs", "sizes", ["takes output 1"]),
    ("HeadsOfTrainingAlone", "constructor", []),
    ("TupleInEvaluation", "sizes", ["takes output 1"]),
]


@pytest.mark.parametrize(("name", "rule", "does"), CURED, ids=[row[0] for row in CURED])
def test_the_adapter_cures_it(name, rule, does):
    result = check(name)
    assert result["kept"]
    assert statuses(result)[rule] == "adapter"
    assert result["adapter"] == does


# network, rule, words: nnU-Net trains and predicts all the same, so that no rule is broken
REMARKS = [
    ("Good", "pretrained weights", "network.head.weight has no .seg_layers. in its name"),
    ("SizedTable", "pretrained weights", "network.table depends on the patch size"),
    ("Lambda", "copies", "pickling fails"),
    ("SquareSide", "sizes", "square patches only"),
]


@pytest.mark.parametrize(("name", "rule", "words"), REMARKS, ids=[row[0] for row in REMARKS])
def test_what_nnunet_does_without_is_a_remark(name, rule, words):
    result = check(name)
    (row,) = (row for row in result["rules"] if row["rule"] == rule)
    assert (result["kept"], row["status"]) == (True, "remark")
    assert words in row["said"]
    assert row["remedy"]


def test_nnunet_stops_at_the_heads_that_the_remark_names(tmp_path):
    """The remark against nnU-Net's own loader, for the head that it names and for one that it does not."""
    for name, stops in (("Good", True), ("SegLayers", False)):
        three, four = (
            AdaptedNetwork(1, classes, network=f"{MODULE}.{name}", arguments=SHARED, image_size=(32, 32))
            for classes in (3, 4)
        )
        torch.save({"network_weights": three.state_dict()}, tmp_path / "weights.pth")
        with pytest.raises(AssertionError, match=r"network\.head") if stops else nullcontext():
            load_pretrained_weights(four, str(tmp_path / "weights.pth"))
    assert statuses(check("SegLayers"))["pretrained weights"] == "kept"


def test_the_state_dict_that_depends_on_deep_supervision_is_named():
    (row,) = (row for row in check("HeadsOfTrainingAlone")["rules"] if row["rule"] == "constructor")
    assert "the state dict depends on deep_supervision" in row["said"]


def test_nnunets_own_signature_needs_no_adapter():
    result = check("NnUNetsOwn", strides=[[1, 1], [2, 2], [2, 2]])
    rules = statuses(result)
    assert rules["constructor"] == rules["sizes"] == rules["pretrained weights"] == "kept"
    assert result["adapter"] == []


def test_a_branch_on_values_breaks_compilation_and_export():
    pytest.importorskip("onnxscript")
    result = check("BranchesOnValues", skip=("cost",))
    broken = [row for row, status in statuses(result).items() if status == "broken"]
    assert broken == ["onnx"]
    (row,) = (row for row in result["rules"] if row["rule"] == "compile")
    assert "several graphs" in row["said"]


def test_the_adapter_keeps_the_activations_of_timms_norms():
    """torch's conversion to synchronised batch norms would drop them without a word."""
    assert statuses(check("TimmNorm"))["several GPUs"] == "kept"


def test_arguments_of_other_names_are_set():
    settings = {"planes_in": "{channels}", "planes_out": "{classes}", "widths": [6], "shape": "{image_size}"}
    assert check("NeedsWidths", **settings)["kept"]


def test_a_good_network_and_its_cost(capsys):
    words = ("--skip", "compile", "--patch", "32", "32")
    done = run(capsys, "check-network", f"{MODULE}:Good", *words)
    assert done.code == 0
    lines = done.out.splitlines()
    assert len([line for line in lines if line.startswith(("kept", "adapter"))]) == 14
    assert len([line for line in lines if line.startswith("cost")]) == 2
    assert "all rules are kept through the adapter" in lines[-1]


def test_an_impossible_patch_is_known_before_anything_is_built(monkeypatch):
    monkeypatch.setattr(check_module, "find_network", None)
    with pytest.raises(UserError, match="112x112"):
        check_network(f"{MODULE}:Good", patch_size=(100, 100))


@pytest.mark.parametrize(
    ("name", "patch", "said"),
    [
        ("FailsOnNumbers", (32, 32), "FailsOnNumbers: 0.0 M parameters, multiply-adds not counted and "),
        ("SquareSide", (32, 64), "cost         it fails (UserError: the network takes one number"),
    ],
)
def test_a_cost_that_can_not_be_measured_leaves_the_rules(name, patch, said):
    result = check_network(f"{MODULE}:{name}", skip=tuple(RULES), patch_size=patch)
    assert statuses(result)["constructor"] == "adapter"
    assert said in check_text(result)


def test_exit_codes_and_json(capsys, tmp_path):
    file = tmp_path / "check.json"
    done = run(capsys, "check-network", f"{MODULE}:Softmax", "--skip", *SLOW, "--json", "-o", file)
    assert done.code == 1
    assert json.loads(done.out) == json.loads(file.read_text())
    assert json.loads(done.out)["kept"] is False
    assert "broken      logits" in run(capsys, "check-network", f"{MODULE}:Softmax", "--skip", *SLOW).out
