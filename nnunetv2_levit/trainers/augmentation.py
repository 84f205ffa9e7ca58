"""What a recipe takes away from nnU-Net's augmentation."""

from batchgeneratorsv2.transforms.spatial.mirroring import MirrorTransform
from batchgeneratorsv2.transforms.spatial.spatial import SpatialTransform
from batchgeneratorsv2.transforms.utils.compose import ComposeTransforms
from batchgeneratorsv2.transforms.utils.random import RandomTransform


def mirror_and_rotate_only(pipeline: ComposeTransforms) -> None:
    """Leave mirroring and rotation (of half of the patches) in nnU-Net's pipeline, and nothing else that is random.

    Intensity, scale and resolution of a patch are then those of its image. What nnU-Net does to labels stays.
    """
    kept = []
    for transform in pipeline.transforms:
        inner = transform.transform if isinstance(transform, RandomTransform) else transform
        if isinstance(inner, SpatialTransform):
            inner.p_scaling, inner.p_rotation = 0.0, 0.5
        of_cascades = type(inner).__module__.startswith("batchgeneratorsv2.transforms.nnunet")
        stays = of_cascades or isinstance(inner, MirrorTransform | SpatialTransform)
        if stays or not isinstance(transform, RandomTransform):
            kept.append(transform)
    pipeline.transforms = kept
