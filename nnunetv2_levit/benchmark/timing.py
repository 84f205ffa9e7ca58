"""Interleaved timing: every candidate once a round, so that what disturbs the machine disturbs all of them."""

from collections.abc import Callable, Mapping
from statistics import median
from time import perf_counter

from tqdm import tqdm

WARM_UP = 2


def interleaved(
    steps: Mapping[str, Callable[[], object]], *, repetitions: int, text: str = "timing", progress: bool = False
) -> dict[str, float]:
    """Median seconds of each step over the rounds after the first two, which warm up."""
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    for _ in tqdm(range(repetitions + WARM_UP), desc=text, leave=False, disable=not progress):
        for name, step in steps.items():
            start = perf_counter()
            step()
            seconds[name].append(perf_counter() - start)
    return {name: median(values[WARM_UP:]) for name, values in seconds.items()}
