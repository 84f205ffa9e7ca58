"""The rules of what becomes of a network elsewhere: copies, synchronised norms, a compiled graph, ONNX."""

import copy
import pickle
from collections.abc import Callable

import torch
from torch import nn

from nnunetv2_levit.network_check.rule import BrokenRuleError, NotCheckedError, RemarkError, close
from nnunetv2_levit.network_check.subject import Subject, calibrated, images, randomised


def copies(subject: Subject) -> str:
    """deepcopy keeps the function: this package's predictor and its averaged weights are copies. nnU-Net pickles no
    network (its processes build their own), so that what can't be pickled is worth a remark."""
    network = randomised(subject.build()).eval()
    batch = images(1)
    remedy = "keep no lambda, local function, generator or open file as an attribute; use modules"
    kinds: tuple[tuple[str, Callable[[nn.Module], nn.Module], type[BrokenRuleError], str], ...] = (
        ("deepcopy", copy.deepcopy, BrokenRuleError, ""),
        ("pickling", lambda module: pickle.loads(pickle.dumps(module)), RemarkError, ", which nnU-Net does not need"),
    )
    with torch.no_grad():
        expected = network(batch)
        for what, copied, problem, aside in kinds:
            try:
                same = close(copied(network)(batch), expected)
            except Exception as error:
                raise problem(f"{what} fails ({type(error).__name__}: {str(error)[:120]}){aside}", remedy) from error
            if not same:
                raise problem(f"a copy by {what} gives other logits{aside}", remedy)
    return "pickling and deepcopy keep the function"


def several_gpus(subject: Subject) -> str:
    """The synchronised batch norms that nnU-Net exchanges all others for on several GPUs keep the function."""
    network = calibrated(randomised(subject.build()), images(4, seed=3)).eval()
    batch = images(2)
    convert = nn.SyncBatchNorm.convert_sync_batchnorm
    with torch.no_grad():
        expected = network(batch)
        if subject.is_direct:  # plans name the class itself, so that no adapter looks after its norms
            network.network = convert(network.network)
        else:
            network = convert(network)
        if not close(network(batch), expected):
            raise BrokenRuleError(
                "with torch.nn.SyncBatchNorm for its batch norms it gives other logits: -num_gpus 2 would train "
                "another network, whose weights load without a word",
                "use nn.BatchNorm2d itself, with the activation as a module of its own",
            )
    return "synchronised batch norms keep the function"


def compiled(subject: Subject) -> str:
    """torch.compile, nnU-Net's default on a GPU, keeps the function."""
    remedy = (
        "no branch on a tensor's values, no .item() and no Python state in forward (or export nnUNet_compile=false)"
    )
    network = randomised(subject.build()).eval()
    batch = images(2)
    with torch.no_grad():
        expected = network(batch)
    said = "one graph"
    for whole in (True, False):
        torch.compiler.reset()
        try:
            # the back-end "eager" traces and needs no C compiler
            with torch.no_grad():
                result = torch.compile(network, fullgraph=whole, backend="eager")(batch)
            break
        except Exception as error:
            said = "in several graphs, so slower than it could be"
            if not whole:
                raise BrokenRuleError(f"it fails ({type(error).__name__}: {str(error)[:120]})", remedy) from error
    torch.compiler.reset()
    if not close(result, expected):
        raise BrokenRuleError("it gives other logits", remedy)
    return said


def onnx(subject: Subject) -> str:
    """The export to ONNX keeps the function."""
    from nnunetv2_levit.errors import UserError, first_line
    from nnunetv2_levit.inference.onnx_backend import EXPORTABLE, OnnxBackend, require_onnx, to_onnx

    try:
        require_onnx()
    except UserError as error:
        raise NotCheckedError(str(error)) from error
    network = calibrated(randomised(subject.build()), images(4, seed=3)).eval()
    batch = images(2)
    try:
        result = OnnxBackend(to_onnx(network, in_channels=1, image_size=(batch.shape[2], batch.shape[3])))(batch)
    except UserError as error:
        raise BrokenRuleError(str(error).removesuffix(f": {EXPORTABLE}"), EXPORTABLE) from error
    except Exception as error:  # ONNX Runtime's
        said = f"the exported model fails ({type(error).__name__}: {first_line(error)[:120]})"
        raise BrokenRuleError(said, EXPORTABLE) from error
    with torch.no_grad():
        expected = network(batch)
    if not close(result, expected):
        raise BrokenRuleError("ONNX Runtime gives other logits than torch", EXPORTABLE)
    return "ONNX Runtime gives torch's logits"
