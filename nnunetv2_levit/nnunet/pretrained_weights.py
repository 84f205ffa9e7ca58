"""`nnUNetv2_train -pretrained_weights` between patch sizes.

nnU-Net demands equal shapes of everything but the segmentation heads, and bias tables depend on the patch size. Its
loader offers no hook, so `replacements` puts this one in its place. It follows the same rules, runs no code of the
file, adapts the state dict of networks that can, and refuses weights that don't fit in one sentence.
"""

from typing import Any

from nnunetv2.utilities.plans_handling.plans_handler import PlansManager
from torch import nn
from torch._dynamo import OptimizedModule
from torch.nn.parallel import DistributedDataParallel

from nnunetv2_levit.errors import UserError
from nnunetv2_levit.nnunet.checkpoints import TRAINED, load_checkpoint, trusted_by_environment

SEGMENTATION_HEADS = ".seg_layers."


def unwrapped(network: nn.Module) -> Any:
    """The network itself, inside DistributedDataParallel and torch.compile's wrapper."""
    if isinstance(network, DistributedDataParallel):
        network = network.module
    return network._orig_mod if isinstance(network, OptimizedModule) else network


def load_pretrained_weights(network: nn.Module, fname: str, verbose: bool = False) -> None:
    """Same call as nnU-Net's: everything but the segmentation heads, bias tables resized to the patch size.

    Raises:
        UserError: an unreadable file, one that may run code, or weights of another network.
    """
    module = unwrapped(network)
    adapt = getattr(module, "adapt_state_dict", None)
    keys = ("network_weights",) if adapt is None else TRAINED
    checkpoint = load_checkpoint(fname, trust=trusted_by_environment(), keys=keys)
    state = checkpoint["network_weights"]
    if adapt is not None:
        try:
            arguments = checkpoint["init_args"]
            configuration = PlansManager(arguments["plans"]).get_configuration(arguments["configuration"])
            if len(configuration.patch_size) != 2:
                raise TypeError(f"patches of {len(configuration.patch_size)} dimensions")
            state = adapt(state, image_size=tuple(configuration.patch_size))
        except (KeyError, TypeError, RuntimeError) as error:
            raise UserError(f"{fname} is not an nnU-Net checkpoint of a 2D network ({error!r})") from error
    merged = module.state_dict()
    for name, current in merged.items():
        if SEGMENTATION_HEADS in name:
            continue
        if name not in state or state[name].shape != current.shape:
            raise UserError(
                f"{fname} does not fit this network at {name}: pretrained weights must come from the same "
                "architecture with the same number of input channels"
            )
        merged[name] = state[name]
    module.load_state_dict(merged)
    print(f"Pretrained weights from {fname}: everything but the segmentation heads.")
