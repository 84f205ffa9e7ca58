"""A new family costs its own folder (here one module), one line of the registry and one page: nothing else."""

import inspect

import pytest
import torch

from nnunetv2_levit.benchmark import networks as benchmark
from nnunetv2_levit.errors import UserError
from nnunetv2_levit.inference.onnx_backend import OnnxBackend, to_onnx
from nnunetv2_levit.network_architectures import REGISTRY
from nnunetv2_levit.trainers.hybrid_trainer import HybridTrainer
from tests.network_architectures import test_contract as contract
from tests.network_architectures.test_folding import batch_norms, same_function
from tests.network_architectures.toy_family import FAMILY

CONTRACT = [
    test
    for name, test in vars(contract).items()
    if name.startswith("test_") and "name" in inspect.signature(test).parameters
]
SMALL, LARGE = FAMILY.networks


@pytest.fixture(autouse=True)
def registered(monkeypatch):
    """What the line in the registry does."""
    for name, constructor in FAMILY.networks.items():
        monkeypatch.setitem(REGISTRY, name, constructor)


@pytest.mark.parametrize("test", CONTRACT, ids=lambda test: test.__name__)
def test_the_contract_holds(test, monkeypatch):
    values = {
        "name": SMALL,
        "size": (97, 131),
        "channels": 3,
        "dtype": torch.bfloat16,
        "training": True,
        "monkeypatch": monkeypatch,
    }
    test(**{name: values[name] for name in inspect.signature(test).parameters})


def test_the_sizes_differ_and_a_wrong_one_is_refused():
    counts = [sum(p.numel() for p in contract.build(name).parameters()) for name in (SMALL, LARGE)]
    assert counts == sorted(set(counts))
    with pytest.raises(UserError, match="Toy size 'huge' is unknown: choose one of small, large"):
        contract.build(SMALL, size="huge")
    with pytest.raises(TypeError, match="unexpected keyword argument 'sise'"):
        contract.build(SMALL, sise="small")
    with pytest.raises(UserError, match="Toy with these options takes no pretrained weights"):
        contract.build(SMALL, pretrained="resnet34.tv_in1k")


def test_checkpoints_of_other_patch_sizes_fit():
    source, target = contract.build(SMALL, image_size=(96, 64)), contract.build(SMALL, image_size=(64, 160))
    target.load_state_dict(target.adapt_state_dict(source.state_dict(), image_size=(96, 64)))


def test_batch_norm_is_folded():
    assert batch_norms(same_function(contract.build(SMALL), torch.randn(2, 1, 40, 56))) == 0


def test_export_benchmark_and_trainer_take_it():
    network = benchmark.build(SMALL, in_channels=1, num_classes=3, patch_size=(32, 48)).eval()
    x = torch.randn(2, 1, 32, 48)
    with torch.no_grad():
        expected = network(x)
    logits = OnnxBackend(to_onnx(network, in_channels=1, image_size=(32, 48)))(x)
    torch.testing.assert_close(logits, expected, rtol=0, atol=1e-4)

    class Trainer(HybridTrainer):
        network_name = SMALL

    class Configuration:
        patch_size = (32, 48)

    trained = Trainer.build_network_architecture(None, Configuration(), 1, 3, False)
    assert trained.state_dict().keys() == network.state_dict().keys()
