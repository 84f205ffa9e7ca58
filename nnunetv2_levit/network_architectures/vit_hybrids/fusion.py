"""Gates and the fusion of a convolutional with a transformer branch (TransFuse, Zhang et al. 2021, section 2)."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nnunetv2_levit.network_architectures.layers.convolution_blocks import ConvNorm, ResizedConvNorm
from nnunetv2_levit.network_architectures.layers.grids import spatial_size


class SpatialGate(nn.Module):
    """Weights each position of (B, C, H, W) by a sigmoid of its maximum and mean over the channels (CBAM's)."""

    def __init__(self) -> None:
        super().__init__()
        self.mix = ConvNorm(2, 1, 7, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        pooled = torch.cat([x.amax(1, keepdim=True), x.mean(1, keepdim=True)], dim=1)
        return x * torch.sigmoid(self.mix(pooled))


class ChannelGate(nn.Module):
    """Weights each channel of (B, C, H, W) by a sigmoid of two layers on the channels' means (SE block)."""

    def __init__(self, width: int, *, reduction: int) -> None:
        super().__init__()
        self.fc1 = nn.Conv2d(width, width // reduction, 1)
        self.fc2 = nn.Conv2d(width // reduction, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.sigmoid(self.fc2(F.relu(self.fc1(x.mean((2, 3), keepdim=True)))))


class AttentionGate(nn.Module):
    """Weights each position of ``skip`` by what it and the coarser ``x``, resized to it, say (Attention U-Net)."""

    def __init__(self, *, width: int, skip_width: int, hidden: int) -> None:
        super().__init__()
        self.x_conv = ResizedConvNorm([width], hidden, 1)
        self.skip_conv = ConvNorm(skip_width, hidden, 1)
        self.psi = ConvNorm(hidden, 1, 1)

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        said = F.relu(self.x_conv([x], spatial_size(skip)) + self.skip_conv(skip), inplace=True)
        return skip * torch.sigmoid(self.psi(said))


class PreActResidual(nn.Module):
    """BN ReLU 1x1 to half, BN ReLU 3x3, BN ReLU 1x1, plus a 1x1 of the input: (B, C, H, W) -> (B, out, H, W)."""

    normalised_layers = (("conv1", "bn2"), ("conv2", "bn3"))  # bn1 has no convolution before it

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        half = out_channels // 2
        self.bn1 = nn.BatchNorm2d(in_channels)
        self.conv1 = nn.Conv2d(in_channels, half, 1)
        self.bn2 = nn.BatchNorm2d(half)
        self.conv2 = nn.Conv2d(half, half, 3, padding=1)
        self.bn3 = nn.BatchNorm2d(half)
        self.conv3 = nn.Conv2d(half, out_channels, 1)
        self.shortcut = nn.Conv2d(in_channels, out_channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        out = self.conv1(F.relu(self.bn1(x), inplace=True))
        out = self.conv2(F.relu(self.bn2(out), inplace=True))
        return self.conv3(F.relu(self.bn3(out), inplace=True)) + self.shortcut(x)


class BiFusion(nn.Module):
    """Fuses a map of the CNN with one of the transformer, of the same size: (B, C, H, W), (B, T, H, W) -> (B, C, H, W).

    b = ReLU(BN(3x3(BN(1x1 g) * BN(1x1 t)))); the CNN's map g passes a spatial gate, the transformer's t a channel gate;
    a pre-activated residual block mixes [g, t, b].
    """

    def __init__(self, *, cnn_width: int, transformer_width: int, reduction: int, dropout: float) -> None:
        super().__init__()
        self.cnn_gate = SpatialGate()
        self.transformer_gate = ChannelGate(transformer_width, reduction=reduction)
        self.cnn_conv = ConvNorm(cnn_width, cnn_width, 1)
        self.transformer_conv = ConvNorm(transformer_width, cnn_width, 1)
        self.interaction = ConvNorm(cnn_width, cnn_width, 3)
        self.mix = PreActResidual(2 * cnn_width + transformer_width, cnn_width)
        self.dropout = nn.Dropout2d(dropout)

    def forward(self, cnn: Tensor, transformer: Tensor) -> Tensor:
        product = self.cnn_conv(cnn) * self.transformer_conv(transformer)
        interaction = F.relu(self.interaction(product), inplace=True)
        fused = torch.cat([self.cnn_gate(cnn), self.transformer_gate(transformer), interaction], dim=1)
        return self.dropout(self.mix(fused))
