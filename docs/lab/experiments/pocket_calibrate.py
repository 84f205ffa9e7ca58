"""What an iteration of a trainer costs beside the reference's: `pocket_benchmark.py calibrate`."""

import argparse
import os
from collections import defaultdict
from pathlib import Path
from statistics import median
from time import process_time, sleep

from pocket_prepare import CHOOSE_ON, CONFIGURATION, REFERENCE, RESULTS, circumstances, end_loaders, make_trainer

TURN = 5  # iterations of a trainer before the next has its turn


def processor_time_of_children() -> float:
    """Seconds of processor time that the data loaders' processes have used (Linux)."""
    ticks = 0
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text().rsplit(")", 1)[1].split()
        except OSError:  # it ended
            continue
        if fields[1] == str(os.getpid()):
            ticks += sum(map(int, fields[11:13]))
    return ticks / os.sysconf("SC_CLK_TCK")


def data_seconds(trainer, batches: int = 40) -> float:
    """Processor time of one training batch: loading and augmentation, in the loader's process."""

    def when_queues_are_full() -> float:
        now, before = processor_time_of_children(), -1.0
        while now - before > 0.3:  # idle processes look at their queues now and then
            sleep(2)
            now, before = processor_time_of_children(), now
        return now

    before = when_queues_are_full()
    for _ in range(batches):  # each one taken is made anew
        next(trainer.dataloader_train)
    return (when_queues_are_full() - before) / batches


def calibrate(arguments: argparse.Namespace) -> None:
    """Measure each candidate's iteration against the reference's, a few iterations each in turn, and keep the ratio.

    All have the patches and augmentation of the reference, so its loader is measured for all.
    """
    import tempfile

    from tqdm import tqdm

    from nnunetv2_levit.files import read_json, write_json

    os.environ["nnUNet_results"] = tempfile.mkdtemp()  # noqa: SIM112
    trainers, batches = {}, {}
    for key in tqdm(dict.fromkeys([REFERENCE, *arguments.trainers]), desc="building"):
        name, _, configuration = key.partition("@")
        trainer = make_trainer(name, configuration or CONFIGURATION, CHOOSE_ON[0], "cpu")
        trainer.on_train_start()
        if key == REFERENCE:
            data = data_seconds(trainer)
        batches[key] = [next(trainer.dataloader_train) for _ in range(TURN)]
        end_loaders(trainer)
        trainer.on_train_epoch_start()
        trainers[key] = trainer
    steps: dict[str, list[float]] = defaultdict(list)
    for _ in tqdm(range(-(-arguments.iterations // (TURN - 1))), desc="measuring"):
        for key, trainer in trainers.items():
            for number, batch in enumerate(batches[key]):
                start = process_time()
                trainer.train_step(batch)
                if number:  # the first of a turn brings the network back into the caches
                    steps[key].append(process_time() - start)
    path = RESULTS / arguments.output
    known = read_json(path, what="the calibration") if path.is_file() else {}
    costs = {key: median(values) + data for key, values in steps.items()}
    reference = known.get(REFERENCE, {"seconds_per_iteration": costs[REFERENCE]})["seconds_per_iteration"]
    for key, cost in costs.items():
        known[key] = {
            "seconds_per_iteration": round(reference * cost / costs[REFERENCE], 4),
            "of_the_reference": round(cost / costs[REFERENCE], 3),
            "step_seconds_now": round(median(steps[key]), 4),
            "data_seconds_now": round(data, 4),
            "iterations": len(steps[key]),
            "parameters": sum(p.numel() for p in trainers[key].network.parameters()),
            **circumstances("cpu"),
        }
        print(f"{key}: {known[key]['seconds_per_iteration']} s, {known[key]['of_the_reference']} of the reference's")
    write_json(path, dict(sorted(known.items())))
