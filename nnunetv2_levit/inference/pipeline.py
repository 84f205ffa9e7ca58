"""Reading and preprocessing, computing, and exporting at the same time; a case that fails does not stop the others."""

import multiprocessing
import shutil
import sys
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from nnunetv2.inference.export_prediction import export_prediction_from_logits
from tqdm import tqdm

from nnunetv2_levit.errors import UserError, last_line
from nnunetv2_levit.image_files import read_images
from nnunetv2_levit.inference.case_files import Case
from nnunetv2_levit.nnunet.dataset_description import number_of_channels
from nnunetv2_levit.nnunet.worker_processes import die_with_parent

AHEAD = 2  # results that may wait beyond one for each worker, as in nnU-Net

Predict = Callable[[torch.Tensor], torch.Tensor]
"""Maps a preprocessed volume (C, D, H, W) to logits (K, D, H, W)."""


class FailedCasesError(RuntimeError):
    """Some cases could not be predicted; ``reasons`` maps their names to what went wrong."""

    def __init__(self, reasons: dict[str, str], cases: int) -> None:
        super().__init__(f"{len(reasons)} of {cases} cases were not predicted: {', '.join(reasons)}")
        self.reasons = reasons


def failure(case: str, reason: str) -> str:
    """The line that says of one case why it was not predicted."""
    return f"error: {case} was not predicted: {reason}"


@dataclass(frozen=True)
class Preparation:
    """What the workers need of the model: nnU-Net's plans, configuration and dataset description."""

    plans_manager: Any
    configuration_manager: Any
    dataset_json: dict
    save_probabilities: bool = False
    verbose: bool = False

    def preprocess(self, case: Case) -> tuple[np.ndarray, dict]:
        """Preprocessed image (C, D, H, W) in fp32, and what nnU-Net needs to undo the preprocessing.

        Raises:
            UserError: a file that is not whole or can't be read, or NaN or infinite voxels.
        """
        image, properties = read_images(case.channels, self.plans_manager.image_reader_writer_class())
        if len(properties.get("sitk_stuff", {}).get("spacing", ())) > 3:
            raise UserError(f"{case.channels[0]} has 4 dimensions: store each channel as a file of 3 dimensions")
        case.check_channels(len(image), number_of_channels(self.dataset_json))
        preprocessor = self.configuration_manager.preprocessor_class(verbose=self.verbose)
        data, _, properties = preprocessor.run_case_npy(
            image,
            None,
            properties,
            self.plans_manager,
            self.configuration_manager,
            self.dataset_json,
        )
        return np.ascontiguousarray(data, dtype=np.float32), properties

    def export(self, case: Case, logits: np.ndarray, properties: dict) -> None:
        """Write the segmentation (and probabilities): under another name first, so that no file is ever half there."""
        ending = self.dataset_json["file_ending"]
        partial = case.target.with_name(f".{case.name}.partial")
        shutil.rmtree(partial, ignore_errors=True)  # left by a killed process
        partial.mkdir(parents=True)
        try:
            export_prediction_from_logits(
                logits,
                properties,
                self.configuration_manager,
                self.plans_manager,
                self.dataset_json,
                str(partial / case.name),
                self.save_probabilities,
                num_threads_torch=1,
            )
            # the segmentation last: it is what says that a case is done
            for path in sorted(partial.iterdir(), key=lambda path: path.name.endswith(ending)):
                path.replace(case.target.with_name(path.name))
        finally:
            shutil.rmtree(partial, ignore_errors=True)


class InProcess(Executor):
    """Runs each task where it is submitted."""

    def submit(self, function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future:
        future: Future = Future()
        try:
            future.set_result(function(*args, **kwargs))
        except Exception as error:
            future.set_exception(error)
        return future


def _start_worker() -> None:
    die_with_parent()
    torch.set_num_threads(1)  # the workers share the cores, and a forked process can't use its parent's threads


@contextmanager
def workers(count: int) -> Iterator[Executor]:
    """``count`` processes, or none at all with 0; what is queued is dropped when the block is left by an exception."""
    if count == 0:
        yield InProcess()
        return
    # forked workers start at once where spawned ones import torch and nnU-Net anew; they never touch the GPU
    context = multiprocessing.get_context("fork" if sys.platform == "linux" else "spawn")
    pool = ProcessPoolExecutor(count, mp_context=context, initializer=_start_worker)
    try:
        # now, before this process has threads and a GPU
        list(pool.map(abs, range(count)))
        yield pool
    except BaseException:
        pool.shutdown(wait=False, cancel_futures=True)
        raise
    pool.shutdown()


def one_line(error: BaseException) -> str:
    """The error's last line that says something."""
    if isinstance(error, BrokenProcessPool):
        return "a worker process died, probably for want of memory (fewer workers: -npp, -nps)"
    return last_line(error)


def _compute(predict: Predict, data: np.ndarray) -> np.ndarray:
    logits = predict(torch.from_numpy(data))
    if not torch.isfinite(logits).all():
        kind = "NaN" if torch.isnan(logits).any() else "infinite"
        raise ValueError(
            f"its logits are {kind}: look for NaN in the image, and for a diverged training in the checkpoint"
        )
    return logits.numpy()


@dataclass
class Pipeline:
    """Runs cases through preprocessing, ``predict`` and export, and remembers which of them failed and why."""

    preparation: Preparation
    preprocessing: Executor
    exporting: Executor
    preprocessing_workers: int = 1
    exporting_workers: int = 1
    show_progress: bool = True
    reasons: dict[str, str] = field(default_factory=dict)

    def _fail(self, case: Case, error: BaseException) -> None:
        self.reasons[case.name] = one_line(error)
        if self.show_progress:
            tqdm.write(failure(case.name, self.reasons[case.name]), file=sys.stderr)

    def _prepared(self, cases: Sequence[Case]) -> Iterator[tuple[Case, np.ndarray | None, dict]]:
        """Cases in order with their data (None where it can't be had); the next ones are being read meanwhile."""
        waiting: deque[tuple[Case, Future]] = deque()
        remaining = iter(cases)
        ahead = 1 if isinstance(self.preprocessing, InProcess) else self.preprocessing_workers + AHEAD
        while True:
            while len(waiting) < ahead and (case := next(remaining, None)) is not None:
                waiting.append((case, self._submitted(self.preprocessing, self.preparation.preprocess, case)))
            if not waiting:
                return
            case, future = waiting.popleft()
            try:
                data, properties = future.result()
            except Exception as error:
                self._fail(case, error)
                yield case, None, {}
            else:
                yield case, data, properties

    @staticmethod
    def _submitted(executor: Executor, function: Callable[..., Any], *arguments: Any) -> Future:
        try:
            return executor.submit(function, *arguments)
        except BrokenProcessPool as error:
            future: Future = Future()
            future.set_exception(error)
            return future

    def _collect(self, exports: deque[tuple[Case, Future]], *, leave: int) -> None:
        while len(exports) > leave:
            case, future = exports.popleft()
            try:
                future.result()
            except Exception as error:
                self._fail(case, error)

    def run(self, predict: Predict, cases: Sequence[Case]) -> None:
        """Predict all cases.

        Raises:
            FailedCasesError: at the end, if some could not be read, predicted or written.
        """
        exports: deque[tuple[Case, Future]] = deque()
        with tqdm(total=len(cases), desc="predicting", unit="case", disable=not self.show_progress) as bar:
            for case, data, properties in self._prepared(cases):
                if data is not None:
                    try:
                        logits = _compute(predict, data)
                    except UserError:  # of the model, not of this case
                        raise
                    except Exception as error:
                        self._fail(case, error)
                    else:
                        export = self._submitted(self.exporting, self.preparation.export, case, logits, properties)
                        exports.append((case, export))
                self._collect(exports, leave=self.exporting_workers + AHEAD)
                bar.update()
            self._collect(exports, leave=0)
        if self.reasons:
            raise FailedCasesError(self.reasons, len(cases))


@contextmanager
def pipeline(
    preparation: Preparation, *, preprocessing_workers: int, exporting_workers: int, show_progress: bool = True
) -> Iterator[Pipeline]:
    """A pipeline with its worker processes, which end with the block."""
    with ExitStack() as stack:
        yield Pipeline(
            preparation,
            stack.enter_context(workers(preprocessing_workers)),
            stack.enter_context(workers(exporting_workers)),
            preprocessing_workers,
            exporting_workers,
            show_progress,
        )
