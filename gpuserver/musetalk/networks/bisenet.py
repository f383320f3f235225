"""BiSeNet (Yu et al. 2018) for parsing faces: which of 19 parts each pixel of a picture shows. Used at preparation only."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional

CLASSES = 19  # the parts of CelebAMask-HQ; 0 is the background, 1 the skin
WIDTHS = (64, 64, 128, 256, 512)  # of ResNet-18's stem and its four layers


class ConvBlock(nn.Module):
    """Convolution, batch norm, ReLU; the size stays."""

    def __init__(self, in_channels: int, out_channels: int, kernel: int):
        super().__init__()
        self.conv = nn.Conv2d(in_channels, out_channels, kernel, padding=kernel // 2, bias=False)
        self.bn = nn.BatchNorm2d(out_channels)

    def forward(self, pixels: Tensor) -> Tensor:
        return functional.relu(self.bn(self.conv(pixels)))


class BasicBlock(nn.Module):
    """A residual block of ResNet-18."""

    def __init__(self, in_channels: int, out_channels: int, stride: int):
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(out_channels)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(out_channels)
        self.downsample: nn.Sequential | None = None
        if stride != 1 or in_channels != out_channels:
            self.downsample = nn.Sequential(nn.Conv2d(in_channels, out_channels, 1, stride, bias=False), nn.BatchNorm2d(out_channels))

    def forward(self, pixels: Tensor) -> Tensor:
        changed = self.bn2(self.conv2(functional.relu(self.bn1(self.conv1(pixels)))))
        return functional.relu(changed + (pixels if self.downsample is None else self.downsample(pixels)))


class ResNet18(nn.Module):
    """[B, 3, H, W] -> features at 1/8 (128 channels), 1/16 (256) and 1/32 (512) of the size."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, WIDTHS[0], 7, stride=2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(WIDTHS[0])
        self.layer1, self.layer2, self.layer3, self.layer4 = (
            nn.Sequential(BasicBlock(narrow, wide, stride), BasicBlock(wide, wide, 1))
            for (narrow, wide), stride in zip(pairwise(WIDTHS), (1, 2, 2, 2), strict=True)
        )

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        stem = functional.max_pool2d(functional.relu(self.bn1(self.conv1(images))), 3, stride=2, padding=1)
        eighth = self.layer2(self.layer1(stem))
        sixteenth = self.layer3(eighth)
        return eighth, sixteenth, self.layer4(sixteenth)


class AttentionRefinement(nn.Module):
    """Features, each channel weighted by what the whole picture shows."""

    def __init__(self, in_channels: int, out_channels: int):
        super().__init__()
        self.conv = ConvBlock(in_channels, out_channels, 3)
        self.conv_atten = nn.Conv2d(out_channels, out_channels, 1, bias=False)
        self.bn_atten = nn.BatchNorm2d(out_channels)

    def forward(self, pixels: Tensor) -> Tensor:
        features: Tensor = self.conv(pixels)
        weights = self.bn_atten(self.conv_atten(_average(features))).sigmoid()
        refined: Tensor = features * weights
        return refined


class ContextPath(nn.Module):
    """[B, 3, H, W] -> two feature maps of 128 channels at 1/8 of the size: the details, and what is around them."""

    def __init__(self) -> None:
        super().__init__()
        self.resnet = ResNet18()
        self.arm16 = AttentionRefinement(256, 128)
        self.arm32 = AttentionRefinement(512, 128)
        self.conv_head32 = ConvBlock(128, 128, 3)
        self.conv_head16 = ConvBlock(128, 128, 3)
        self.conv_avg = ConvBlock(512, 128, 1)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        eighth, sixteenth, thirty_second = self.resnet(images)
        coarse = self.arm32(thirty_second) + self.conv_avg(_average(thirty_second))
        coarse = self.conv_head32(functional.interpolate(coarse, sixteenth.shape[2:], mode="nearest"))
        context = self.arm16(sixteenth) + coarse
        return eighth, self.conv_head16(functional.interpolate(context, eighth.shape[2:], mode="nearest"))


class FeatureFusion(nn.Module):
    """Joins details and context: 2 x [B, 128, H, W] -> [B, 256, H, W]."""

    def __init__(self) -> None:
        super().__init__()
        self.convblk = ConvBlock(256, 256, 1)
        self.conv1 = nn.Conv2d(256, 64, 1, bias=False)
        self.conv2 = nn.Conv2d(64, 256, 1, bias=False)

    def forward(self, details: Tensor, context: Tensor) -> Tensor:
        features: Tensor = self.convblk(torch.cat([details, context], dim=1))
        weights = self.conv2(functional.relu(self.conv1(_average(features)))).sigmoid()
        fused: Tensor = features * weights + features
        return fused


class Classifier(nn.Module):
    """Features to one score per class."""

    def __init__(self, in_channels: int, hidden: int):
        super().__init__()
        self.conv = ConvBlock(in_channels, hidden, 3)
        self.conv_out = nn.Conv2d(hidden, CLASSES, 1, bias=False)

    def forward(self, features: Tensor) -> Tensor:
        scores: Tensor = self.conv_out(self.conv(features))
        return scores


class BiSeNet(nn.Module):
    """forward(): RGB [B, 3, 512, 512], normalised as ImageNet is, -> scores [B, 19, 512, 512]."""

    def __init__(self) -> None:
        super().__init__()
        self.cp = ContextPath()
        self.ffm = FeatureFusion()
        self.conv_out = Classifier(256, 256)
        self.conv_out16 = Classifier(128, 64)  # this one and the next serve training only; the official file has their weights
        self.conv_out32 = Classifier(128, 64)

    def forward(self, images: Tensor) -> Tensor:
        scores = self.conv_out(self.ffm(*self.cp(images)))
        return functional.interpolate(scores, images.shape[2:], mode="bilinear", align_corners=True)


def _average(features: Tensor) -> Tensor:
    """[B, C, H, W] -> [B, C, 1, 1]"""
    return features.mean(dim=(2, 3), keepdim=True)
