"""Memory counted on shapes: against numbers by hand, and the batch and patch that follow from it."""

import pytest
import torch
from torch import nn

from nnunetv2_levit.any_network.batch import fitting_batch
from nnunetv2_levit.any_network.memory import gpu_memory, training_step_memory
from nnunetv2_levit.any_network.shapes import NetworkOfAnySize
from nnunetv2_levit.errors import UserError
from tests.network_check import broken_networks as nets


def count(network, *, batch_size=2, side=64, precision="fp32"):
    return training_step_memory(
        network, batch_size=batch_size, channels=1, image_size=(side, side), precision=precision
    )


def test_weights_and_momentum_are_theirs():
    network = nets.Good(1, 4)
    counted = count(network)
    parameters = sum(parameter.nbytes for parameter in network.parameters())
    assert counted.optimizer == parameters
    assert counted.weights == parameters + sum(buffer.nbytes for buffer in network.buffers())


def test_what_backward_needs_is_counted_once():
    """Each sigmoid keeps one map: a chain of n of them holds n maps at the end of the forward pass."""
    maps = 2 * 8 * 64 * 64 * 4
    chains = [nn.Sequential(nn.Conv2d(1, 8, 1), *(nn.Sigmoid() for _ in range(n)), nn.Conv2d(8, 4, 1)) for n in (4, 12)]
    short, long = (count(chain).step for chain in chains)
    assert long - short == 8 * maps


def test_fp16_takes_less_and_a_batch_more():
    network = nets.Good(1, 4)
    assert count(network, precision="fp16").step < count(network).step
    assert count(network, batch_size=8).step > 3 * count(network).step


def test_the_network_stays_as_it_is():
    network = nets.Good(1, 4).eval()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    count(network)
    assert not network.training
    assert all(parameter.grad is None for parameter in network.parameters())
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


def test_the_largest_batch_that_fits():
    network = NetworkOfAnySize(lambda _: nets.Good(1, 4), takes_image_size=False)
    limits = {"channels": 1, "patch_size": (64, 64)}

    def gib(batch_size):
        counted = training_step_memory(network((64, 64)), batch_size=batch_size, channels=1, image_size=(64, 64))
        return gpu_memory(counted) / 2**30

    batch, taken = fitting_batch(network, gpu_memory=1.0, most=4096, **limits)
    assert taken == pytest.approx(gib(batch))
    assert taken <= 1 < gib(int(batch * 1.1) + 1)
    assert fitting_batch(network, gpu_memory=1.0, most=5, **limits)[0] == 5
    with pytest.raises(UserError, match=r"a patch of 1024x1024 does not fit into 0.65 GiB: .*--patch \d+ \d+ would"):
        fitting_batch(network, gpu_memory=0.65, most=4096, channels=1, patch_size=(1024, 1024))
    with pytest.raises(UserError, match="no smaller patch"):
        fitting_batch(network, gpu_memory=0.1, most=4096, **limits)


def test_shapes_that_depend_on_numbers_are_one_sentence():
    with pytest.raises(UserError, match="can't be counted"):
        count(nets.BranchesOnValues(1, 4))
