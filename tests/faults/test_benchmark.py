"""What `benchmark` refuses before any network is built."""

import pytest

from nnunetv2_levit.benchmark import measure
from tests.support.faults import assert_refused, run, snapshot

NET = "tests.network_check.broken_networks:Good"
REFUSED = {
    "a patch below 0": (["--patch", "-32"], ["-32"]),
    "a patch of 0": (["--patch", "0"], ["0x0", "32 to 1024"]),
    "a patch that is too large": (["--patch", "64", "99999"], ["99999x99999", "32 to 1024"]),
    "a patch with a side too many": (["--patch", "32x32x32"], ["32x32x32"]),
    "a patch that nnU-Net does not plan": (["--patch", "100"], ["nnunet_plain", "112x112"]),
    "a patch twice": (["--patch", "64", "64x64"], ["patch 64x64", "twice"]),
    "no images": (["--batch", "1", "0"], ["batch size, 0"]),
    "images below 0": (["--batch", "-1"], ["batch size, -1"]),
    "images without end": (["--batch", "1000000000"], ["batch size, 1000000000"]),
    "a batch twice": (["--batch", "2", "2"], ["batch size 2", "twice"]),
    "no repetitions": (["--repetitions", "0"], ["repetitions, 0"]),
    "no classes": (["--classes", "0"], ["classes, 0"]),
    "classes without end": (["--classes", "99999999"], ["classes, 99999999"]),
    "an unknown mode": (["--modes", "guess"], ["guess", "inference"]),
    "a mode twice": (["--modes", "folded", "folded"], ["mode folded", "twice"]),
    "an unknown network": (["--networks", "levit_unet_128s", "unet"], ["'unet'", "levit_unet_128s"]),
    "a network twice": (["--networks", "transunet", "transunet"], ["transunet", "twice"]),
    "settings of no network": (["--networks", "nnunet_plain", "--set", "a=1"], ["--set", "one network"]),
    "settings of two networks": (["--networks", NET, "transunet", "--set", "a=1"], ["--set", "one network"]),
    "settings that are none": (["--networks", NET, "--set", "width"], ["'width'", "key=value"]),
    "settings that the class does not take": (["--networks", NET, "--set", "width=3"], ["width", "in_channels"]),
    "an output that is its picture": (["-o", "{}/c.png"], ["c.png", ".json"]),
    "an output that is its table": (["-o", "{}/c.md"], ["c.md", ".json"]),
    "an output that is a folder": (["-o", "{}/folder"], ["folder"]),
    "a table that is a folder": (["-o", "{}/t.json"], ["t.md"]),
    "an output below a file": (["-o", "{}/file/c.json"], ["file is not a folder"]),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_requests_are_refused_before_the_work(kind, tmp_path, capsys, monkeypatch):
    flags, words = REFUSED[kind]
    (tmp_path / "folder").mkdir()
    (tmp_path / "t.md").mkdir()
    (tmp_path / "file").write_text("")
    monkeypatch.setattr(measure, "build", None)
    before = snapshot(tmp_path)
    outcome = run(capsys, "benchmark", *(flag.format(tmp_path) for flag in flags))
    if outcome.sentences:
        assert_refused(outcome, *words)
    else:  # the command line's own sentence
        assert outcome.code == 2
        assert all(word in outcome.err for word in words), outcome
    assert snapshot(tmp_path) == before
