"""A small network that keeps every rule, and networks that each fall into one trap of nnU-Net's."""

import threading

import torch
import torch.nn.functional as F
from timm.layers import BatchNormAct2d
from torch import nn


class Good(nn.Module):
    """Images (B, in_channels, H, W) to logits (B, num_classes, H, W), of any size."""

    def __init__(self, in_channels, num_classes):
        super().__init__()
        self.encoder = nn.Conv2d(in_channels, 8, 3, padding=1)
        self.norm = nn.BatchNorm2d(8)
        self.head = nn.Conv2d(8, num_classes, 1)

    def features(self, images):
        return F.relu(self.norm(self.encoder(images)))

    def forward(self, images):
        return self.head(self.features(images))


class NormAndRelu(nn.BatchNorm2d):
    """A batch norm that is more than one: torch's conversion for several GPUs makes a plain one of it."""

    def forward(self, maps):
        return F.relu(super().forward(maps))


class NormWithActivation(Good):
    """Has such a norm."""

    def __init__(self, in_channels, num_classes):
        super().__init__(in_channels, num_classes)
        self.norm = NormAndRelu(8)

    def features(self, images):
        return self.norm(self.encoder(images))


class TimmNorm(NormWithActivation):
    """Has timm's norm with an activation, as EfficientNet does."""

    def __init__(self, in_channels, num_classes):
        super().__init__(in_channels, num_classes)
        self.norm = BatchNormAct2d(8)


class OnlyRgb(Good):
    """The first layer takes three channels, whatever it is asked for."""

    def __init__(self, in_channels, num_classes):
        super().__init__(3, num_classes)


class FourClasses(Good):
    """The last layer has four classes, whatever it is asked for."""

    def __init__(self, in_channels, num_classes):
        super().__init__(in_channels, 4)


class SegLayers(Good):
    """Names its head as nnU-Net does (trap 6)."""

    def __init__(self, in_channels, num_classes):
        super().__init__(in_channels, num_classes)
        self.seg_layers = nn.ModuleList([self.head])
        del self.head

    def forward(self, images):
        return self.seg_layers[0](self.features(images))


class SizedTable(SegLayers):
    """Has a table as large as the image (trap 6)."""

    def __init__(self, in_channels, num_classes, img_size):
        super().__init__(in_channels, num_classes)
        self.table = nn.Parameter(torch.zeros(8, *img_size))

    def features(self, images):
        return super().features(images) + self.table


class Softmax(Good):
    """Returns probabilities."""

    def forward(self, images):
        return super().forward(images).softmax(1)


class Tanh(Good):
    """Returns bounded values."""

    def forward(self, images):
        return super().forward(images).tanh()


class UnusedLayer(Good):
    """A layer that the forward pass never reaches (trap 7)."""

    def __init__(self, in_channels, num_classes):
        super().__init__(in_channels, num_classes)
        self.left_over = nn.Conv2d(8, 8, 1)


class Overflow(Good):
    """Squares what autocast made fp16 (trap 4)."""

    def forward(self, images):
        energy = self.encoder(images).square().mean((2, 3), keepdim=True)
        return self.head(self.features(images) * energy.sqrt().clamp_min(1e-3))


class SwallowsNan(Good):
    """Makes a NaN a zero (trap 4)."""

    def forward(self, images):
        return super().forward(images.nan_to_num())


class StaleCache(Good):
    """Keeps what it computed from its weights, and clears it in training alone, as timm's LeViT does (trap 3)."""

    def __init__(self, in_channels, num_classes):
        super().__init__(in_channels, num_classes)
        self.cache = None

    def train(self, mode=True):
        if mode:
            self.cache = None
        return super().train(mode)

    def forward(self, images):
        if self.training:
            return super().forward(images)
        if self.cache is None:
            self.cache = self.head.weight * 2
        return F.conv2d(self.features(images), self.cache, self.head.bias)


class Lock(Good):
    """Can't be copied (trap 11)."""

    def __init__(self, in_channels, num_classes):
        super().__init__(in_channels, num_classes)
        self.lock = threading.Lock()


class Lambda(Good):
    """Can be copied, and can't be pickled."""

    def __init__(self, in_channels, num_classes):
        super().__init__(in_channels, num_classes)
        self.activation = lambda x: F.relu(x)


class MixesImages(Good):
    """Subtracts the mean over the batch (prediction has other batches than training)."""

    def forward(self, images):
        return super().forward(images - images.mean((0, 2, 3), keepdim=True))


class DropsAlways(Good):
    """Drops features in evaluation too."""

    def forward(self, images):
        return self.head(F.dropout(self.features(images), 0.5))


class BranchesOnValues(Good):
    """Takes another way for bright images, which neither tracing nor shapes tell."""

    def forward(self, images):
        return super().forward(images if images.mean() > 0 else -images)


class QuarterResolution(Good):
    """Leaves the upsampling to others, as many published networks do."""

    def forward(self, images):
        return F.avg_pool2d(super().forward(images), 4)


class MultiplesOf16(Good):
    """Fails where skip and upsampled map do not meet (trap 12)."""

    def forward(self, images):
        features = self.features(images)
        return self.head(features + F.interpolate(F.max_pool2d(features, 16), scale_factor=16))


class ListOfOutputs(Good):
    """Returns an auxiliary output before the one of full resolution, in training and in evaluation (trap 2)."""

    def forward(self, images):
        logits = super().forward(images)
        return [F.avg_pool2d(logits, 2), logits]


class HeadsOfTrainingAlone(nn.Module):
    """Has nnU-Net's own signature, and builds its auxiliary head with deep supervision alone (trap 1)."""

    def __init__(self, input_channels, num_classes, strides=((1, 1), (2, 2), (2, 2)), deep_supervision=True):
        super().__init__()
        self.encoder = nn.Conv2d(input_channels, 8, 3, padding=1)
        self.decoder = nn.Module()
        self.decoder.deep_supervision = deep_supervision
        self.head = nn.Conv2d(8, num_classes, 1)
        if deep_supervision:
            self.auxiliary = nn.Conv2d(8, num_classes, 1)

    def forward(self, images):
        features = self.encoder(images)
        if not self.decoder.deep_supervision:
            return self.head(features)
        return [self.head(features), self.auxiliary(F.avg_pool2d(features, 2))]


class NnUNetsOwn(nn.Module):
    """Has nnU-Net's own signature and keeps to it."""

    def __init__(self, input_channels, num_classes, strides=((1, 1), (2, 2), (2, 2)), deep_supervision=True):
        super().__init__()
        self.encoder = nn.Conv2d(input_channels, 8, 3, padding=1)
        self.decoder = nn.Module()
        self.decoder.deep_supervision = deep_supervision
        self.decoder.seg_layers = nn.ModuleList([nn.Conv2d(8, num_classes, 1) for _ in range(2)])

    def forward(self, images):
        features = self.encoder(images)
        first, second = self.decoder.seg_layers
        if not self.decoder.deep_supervision:
            return first(features)
        return [first(features), second(F.avg_pool2d(features, 2))]


class NeedsWidths(nn.Module):
    """Can't be built without a list of widths, and calls channels and classes by unusual names."""

    def __init__(self, planes_in, planes_out, widths, shape=None):
        super().__init__()
        self.shape = shape
        self.layers = nn.Sequential(nn.Conv2d(planes_in, widths[0], 3, padding=1), nn.Conv2d(widths[0], planes_out, 1))

    def forward(self, images):
        assert self.shape is None or tuple(self.shape) == tuple(images.shape[2:])
        return self.layers(images)


class FixedSize(Good):
    """Takes images of the size alone that it was built for."""

    def __init__(self, in_channels, num_classes, img_size):
        super().__init__(in_channels, num_classes)
        self.position = nn.Parameter(torch.zeros(8, *img_size))

    def forward(self, images):
        return self.head(self.features(images) + self.position)


class PoolsToOnePixel(Good):
    """Normalises a single pixel an image, as DeepLabV3+ does: it trains with two images at once, and not with one."""

    def forward(self, images):
        features = self.features(images)
        return self.head(features + self.norm(F.adaptive_avg_pool2d(features, 1)))


class SquareSide(Good):
    """Takes one number for the side of its images, as many vision transformers do."""

    def __init__(self, in_channels, num_classes, img_size: int = 224):
        super().__init__(in_channels, num_classes)
        self.position = nn.Parameter(torch.zeros(8, img_size, img_size))

    def forward(self, images):
        return self.head(self.features(images) + self.position)


class TupleInEvaluation(Good):
    """Returns a tensor in training, and features beside the logits in evaluation."""

    def forward(self, images):
        features = self.features(images)
        return self.head(features) if self.training else (features, self.head(features))


class FailsInEvaluation(Good):
    """Runs in training alone."""

    def forward(self, images):
        return self.head(self.features(images) if self.training else None)


class FailsOnNumbers(Good):
    """Fails in evaluation of an image that is not zero, which shapes do not tell."""

    def forward(self, images):
        if not self.training and images.abs().sum() > 0:
            raise RuntimeError("no such image was seen")
        return super().forward(images)
