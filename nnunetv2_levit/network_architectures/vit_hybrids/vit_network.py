"""What TransFuse, TransUNet, 2D UNETR and 2D CATS have in common: a vision transformer on patches of 16 pixels."""

from torch import Tensor

from nnunetv2_levit.network_architectures.base import SegmentationNetwork
from nnunetv2_levit.network_architectures.layers.grids import Grid, token_grid
from nnunetv2_levit.network_architectures.pretrained import IMAGENET_SIZE
from nnunetv2_levit.network_architectures.vit_hybrids.vit_encoder import PATCH, ViTEncoder, resize_position_embedding

POSITIONS = "vit.pos_embed"
# names of timm's vision transformers as `PretrainedPart` takes them
VIT_NAMES = (r"vit\.(.+)", r"\1")


class ViTNetwork(SegmentationNetwork):
    """Base of the networks with a `ViTEncoder` named ``vit``, whose position embedding follows the image size.

    Images are padded with zeros to multiples of 16 pixels and the outputs cropped back, so any size passes.
    """

    size_multiple = PATCH
    table_kind = "position embedding"
    vit: ViTEncoder

    def table_grids(self, image_size: Grid) -> dict[str, Grid]:
        return {POSITIONS: token_grid(image_size, PATCH)}

    def resize_table(self, table: Tensor, *, old_grid: Grid, new_grid: Grid) -> Tensor:
        return resize_position_embedding(table, old_grid=old_grid, new_grid=new_grid)

    def _adapt_pretrained(self, name: str, value: Tensor, target: Tensor) -> tuple[Tensor, str | None]:
        if name != POSITIONS:
            return super()._adapt_pretrained(name, value, target)
        rows, columns = token_grid(IMAGENET_SIZE, PATCH)
        positions = value[:, -rows * columns :]  # class and distillation tokens come first
        resized, done = super()._adapt_pretrained(name, positions, target)
        if done is None and positions.shape != value.shape:
            done = "position embedding without class token"
        return resized, done
