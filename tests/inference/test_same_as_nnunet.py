"""Fast and stock prediction of a real ACDC frame (of noise where there is none): logits, labels, probabilities."""

from types import SimpleNamespace

import nnunetv2.inference.predict_from_raw_data as stock
import numpy as np
import pytest
import SimpleITK as sitk
import torch
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor

from nnunetv2_levit.inference.predictor import BatchedPredictor
from nnunetv2_levit.nnunet.environment import set_up_process
from tests.conftest import SHARED, is_there
from tests.inference.model_folders import REGIONS, write_case, write_model_folder

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def frame():
    """Four slices, 96 x 80 pixels, of a real frame; smooth noise without the data."""
    patients = SHARED / "data" / "acdc"
    if not is_there(patients, "the real ACDC patients"):
        noise = np.random.default_rng(0).random((4, 12, 10)) * 200
        return np.kron(noise, np.ones((1, 8, 8)))
    path = min(patients.glob("training/patient00*/*_frame01.nii.gz"))
    volume = sitk.GetArrayFromImage(sitk.ReadImage(str(path)))
    top, left = ((side - size) // 2 for side, size in zip(volume.shape[1:], (96, 80), strict=True))
    return volume[2:6, top : top + 96, left : left + 80].astype(np.float32)


CASES = {
    "larger than the patch, stock trainer": {},
    "larger than the patch, LeViT-UNet": {
        "trainer": "LeViTUNetTrainer_128s",
        "patch_size": (64, 56),
        "slices": 2,
        "step": 1.0,
    },
    "smaller than the patch, two channels": {"patch_size": (96, 112), "channels": 2},
    "larger and smaller, instance norm, no mirroring": {
        "patch_size": (48, 104),
        "norm": "Instance",
        "mirror_axes": None,
    },
    "regions, ignore label, another step, one axis": {"labels": REGIONS, "mirror_axes": (1,), "step": 0.7},
}


@pytest.fixture(scope="module", params=list(CASES))
def both(request, frame, tmp_path_factory):
    """Both predictors of one model, and a folder with one case."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("nnUNet_extTrainer", "")
        set_up_process()
        options = dict(CASES[request.param])
        step, slices = options.pop("step", 0.5), options.pop("slices", 4)
        root = tmp_path_factory.mktemp("model")
        model = write_model_folder(root / "model", **options)
        write_case(root / "images", "heart", frame[:slices], channels=options.get("channels", 1))
        predictors = []
        for kind in (nnUNetPredictor, BatchedPredictor):
            predictor = kind(tile_step_size=step, device=CPU, allow_tqdm=False)
            predictor.initialize_from_trained_model_folder(str(model), (0, 1))
            predictors.append(predictor)
        yield *predictors, root


def preprocessed(predictor, root):
    channels = sorted(map(str, (root / "images").iterdir()))
    managers = predictor.plans_manager, predictor.configuration_manager, predictor.dataset_json
    preprocessor = predictor.configuration_manager.preprocessor_class(verbose=False)
    return torch.from_numpy(preprocessor.run_case(channels, None, *managers)[0])


def test_files_have_the_same_labels_and_probabilities(both):
    theirs, ours, root = both
    results = []
    for name, predictor in (("theirs", theirs), ("ours", ours)):
        (root / name).mkdir(exist_ok=True)
        predictor.predict_from_files_sequential(str(root / "images"), str(root / name), save_probabilities=True)
        labels = sitk.ReadImage(str(root / name / "heart.nii.gz"))
        results.append((labels, np.load(root / name / "heart.npz")["probabilities"]))
    (expected, expected_probabilities), (found, probabilities) = results
    assert (sitk.GetArrayFromImage(found) == sitk.GetArrayFromImage(expected)).mean() >= 0.9999
    assert len(np.unique(sitk.GetArrayFromImage(expected))) > 2
    assert found.GetSpacing() == expected.GetSpacing()
    assert found.GetDirection() == expected.GetDirection()
    np.testing.assert_allclose(probabilities, expected_probabilities, atol=2e-3)
    assert {path.name for path in (root / "ours").iterdir()} == {path.name for path in (root / "theirs").iterdir()}


def test_logits_are_those_of_fp32_sums_within_1e_4_and_nnunets_within_its_rounding(both, monkeypatch):
    theirs, ours, root = both
    data = preprocessed(theirs, root)
    rounded = theirs.predict_logits_from_preprocessed_data(data)
    # nnU-Net's own code with fp32 in place of its literal torch.half
    wide = SimpleNamespace(**{name: getattr(torch, name) for name in dir(torch)})
    wide.half = torch.float32
    monkeypatch.setattr(stock, "torch", wide)
    exact = theirs.predict_logits_from_preprocessed_data(data)
    monkeypatch.undo()
    assert exact.dtype == torch.float32

    assert ours.accumulator == torch.half
    found = ours.predict_logits_from_preprocessed_data(data)
    assert found.dtype == rounded.dtype == torch.half
    torch.testing.assert_close(found.float(), rounded.float(), atol=1e-2, rtol=0)
    assert (found == rounded).float().mean() > 0.99
    monkeypatch.setattr(ours, "accumulator", torch.float32)
    torch.testing.assert_close(ours.predict_logits_from_preprocessed_data(data), exact, atol=1e-4, rtol=0)


@pytest.mark.gpu
@pytest.mark.parametrize("trainer", ["nnUNetTrainer", "LeViTUNetTrainer_128s"])
def test_logits_on_a_gpu_are_nnunets_within_fp16(trainer, frame, tmp_path, monkeypatch):
    monkeypatch.setenv("nnUNet_extTrainer", "")
    set_up_process()
    model = write_model_folder(tmp_path / "model", trainer=trainer, patch_size=(64, 56))
    write_case(tmp_path / "images", "heart", frame)
    logits = []
    for kind in (nnUNetPredictor, BatchedPredictor):
        predictor = kind(device=torch.device("cuda"), allow_tqdm=False)
        predictor.initialize_from_trained_model_folder(str(model), (0, 1))
        data = preprocessed(predictor, tmp_path)
        logits.append(predictor.predict_logits_from_preprocessed_data(data).float())
    torch.testing.assert_close(logits[1], logits[0], atol=1e-2, rtol=1e-2)
