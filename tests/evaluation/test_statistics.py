"""Summaries, intervals and tests on small cases with known answers."""

import numpy as np
import pytest

from nnunetv2_levit.evaluation.statistics import (
    bootstrap_interval,
    holm,
    mean_of_structures,
    paired_difference,
    summarise,
)


def test_frames_of_a_patient_are_drawn_together():
    values = [0.0, 0.0, 1.0, 1.0]
    together = bootstrap_interval(np.array(values), ["a", "a", "b", "b"])
    apart = bootstrap_interval(np.array(values), ["a", "b", "c", "d"])
    # two patients: both drawn from one of them in half of all resamples
    assert together == [0.0, 1.0]
    # a fourth of them alone would be all 0 or all 1 in one of 16 resamples each: within the interval's ends too
    assert bootstrap_interval(np.array(values * 8), [str(i) for i in range(32)])[0] > 0.2
    assert apart[0] <= 0.25


def test_the_interval_of_many_patients_is_near_the_normal_one():
    values = np.random.default_rng(1).normal(10, 2, 400)
    low, high = bootstrap_interval(values, [str(i) for i in range(400)])
    half = 1.96 * values.std() / 20
    assert low == pytest.approx(values.mean() - half, abs=0.03)
    assert high == pytest.approx(values.mean() + half, abs=0.03)


def test_undefined_values_are_left_out_and_counted():
    summary = summarise([1.0, None, 3.0], ["a", "b", "c"])
    assert (summary["n"], summary["mean"], summary["median"]) == (2, 2.0, 2.0)
    assert summary["sd"] == pytest.approx(np.sqrt(2))
    assert summarise([None, None], ["a", "b"]) == {"n": 0, "mean": None, "sd": None, "median": None, "ci95": None}
    assert summarise([1.0, 1.0], ["a", "a"])["ci95"] is None  # one patient has no interval


def test_the_mean_row_averages_structures_not_values():
    result = mean_of_structures([[1.0, 1.0, 1.0], [0.0, None, None], [None, None, None]], ["a", "b", "c"])
    assert (result["mean"], result["structures"]) == (0.5, 2)


def test_paired_differences():
    first = [0.8, 0.7, 0.9, 0.6, 0.75, 0.85, 0.65]
    second = [value + 0.05 for value in first]
    result = paired_difference(first, second)
    assert result["mean"] == pytest.approx(0.05)
    assert result["ci95"] == pytest.approx([0.05, 0.05])
    assert result["wilcoxon_p"] == pytest.approx(2 / 2**7)  # all seven of one sign, exactly
    assert (result["higher"], result["lower"]) == (7, 0)
    assert paired_difference(first, first)["wilcoxon_p"] == 1.0
    assert paired_difference(first[:5], second[:5])["wilcoxon_p"] is None


def test_holm():
    assert holm([0.01, None, 0.04, 0.03]) == pytest.approx([0.03, None, 0.06, 0.06])
