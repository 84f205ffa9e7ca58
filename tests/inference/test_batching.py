"""Batches: every window once, memory that runs out, sums that overflow, and back-ends of another kind."""

import platform
import subprocess
import sys

import pytest
import torch

from nnunetv2_levit.errors import UserError
from nnunetv2_levit.inference.batching import BatchRunner, _fitting_batch
from nnunetv2_levit.inference.pipeline import FailedCasesError, one_line
from nnunetv2_levit.inference.predictor import BatchedPredictor
from nnunetv2_levit.inference.sliding_window import SlidingWindow, flips, mirrored_mean, window_batches
from tests.inference.model_folders import write_model_folder

CPU = torch.device("cpu")


class Scarce:
    """Doubles images; fails above ``limit`` at once, and counts the batches that it was given."""

    def __init__(self, limit, message="CUDA out of memory. Tried to allocate 2 GiB"):
        self.limit, self.message, self.seen = limit, message, []

    def __call__(self, images):
        self.seen.append(len(images))
        if len(images) > self.limit:
            raise RuntimeError(self.message)
        return images * 2


@pytest.mark.parametrize("message", ["CUDA out of memory.", "DefaultCPUAllocator: can't allocate memory: 9 bytes"])
def test_the_batch_is_halved_until_it_fits_and_stays_so(message):
    images, backend, runner = torch.randn(11, 1, 4, 4), Scarce(2, message), BatchRunner(CPU, batch_size=8)
    torch.testing.assert_close(runner.run(backend, images), images * 2)
    assert backend.seen == [8, 4, 2, 2, 2, 2, 2, 1]
    assert runner.batch_size == 2
    runner.run(backend, images[:4])
    assert backend.seen[-2:] == [2, 2]


def test_one_image_that_does_not_fit_and_other_errors_are_raised():
    with pytest.raises(RuntimeError, match="out of memory"):
        BatchRunner(CPU, batch_size=4).run(Scarce(0), torch.randn(3, 1, 4, 4))
    backend = Scarce(0, "mat1 and mat2 shapes cannot be multiplied")
    with pytest.raises(RuntimeError, match="shapes"):
        BatchRunner(CPU, batch_size=4).run(backend, torch.randn(3, 1, 4, 4))
    assert backend.seen == [3]


def test_the_first_batch_on_a_gpu_is_what_free_memory_allows(monkeypatch):
    facts = {"memory_allocated": 1000, "max_memory_allocated": 1300, "memory_reserved": 1500}
    for name, value in facts.items():
        monkeypatch.setattr(torch.cuda, name, lambda _, value=value: value)
    for name in ("synchronize", "reset_peak_memory_stats"):
        monkeypatch.setattr(torch.cuda, name, lambda _: None)
    for free, expected in ((4000, int(0.7 * 4500 / 300)), (10**9, 64), (0, 1)):
        monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _, free=free: (free, 10**9))
        assert _fitting_batch(lambda images: images, torch.randn(1, 1, 4, 4), 64) == expected


def test_results_that_do_not_fit_on_the_gpu_are_kept_in_the_computers_memory():
    places = []

    class Full(SlidingWindow):
        def _sums(self, backend, volume, place):
            places.append(place.type)
            if place.type == "cuda":
                raise RuntimeError("CUDA out of memory.")
            return volume

    settings = dict(patch_size=(4, 4), num_classes=1, step_size=0.5, use_gaussian=True, mirror_axes=None)
    full = Full(**settings, runner=BatchRunner(torch.device("cuda")), results_on_device=True)
    volume = torch.randn(1, 2, 3, 7)
    torch.testing.assert_close(full.logits(None, volume), volume)
    assert places == ["cuda", "cpu"]


@pytest.mark.parametrize("at_once", [1, 3, 4, 5, 100])
def test_every_window_is_in_one_batch_and_corners_keep_their_order(at_once):
    corners, slices = [(0, 0), (0, 7), (5, 0)], 4
    groups = list(window_batches(corners, slices, at_once))
    assert all(sum(map(len, group)) <= at_once for group in groups)
    assert all(sum(map(len, group)) == at_once for group in groups[:-1])
    windows = [(w.top, w.left, d) for group in groups for w in group for d in range(w.first, w.last)]
    assert windows == [(*corner, d) for corner in corners for d in range(slices)]


def test_mirrored_copies_come_back_to_their_place():
    images = torch.randn(3, 1, 4, 5)
    assert flips((0, 1)) == [(), (2,), (3,), (2, 3)]
    assert flips(None) == [()]
    found = mirrored_mean(BatchRunner(CPU, batch_size=5), lambda x: x.clone(), images, flips((0, 1)))
    torch.testing.assert_close(found, images)
    # a back-end that looks at one corner sees another one of each copy
    corner = mirrored_mean(BatchRunner(CPU, batch_size=5), lambda x: x[..., :1, :1].expand_as(x), images, flips((0, 1)))
    torch.testing.assert_close(corner[..., 0, 0], images[..., [0, -1, 0, -1], [0, 0, -1, -1]].mean(-1))


def window(**changes):
    options = dict(
        patch_size=(4, 4),
        num_classes=1,
        step_size=0.5,
        use_gaussian=True,
        mirror_axes=(0, 1),
        runner=BatchRunner(CPU, batch_size=3),
        results_on_device=False,
    )
    return SlidingWindow(**{**options, **changes})


@pytest.mark.parametrize("shape", [(2, 9, 7), (1, 3, 11), (3, 2, 2)])
@pytest.mark.parametrize("gaussian", [True, False])
def test_an_identity_network_returns_the_volume_whatever_its_size(shape, gaussian):
    volume = torch.randn(1, *shape)
    found = window(use_gaussian=gaussian, accumulator=torch.float32).logits(lambda x: x.clone(), volume)
    torch.testing.assert_close(found, volume)


def test_sums_that_overflow_fp16_are_done_again_in_fp32(tmp_path):
    model = write_model_folder(tmp_path / "model", folds=(0, 1), patch_size=(32, 32))
    predictor = BatchedPredictor(device=CPU, allow_tqdm=False)
    predictor.initialize_from_trained_model_folder(str(model), (0, 1))
    data = torch.randn(1, 2, 40, 32)
    usual = predictor.predict_logits_from_preprocessed_data(data)
    assert usual.dtype == torch.half
    backends = predictor.backends
    predictor.backends = [lambda x, backend=backend: backend(x) * 1e4 for backend in backends]
    large = predictor.predict_logits_from_preprocessed_data(data)
    assert large.dtype == torch.float32
    # 0.05: towards an image's corners the weights are so small that fp16 is coarse
    torch.testing.assert_close(large / 1e4, usual.float(), atol=0.05, rtol=0)


def test_each_fold_keeps_its_own_weights(tmp_path):
    model = write_model_folder(tmp_path / "model", folds=(0, 1, 2), patch_size=(32, 32))
    predictor = BatchedPredictor(device=CPU, allow_tqdm=False, accumulator=torch.float32)
    predictor.initialize_from_trained_model_folder(str(model), (0, 1, 2))
    data = torch.randn(1, 1, 32, 32)
    ensemble = predictor.predict_logits_from_preprocessed_data(data)
    single = []
    for fold in (0, 1, 2):
        predictor.initialize_from_trained_model_folder(str(model), (fold,))
        single.append(predictor.predict_logits_from_preprocessed_data(data))
    assert not torch.allclose(single[0], single[1], atol=1e-2)
    torch.testing.assert_close(ensemble, torch.stack(single).mean(0), atol=1e-5, rtol=1e-5)


def test_what_is_said_of_an_error_is_one_line():
    assert one_line(RuntimeError("first\n\n  the reason \n")) == "the reason"
    assert one_line(AssertionError()) == "AssertionError"
    assert "2 of 5 cases" in str(FailedCasesError({"a": "x", "b": "y"}, 5))


def test_a_subclass_computes_with_a_back_end_of_its_own(tmp_path):
    model = write_model_folder(tmp_path / "model", folds=(0, 1), patch_size=(32, 32))
    constants = iter((1.0, 3.0))

    class Constant(BatchedPredictor):
        def make_backend(self, network):
            value = next(constants)
            return lambda images: torch.full((len(images), 4, *images.shape[2:]), value)

    predictor = Constant(device=CPU, allow_tqdm=False)
    predictor.initialize_from_trained_model_folder(str(model), (0, 1))
    logits = predictor.predict_logits_from_preprocessed_data(torch.randn(1, 2, 40, 32))
    torch.testing.assert_close(logits, torch.full((4, 2, 40, 32), 2.0, dtype=torch.half), atol=2e-3, rtol=0)


def test_folds_of_different_networks_are_an_error_of_the_model(tmp_path):
    model = write_model_folder(tmp_path / "model", folds=(0, 1), patch_size=(32, 32))
    path = model / "fold_1" / "checkpoint_final.pth"
    checkpoint = torch.load(path, weights_only=False)
    checkpoint["network_weights"].popitem()
    torch.save(checkpoint, path)
    predictor = BatchedPredictor(device=CPU, allow_tqdm=False)
    with pytest.raises(UserError, match="not of the same network"):  # before anything is predicted
        predictor.initialize_from_trained_model_folder(str(model), (0, 1))


def test_freed_memory_is_kept_where_the_system_can():
    # in a process of its own: there is no way back
    script = "from nnunetv2_levit.inference.batching import keep_freed_memory; print(keep_freed_memory())"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == str(platform.libc_ver()[0] == "glibc")
