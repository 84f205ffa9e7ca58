"""Networks as ONNX models, and logits by ONNX Runtime on the CPU."""

import copy
import importlib.util
import logging
import warnings
from pathlib import Path

import torch
from torch import Tensor, nn

from nnunetv2_levit.errors import UserError, first_line
from nnunetv2_levit.network_architectures.folding import folded_if_the_same


def require_onnx() -> None:
    """Raise a UserError unless the extra `export` is installed."""
    missing = [name for name in ("onnx", "onnxscript", "onnxruntime") if importlib.util.find_spec(name) is None]
    if missing:
        raise UserError(f"ONNX needs {' and '.join(missing)}, not installed here: pip install 'nnunetv2_levit[export]'")


NEARLY_ZERO = 1e-30
EXPORTABLE = "let its forward have no branch on a tensor's values, and sizes as numbers that tracing knows"


def _pad_with_nearly_zero(network: nn.Module) -> None:
    """ONNX Runtime takes a padding with zeros into the max pool after it, which pads with minus infinity.

    Seen in 1.31 (its Pad_Fusion) with TransFuse-L*'s ResNet; a padding with any other number is left alone.
    """
    for module in network.modules():
        if isinstance(module, nn.ConstantPad2d) and module.value == 0:
            module.value = NEARLY_ZERO


def to_onnx(network: nn.Module, *, in_channels: int, image_size: tuple[int, int]) -> bytes:
    """A network as a serialised ONNX model: images (N, C, h, w) -> logits (N, K, h, w) for any N of at least 1.

    Batch norm is folded. Height and width are fixed, because the networks' token grids are.

    Raises:
        UserError: onnx or onnxscript is not installed, or the network can't be exported.
    """
    require_onnx()
    images = torch.randn(2, in_channels, *image_size)
    folded = folded_if_the_same(copy.deepcopy(network).cpu().float(), images)
    _pad_with_nearly_zero(folded)
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), torch.inference_mode(False), torch.no_grad():
            warnings.simplefilter("ignore")
            program = torch.onnx.export(
                folded,
                (images,),
                input_names=["images"],
                output_names=["logits"],
                dynamic_shapes=({0: torch.export.Dim("batch", min=1, max=65535)},),
                dynamo=True,
                verbose=False,
            )
    except Exception as error:  # torch's exporter and a foreign network may raise anything
        cause = error.__cause__ or error  # torch's own first line is advice to its developers
        raise UserError(
            f"the network can't be exported to ONNX ({type(cause).__name__}: {first_line(cause)[:120]}): {EXPORTABLE}"
        ) from error
    finally:
        logger.setLevel(level)
    assert program is not None  # as dynamo=True
    return program.model_proto.SerializeToString()


class OnnxBackend:
    """A callable from images (N, C, h, w) to logits (N, K, h, w), both float32 on the CPU, for any N from 1.

    Args:
        model: an exported file, or its content.
        threads: how many threads one call uses; None takes torch's number.

    Raises:
        UserError: ONNX Runtime is missing, or the file can't be read.
    """

    def __init__(self, model: Path | bytes, *, threads: int | None = None) -> None:
        require_onnx()
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads or torch.get_num_threads()
        options.log_severity_level = 3
        # its threads may wait actively within a call, not after it, when torch wants the cores
        options.add_session_config_entry("session.force_spinning_stop", "1")
        try:
            self.session = onnxruntime.InferenceSession(
                model if isinstance(model, bytes) else str(model), options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # onnxruntime's exceptions have no public base class
            name = "the ONNX model" if isinstance(model, bytes) else model
            raise UserError(f"{name} can't be read by ONNX Runtime: {str(error).splitlines()[0]}") from error
        (self.input,) = self.session.get_inputs()
        self.image_shape = tuple(self.input.shape[1:])

    def __call__(self, images: Tensor) -> Tensor:
        if tuple(images.shape[1:]) != self.image_shape:
            raise UserError(
                f"the ONNX model was exported for images of shape (N, {', '.join(map(str, self.image_shape))}) and got "
                f"{tuple(images.shape)}"
            )
        array = images.detach().to("cpu", torch.float32).contiguous().numpy()
        (logits,) = self.session.run(None, {self.input.name: array})
        return torch.from_numpy(logits)
