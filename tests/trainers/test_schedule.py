import pytest
import torch
from torch import nn

from nnunetv2_levit.trainers.recipe import Recipe
from nnunetv2_levit.trainers.schedule import EpochSchedule, learning_rate_factor


def test_rises_then_falls_to_zero():
    values = [learning_rate_factor(i / 100, decay="poly", warmup=0.1) for i in range(101)]
    assert values[0] == pytest.approx(0.01)
    assert values[10] == pytest.approx(1)
    assert values[100] == pytest.approx(0, abs=1e-12)
    assert values[:11] == sorted(values[:11])
    assert values[10:] == sorted(values[10:], reverse=True)


def test_constant_and_without_warm_up():
    assert {learning_rate_factor(i / 10, decay="constant", warmup=0) for i in range(11)} == {1}
    assert learning_rate_factor(0.5, decay="poly", warmup=0) == pytest.approx(0.5**0.9)


def test_groups_keep_their_ratio_and_any_epoch_can_be_set_directly():
    a, b = nn.Parameter(torch.zeros(1)), nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([{"params": [a], "lr": 1.0}, {"params": [b], "lr": 0.1}])
    schedule = EpochSchedule(optimizer, num_epochs=10, decay="poly", warmup=0.1)
    for epoch in range(10):
        schedule.step(epoch)
    stepped = [group["lr"] for group in optimizer.param_groups]
    schedule.step(3)
    schedule.step(9)
    assert [group["lr"] for group in optimizer.param_groups] == stepped
    assert stepped[0] == pytest.approx(10 * stepped[1])


def test_no_decay_on_norms_biases_and_bias_tables():
    class Network(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear = nn.Linear(2, 2)
            self.norm = nn.BatchNorm1d(2)
            self.attention_biases = nn.Parameter(torch.zeros(2, 4))

    network = Network()
    decayed, plain = Recipe(weight_decay=0.3).build_optimizer(network).param_groups
    assert [id(p) for p in decayed["params"]] == [id(network.linear.weight)]
    assert (decayed["weight_decay"], plain["weight_decay"]) == (0.3, 0.0)
    assert len(plain["params"]) == 4
    (only,) = Recipe(optimizer="adam").build_optimizer(network).param_groups
    assert len(only["params"]) == 5
