import pickle
from fractions import Fraction

import numpy as np
import pytest
import torch

from nnunetv2_levit.errors import UserError
from nnunetv2_levit.nnunet.checkpoints import RESUMABLE, TRUST_VARIABLE, check_checkpoint, load_checkpoint
from nnunetv2_levit.nnunet.network_classes import check_network_classes
from tests.support.hostile_checkpoints import CreatesFile, as_numpy_1_wrote, genuine


def _old_format(content, path):
    torch.save(content, path, _use_new_zipfile_serialization=False)


def _numpy_1(content, path):
    torch.save(content, path)
    assert b"numpy._core" in path.read_bytes()
    as_numpy_1_wrote(path)
    assert b"numpy._core" not in path.read_bytes()


@pytest.mark.parametrize("write", [torch.save, _old_format, _numpy_1])
def test_genuine_checkpoints_of_every_version_are_read(write, tmp_path):
    path = tmp_path / "checkpoint_final.pth"
    write(genuine(), path)
    check_checkpoint(path, keys=RESUMABLE)
    content = load_checkpoint(str(path))
    assert content["_best_ema"] == 0.25
    assert content["logging"]["train_losses"] == [np.float32(0.5)]
    assert content["network_weights"]["a"][0] == 1


FOREIGN = {
    "a call": (lambda created: CreatesFile(created), "os.makedirs"),
    "an object of the standard library": (lambda _: Fraction(1, 2), "fractions.Fraction"),
    "a module": (lambda _: torch.nn.Linear(1, 1), "torch.nn.modules.linear.Linear"),
    "an array": (lambda _: np.zeros(2), "_reconstruct"),
}


@pytest.mark.parametrize("write", [torch.save, _old_format])
@pytest.mark.parametrize("fault", FOREIGN)
def test_what_is_foreign_is_named_and_not_run(fault, write, tmp_path):
    make, words = FOREIGN[fault]
    path, created = tmp_path / "checkpoint_final.pth", tmp_path / "created"
    write({**genuine(), "extra": make(created)}, path)
    for read in (check_checkpoint, load_checkpoint):
        with pytest.raises(UserError, match=words) as refused:
            read(path)
        assert all(word in str(refused.value) for word in (str(path), "--trust-checkpoint", TRUST_VARIABLE))
    assert not created.exists()
    check_checkpoint(path, trust=True)  # for a loader that is not ours: it alone runs what is in there
    assert not created.exists()
    assert "extra" in load_checkpoint(path, trust=True)
    assert created.exists() == (fault == "a call")


@pytest.mark.parametrize("protocol", range(6))
def test_no_pickle_protocol_runs_code(protocol, tmp_path):
    path, created = tmp_path / "checkpoint_final.pth", tmp_path / "created"
    hostile = {**genuine(), "extra": CreatesFile(created)}
    path.write_bytes(pickle.dumps(hostile, protocol=protocol))
    with pytest.raises(UserError):
        load_checkpoint(path)
    torch.save(hostile, path, pickle_protocol=protocol)
    with pytest.raises(UserError, match="--trust-checkpoint"):
        load_checkpoint(path)
    assert not created.exists()


def _whole(path):
    torch.save(genuine(), path)
    return path.read_bytes()


BYTES = {
    "empty": (lambda whole: b"", "is empty"),
    "cut short": (lambda whole: whole[: len(whole) // 2], "not a readable checkpoint"),
    "a letter": (lambda whole: b"x", "not a readable checkpoint"),
    "a web page": (lambda whole: b"<!DOCTYPE html><title>404</title>" * 20, "not a readable checkpoint"),
    "zeros": (lambda whole: bytes(len(whole)), "not a readable checkpoint"),
    "an archive without its end": (lambda whole: b"PK\x03\x04" + bytes(50), "not a readable checkpoint"),
}


@pytest.mark.parametrize("fault", BYTES)
def test_a_damaged_file_is_refused(fault, tmp_path):
    damage, words = BYTES[fault]
    path = tmp_path / "checkpoint_final.pth"
    path.write_bytes(damage(_whole(path)))
    with pytest.raises(UserError, match=words) as refused:
        check_checkpoint(path)
    assert str(path) in str(refused.value)
    assert "\n" not in str(refused.value)


CONTENT = {
    "a list": ([1], "holds list"),
    "nothing": ({}, "no network_weights, init_args, trainer_name"),
    "weights alone": ({"network_weights": genuine()["network_weights"]}, "no init_args, trainer_name"),
    "weights as a list": ({**genuine(), "network_weights": [1]}, "its network_weights is list"),
    "weights that are numbers": ({**genuine(), "network_weights": {"a": 1.0}}, "its weight 'a' is no tensor"),
    "no weights": ({**genuine(), "network_weights": {}}, "holds no weights"),
    "a trainer that is a number": ({**genuine(), "trainer_name": 1}, "its trainer_name is int"),
    "no configuration": ({**genuine(), "init_args": {}}, "name no configuration"),
}


@pytest.mark.parametrize("fault", CONTENT)
def test_what_is_no_checkpoint_is_refused(fault, tmp_path):
    content, words = CONTENT[fault]
    torch.save(content, tmp_path / "checkpoint_final.pth")
    with pytest.raises(UserError, match=words):
        check_checkpoint(tmp_path / "checkpoint_final.pth")


def test_what_is_missing_is_refused(tmp_path):
    with pytest.raises(UserError, match="there is no checkpoint"):
        check_checkpoint(tmp_path / "absent.pth", trust=True)
    with pytest.raises(UserError, match="is a folder"):
        check_checkpoint(tmp_path)
    torch.save({key: value for key, value in genuine().items() if key != "optimizer_state"}, tmp_path / "x.pth")
    check_checkpoint(tmp_path / "x.pth")
    with pytest.raises(UserError, match="no optimizer_state"):
        check_checkpoint(tmp_path / "x.pth", keys=RESUMABLE)


def _plans(name, **keywords):
    architecture = {"network_class_name": name, "arch_kwargs": keywords, "_kw_requires_import": list(keywords)}
    return {"configurations": {"2d": {"architecture": architecture}, "2d_p64x64": {"inherits_from": "2d"}}}


UNET = "dynamic_network_architectures.architectures.unet.PlainConvUNet"


@pytest.mark.parametrize(
    "plans",
    [
        _plans(UNET, conv_op="torch.nn.modules.conv.Conv2d", dropout_op=None, nonlin="torch.nn.LeakyReLU"),
        _plans("dynamic_network_architectures.architectures.moved.PlainConvUNet"),
        _plans("unused"),
        {"configurations": {"2d": {"UNet_class_name": "PlainConvUNet"}}},  # nnU-Net 2.0 to 2.2
    ],
)
def test_plans_that_name_networks_and_layers_pass(plans, tmp_path):
    check_network_classes(plans, tmp_path / "plans.json")


@pytest.mark.parametrize(
    ("plans", "word"),
    [
        (_plans("os.system"), "os.system"),
        (_plans("eval"), "eval"),
        (_plans("antigravity"), "antigravity"),
        (_plans("torch.hub.load"), "torch.hub.load"),
        (_plans(UNET.replace("PlainConvUNet", "torch.hub.load")), "unet.torch.hub.load"),
        (_plans(UNET, conv_op="subprocess.Popen"), "subprocess.Popen"),
        (_plans(["os.system"]), "os.system"),
    ],
)
def test_plans_that_name_anything_else_are_refused(plans, word, tmp_path):
    with pytest.raises(UserError, match=word) as refused:
        check_network_classes(plans, tmp_path / "plans.json")
    assert "--trust-checkpoint" in str(refused.value)
    assert "plans.json" in str(refused.value)
