"""The largest batch whose training step fits into a GPU's memory, counted on shapes alone."""

from nnunetv2_levit.any_network.memory import GIB, gpu_memory, training_step_memory
from nnunetv2_levit.any_network.shapes import NetworkOfAnySize
from nnunetv2_levit.errors import UserError
from nnunetv2_levit.network_architectures import MIN_SIZE
from nnunetv2_levit.network_architectures.layers.grids import Grid

SMALLEST_BATCH = 2  # as nnU-Net plans it, and as batch norm needs it
MOST_GPU_MEMORY = 4096  # GiB


def _gib(network: NetworkOfAnySize, *, channels: int, patch_size: Grid, batch_size: int) -> float:
    counted = training_step_memory(network(patch_size), batch_size=batch_size, channels=channels, image_size=patch_size)
    return gpu_memory(counted) / GIB


def _fitting_patch(network: NetworkOfAnySize, *, channels: int, patch_size: Grid, limit: float) -> Grid | None:
    """The largest patch of about the same shape, of multiples of 32, that fits at the smallest batch."""
    for tenths in range(9, 0, -1):
        height, width = (max(MIN_SIZE, side * tenths // 10 // 32 * 32) for side in patch_size)
        if _gib(network, channels=channels, patch_size=(height, width), batch_size=SMALLEST_BATCH) <= limit:
            return height, width
    return None


def fitting_batch(
    network: NetworkOfAnySize, *, channels: int, patch_size: Grid, gpu_memory: float, most: int
) -> tuple[int, float]:
    """The largest batch, of at most ``most``, that fits into ``gpu_memory`` GiB, and the GiB that it takes.

    Raises:
        UserError: not even the smallest batch fits; the sentence says which patch would.
    """
    if not 0 < gpu_memory <= MOST_GPU_MEMORY:
        raise UserError(f"--gpu-memory {gpu_memory:g} is not above 0 and at most {MOST_GPU_MEMORY} (GiB)")

    def needed(batch_size: int) -> float:
        return _gib(network, channels=channels, patch_size=patch_size, batch_size=batch_size)

    smallest = needed(SMALLEST_BATCH)
    if smallest > gpu_memory:
        shown = f"{patch_size[0]}x{patch_size[1]}"
        fits = _fitting_patch(network, channels=channels, patch_size=patch_size, limit=gpu_memory)
        advice = f"--patch {fits[0]} {fits[1]} would fit" if fits else "no smaller patch fits either"
        raise UserError(
            f"a patch of {shown} does not fit into {gpu_memory:g} GiB: a training step takes {smallest:.2f} GiB at the "
            f"smallest batch, {SMALLEST_BATCH}; {advice}"
        )
    slope = (needed(2 * SMALLEST_BATCH) - smallest) / SMALLEST_BATCH
    batch = most
    if slope > 0:
        batch = min(most, SMALLEST_BATCH + int((gpu_memory - smallest) / slope))
    batch = max(SMALLEST_BATCH, batch)
    while batch > SMALLEST_BATCH and (taken := needed(batch)) > gpu_memory:
        batch = max(SMALLEST_BATCH, min(batch - 1, int(batch * gpu_memory / taken)))
    return batch, needed(batch)
