"""Reading TransUNet's .npy.h5 files needs the extra synapse-h5."""

import importlib.util

import numpy as np

from tests.support.faults import assert_refused, run, snapshot


def test_a_missing_h5py_is_one_sentence(tmp_path, capsys, monkeypatch):
    source, raw = tmp_path / "source", tmp_path / "raw"
    (source / "train_npz").mkdir(parents=True)
    (source / "test_vol_h5").mkdir()
    raw.mkdir()
    monkeypatch.setenv("nnUNet_raw", str(raw))
    volume = np.zeros((8, 10), np.float32)
    np.savez(source / "train_npz" / "case0005_slice000.npz", image=volume, label=volume)
    (source / "test_vol_h5" / "case0001.npy.h5").write_bytes(b"")

    find_spec = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *rest: None if name == "h5py" else find_spec(name))
    outcome = run(capsys, "convert", "synapse", "-i", source, "-d", 3, "--splits", "none")
    assert_refused(outcome, "case0001.npy.h5", "pip install 'nnunetv2_levit[synapse-h5]'")
    assert snapshot(raw) == {}
