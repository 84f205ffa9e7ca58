"""Networks whose random initial values nobody looks at: drawing tens of millions of them is most of their cost."""

from contextlib import contextmanager

import torch
from torch.overrides import TorchFunctionMode

# the methods of a tensor that torch's and timm's initialisers end in
RANDOM = {"normal_", "uniform_", "trunc_normal_", "erfinv_", "bernoulli_"}


class _NoRandomValues(TorchFunctionMode):
    def __torch_function__(self, function, types, args=(), kwargs=None):
        if getattr(function, "__name__", "") in RANDOM:
            return kwargs["tensor"] if kwargs and "tensor" in kwargs else args[0]
        return function(*args, **(kwargs or {}))


@contextmanager
def uninitialised(dtype: torch.dtype = torch.float32):
    """Within, modules are built in ``dtype`` with arbitrary memory where they would have random values.

    What a constructor computes or sets to a constant is as ever: masks, indices, norms.
    """
    usual = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        with _NoRandomValues():
            yield
    finally:
        torch.set_default_dtype(usual)
