"""Stage 1: encoders of foreground and background, the decoder, and the discriminator."""

from __future__ import annotations

from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

from dgpose.models.dpig.config import DPIGConfig
from dgpose.models.dpig.pose_inputs import PoseInputs
from dgpose.nn.residual import ResidualBlock, conv_bn
from dgpose.skeletons import DPIG_LIMBS, OPENPOSE18
from dgpose_ext import crop_and_resize, limb_heatmap

__all__ = ["Decoder", "Discriminator", "Encoder"]


class _ResidualPair(nn.Module):
    """x + relu(conv3x3(relu(conv3x3(x)))), the published block without normalisation."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.pair = nn.Sequential(
            *(nn.Conv2d(channels, channels, 3, padding=1), nn.ReLU()),
            *(nn.Conv2d(channels, channels, 3, padding=1), nn.ReLU()),
        )

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = x + self.pair(x)
        return out


def _block(channels: int, config: DPIGConfig) -> nn.Module:
    return ResidualBlock(channels, channels // 2) if config.batch_norm else _ResidualPair(channels)


def _convolution(
    inputs: int, outputs: int, kernel: int, config: DPIGConfig, stride: int = 1
) -> nn.Sequential:
    """Convolution, normalised where the configuration says so, and ReLU."""
    if config.batch_norm:
        return nn.Sequential(conv_bn(inputs, outputs, kernel, stride), nn.ReLU())
    return nn.Sequential(nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2), nn.ReLU())


class _Levels(nn.Module):
    """Residual blocks on grids that halve: [B, C0, h, w] -> one tensor [B, C, h', w'] a level."""

    def __init__(self, config: DPIGConfig, levels: int | None = None) -> None:
        super().__init__()
        channels = config.channels[:levels]
        self.blocks = nn.ModuleList(_block(c, config) for c in channels)
        self.down = nn.ModuleList(
            _convolution(before, after, 3, config, stride=2) for before, after in pairwise(channels)
        )

    def forward(self, x: Tensor) -> list[Tensor]:
        features = [self.blocks[0](x)]
        for down, block in zip(self.down, self.blocks[1:], strict=True):
            features.append(block(down(features[-1])))
        return features


class _CodeEncoder(nn.Module):
    """Features on a grid of the given size to a code: [B, C0, h, w] -> [B, D].

    With `pooled_levels` the code is read from all levels, averaged over the coarsest one's cells:
    colours reach it straight from the finest.
    """

    def __init__(self, config: DPIGConfig, grid: tuple[int, int], code: int) -> None:
        super().__init__()
        self.levels = _Levels(config)
        self.coarse = _coarsest(grid, len(config.channels))
        self.pooled = config.pooled_levels
        channels = sum(config.channels) if self.pooled else config.channels[-1]
        self.linear = nn.Linear(channels * self.coarse[0] * self.coarse[1], code)

    def forward(self, x: Tensor) -> Tensor:
        features = self.levels(x)
        seen = features[-1]
        if self.pooled:
            last = len(features) - 1
            pools = [F.avg_pool2d(f, 2 ** (last - level)) for level, f in enumerate(features)]
            seen = torch.cat(pools, 1)
        code: Tensor = self.linear(seen.flatten(1))
        return code


class Encoder(nn.Module):
    """Images to codes of foreground and background.

    Shape:
        images [B, 3, H, W] in [-1, 1], a pose -> (foreground [B, 7 part_code], background
        [B, background_code] or None). The code of a part that is absent is 0.
    """

    def __init__(self, config: DPIGConfig) -> None:
        super().__init__()
        self.config = config
        first = config.channels[0]
        self.stem = _convolution(3 * config.fold**2, first, 3, config)
        self.stem_block = _block(first, config) if config.stem_block else nn.Identity()
        self.foreground = _CodeEncoder(config, _crop_size(config), _codes_of_crops(config))
        self.background: _CodeEncoder | None = None
        if config.background_code:
            self.background = _CodeEncoder(config, config.grid, config.background_code)

    def forward(self, images: Tensor, pose: PoseInputs) -> tuple[Tensor, Tensor | None]:
        fold = self.config.fold
        folded = F.pixel_unshuffle(images, fold).contiguous(memory_format=torch.channels_last)
        features = self.stem_block(self.stem(folded))
        mask = F.max_pool2d(pose.mask, fold)
        boxes, present = pose.boxes, pose.present
        if self.config.foreground == "whole":
            boxes, present = _whole_body(boxes, present)
        shown = mask if self.config.mask_crops else None
        crops = crop_and_resize(features, boxes / fold, _crop_size(self.config), mask=shown)
        codes = self.foreground(crops.flatten(0, 1)).unflatten(0, crops.shape[:2])
        foreground = codes.float().where(present[..., None], 0).flatten(1)
        if self.background is None:
            return foreground, None
        return foreground, self.background(features * (1 - mask)).float()


def _whole_body(boxes: Tensor, present: Tensor) -> tuple[Tensor, Tensor]:
    """The box around those of all parts that are present: [B, 1, 4] and [B, 1]."""
    low = boxes[..., :2].masked_fill(~present[..., None], torch.inf).amin(1, keepdim=True)
    high = boxes[..., 2:].masked_fill(~present[..., None], -torch.inf).amax(1, keepdim=True)
    someone = present.any(1, keepdim=True)
    return torch.cat((low, high), 2).where(someone[..., None], 0), someone


def _crop_size(config: DPIGConfig) -> tuple[int, int]:
    return (2 * config.crop if config.foreground == "whole" else config.crop), config.crop


def _codes_of_crops(config: DPIGConfig) -> int:
    return config.foreground_code if config.foreground == "whole" else config.part_code


def _coarsest(grid: tuple[int, int], levels: int) -> tuple[int, int]:
    """(h, w) of the last level on a grid that is so large in the first."""
    factor = 2 ** (levels - 1)
    return grid[0] // factor, grid[1] // factor


class _PlacedCodes(nn.Module):
    """What the foreground's codes say about each limb and joint of the body, where it is.

    Each has a share of a cell, from 0 to 1, that falls off as a Gaussian with the distance from it
    where it is visible; the shares' sum is below 1, and the rest is the background's.

    Shape:
        codes [B, D], a pose -> [B, placed_channels, H/fold, W/fold].
    """

    _PIECES = (*DPIG_LIMBS, *((joint, joint) for joint in range(len(OPENPOSE18))))
    _BACKGROUND = 0.2  # as near as a piece must be to have as much of a cell as the background

    def __init__(self, config: DPIGConfig) -> None:
        super().__init__()
        self.fold, self.grid = config.fold, config.grid
        self.sigma = config.placed_sigma / config.fold
        self.linear = nn.Linear(config.foreground_code, len(self._PIECES) * config.placed_channels)

    def forward(self, codes: Tensor, pose: PoseInputs) -> Tensor:
        # The centre of the first cell lies in the middle of its fold x fold pixels.
        cells = (pose.keypoints_px - (self.fold - 1) / 2) / self.fold
        near = limb_heatmap(cells, self._PIECES, self.grid, self.sigma, visible=pose.visible)
        shares = near / (near.sum(1, keepdim=True) + self._BACKGROUND)
        each = self.linear(codes).unflatten(1, (len(self._PIECES), -1))
        return torch.einsum("bpe,bphw->behw", each, shares.to(each))


class Decoder(nn.Module):
    """Codes and a pose to the image, by a U-Net.

    Shape:
        foreground [B, 7 part_code], background [B, background_code] or None, a pose ->
        [B, 3, H, W], for pixels in [-1, 1] (not bounded).
    """

    def __init__(self, config: DPIGConfig) -> None:
        super().__init__()
        self.config = config
        self.placed = _PlacedCodes(config) if config.placement == "placed" else None
        codes = config.foreground_code + config.background_code
        conditions, extra = (codes, 0)
        if self.placed is not None:
            conditions, extra = config.placed_channels, config.background_code
        channels = config.channels[: config.decoder_levels]
        first, last = channels[0], channels[-1]
        self.first = _convolution(conditions + len(OPENPOSE18), first, 3, config)
        self.levels = _Levels(config, config.decoder_levels)
        self.coarse = _coarsest(config.grid, len(channels))
        cells = self.coarse[0] * self.coarse[1]
        self.squeeze = nn.Linear(last * cells, config.bottleneck)
        self.expand = nn.Linear(config.bottleneck + extra, config.bottleneck_channels * cells)
        # Of the skip connection and of what comes from below, coarsest level first.
        below = (config.bottleneck_channels, *channels[-2::-1])
        widths = [c + before for c, before in zip(channels[::-1], below, strict=True)]
        self.blocks = nn.ModuleList(_block(width, config) for width in widths)
        self.up = nn.ModuleList(
            _convolution(width, after, 1, config)
            for width, after in zip(widths, channels[-2::-1], strict=False)
        )
        self.last = nn.Conv2d(widths[-1], 3 * config.fold**2, 3, padding=1)
        with torch.no_grad():  # a cell's pixels begin alike (Aitken et al., 2017)
            for values in self.last.parameters():
                values.copy_(values[:: config.fold**2].repeat_interleave(config.fold**2, 0))

    def forward(self, foreground: Tensor, background: Tensor | None, pose: PoseInputs) -> Tensor:
        maps = F.avg_pool2d(pose.maps, self.config.fold)
        if self.placed is not None:
            conditions, extra = self.placed(foreground, pose), background
        else:
            codes = foreground if background is None else torch.cat((foreground, background), 1)
            conditions, extra = codes[..., None, None].expand(-1, -1, *maps.shape[2:]), None
        x = torch.cat((conditions, maps), 1).contiguous(memory_format=torch.channels_last)
        skips = self.levels(self.first(x))
        code = self.squeeze(skips[-1].flatten(1))
        if extra is not None:
            code = torch.cat((code, extra), 1)
        x = self.expand(code).unflatten(1, (-1, *self.coarse))
        x = x.contiguous(memory_format=torch.channels_last)
        for index, (block, skip) in enumerate(zip(self.blocks, skips[::-1], strict=True)):
            if index:  # published: upsampled first, which gives the same for four times the work
                x = F.interpolate(self.up[index - 1](x), scale_factor=2.0)
            x = block(torch.cat((x, skip), 1))
        return F.pixel_shuffle(self.last(x), self.config.fold).float()


class Discriminator(nn.Module):
    """DCGAN's: images [B, 3, H, W] in [-1, 1] -> one logit an image [B]."""

    def __init__(self, config: DPIGConfig) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        height, width = config.size
        for before, after in pairwise((3, *config.discriminator_channels)):
            convolution = nn.Conv2d(before, after, 5, 2, 2)
            layers.append(spectral_norm(convolution) if config.spectral_norm else convolution)
            if before != 3 and not config.spectral_norm:
                layers.append(nn.BatchNorm2d(after))
            layers.append(nn.LeakyReLU(0.2))
            height, width = (height + 1) // 2, (width + 1) // 2
        self.layers = nn.Sequential(*layers)
        last = nn.Linear(config.discriminator_channels[-1] * height * width, 1)
        self.last = spectral_norm(last) if config.spectral_norm else last

    def forward(self, images: Tensor) -> Tensor:
        x = self.layers(images.contiguous(memory_format=torch.channels_last))
        logits: Tensor = self.last(x.flatten(1)).float()[:, 0]
        return logits
