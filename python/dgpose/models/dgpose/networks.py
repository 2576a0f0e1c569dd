"""Encoders, decoder and discriminator of DGPose. Layers and widths are [?]: our choice."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

from dgpose.models.dgpose.body_parts import PART_NAMES, place_codes, pool_features
from dgpose.models.dgpose.config import DGPoseConfig
from dgpose.models.dgpose.gaussians import Gaussian
from dgpose.nn.residual import ResidualBlock, conv_bn
from dgpose.skeletons import BODY14
from dgpose_ext import decode_heatmap

__all__ = [
    "CodeHead",
    "Decoder",
    "Discriminator",
    "PartCodeHead",
    "PoseHead",
    "PosePlacement",
    "Trunk",
    "latent_size",
]

_LOG_VARIANCES = (-12.0, 6.0)  # beyond them nothing is learned, and exp must not overflow
_PLACED = 32  # channels of placed codes, and of all conditions that a decoder's layer sees


def latent_size(config: DGPoseConfig) -> int:
    """Z, numbers of an appearance code."""
    parts = config.part_size * len(PART_NAMES) if config.latent == "parts" else 0
    return config.latent_size + parts


def _halves(values: Tensor) -> Gaussian:
    """[..., 2D] as mean and log-variance [..., D]."""
    mean, log_variance = values.float().chunk(2, -1)
    return Gaussian(mean, log_variance.clamp(*_LOG_VARIANCES))


class Trunk(nn.Module):
    """Image, and maps beside it, to features on grids of S/2, S/4, S/8 and S/16 cells a side.

    Args:
        config: sizes.
        maps: channels of the maps; 0: none.

    Shape:
        images [B, 3, S, S] in [0, 1], maps [B, M, S/2, S/2] -> four tensors [B, channels, h, w].
    """

    def __init__(self, config: DGPoseConfig, maps: int = 0) -> None:
        super().__init__()
        c2, *others = config.channels
        self.stem = nn.Sequential(conv_bn(12 + maps, c2, 3), nn.ReLU())
        inputs = config.channels[:-1]
        self.stages = nn.ModuleList(
            nn.Sequential(
                conv_bn(before, after, 3, stride=2),
                nn.ReLU(),
                *(ResidualBlock(after, after // 2) for _ in range(config.blocks)),
            )
            for before, after in zip(inputs, others, strict=True)
        )

    def forward(self, images: Tensor, maps: Tensor | None = None) -> list[Tensor]:
        # 2x2 pixels are folded into channels: full resolution would take most of the time.
        given = F.pixel_unshuffle(2 * images - 1, 2)
        if maps is not None:
            given = torch.cat((given, maps), 1)
        features = [self.stem(given.contiguous(memory_format=torch.channels_last))]
        for stage in self.stages:
            features.append(stage(features[-1]))
        return features


class CodeHead(nn.Module):
    """Features of a `Trunk` to the posterior of one vector [B, Z]."""

    def __init__(self, config: DGPoseConfig) -> None:
        super().__init__()
        cells = (config.image_size // 16) ** 2
        self.linear = nn.Linear(config.channels[-1] * cells, 2 * config.latent_size)

    def forward(self, features: list[Tensor]) -> Gaussian:
        return _halves(self.linear(features[-1].flatten(1)))


class PartCodeHead(nn.Module):
    """Features and part shares to the posterior of the codes of background and parts [B, Z].

    A part's code is pooled from its colours and the three finest grids; the background's comes from
    the coarsest, with the parts cut out.
    """

    def __init__(self, config: DGPoseConfig) -> None:
        super().__init__()
        self.background = CodeHead(config)
        inputs = 3 + sum(config.channels[:3])
        weight = torch.randn(len(PART_NAMES), inputs, 2 * config.part_size) / math.sqrt(inputs)
        self.weight = nn.Parameter(weight)
        self.bias = nn.Parameter(torch.zeros(len(PART_NAMES), 2 * config.part_size))

    def forward(self, images: Tensor, features: list[Tensor], shares: Tensor) -> Gaussian:
        pooled, under = [pool_features(F.avg_pool2d(2 * images - 1, 2), shares)], shares
        for grid in features[:3]:
            pooled.append(pool_features(grid, under))
            under = F.avg_pool2d(under, 2)
        rest = features[3] * (1 - under.sum(1, keepdim=True))
        background = self.background([rest])
        parts = _halves(torch.einsum("bpi,pio->bpo", torch.cat(pooled, 2), self.weight) + self.bias)
        return Gaussian(
            torch.cat((background.mean, parts.mean.flatten(1)), 1),
            torch.cat((background.log_variance, parts.log_variance.flatten(1)), 1),
        )


class PoseHead(nn.Module):
    """Features of a `Trunk` to the posterior of the pose y [B, 28]; see `normalized_pose`.

    With `pose_head="heatmap"` the mean is that of a softmax map of each joint on S/4 cells a side.

    Attributes:
        deviation_factors: [14], by which the standard deviations of the joints must be multiplied
            to be those of the errors on images that were not learned from; see `calibrate`.
    """

    deviation_factors: Tensor

    def __init__(self, config: DGPoseConfig) -> None:
        super().__init__()
        _, c4, c8, c16 = config.channels
        joints = len(BODY14)
        cells = (config.image_size // 16) ** 2
        self.register_buffer("deviation_factors", torch.ones(joints))
        self.heatmaps = config.pose_head == "heatmap"
        self.log_variance = nn.Linear(c16, 2 * joints)
        nn.init.normal_(self.log_variance.weight, std=1e-3)
        nn.init.constant_(self.log_variance.bias, -5.0)  # 8 % of half a crop
        if self.heatmaps:
            self.coarse = conv_bn(c16, c8, 1)
            self.middle = conv_bn(c8, c4, 1)
            self.fuse = nn.Sequential(conv_bn(c4, c4, 3), nn.ReLU())
            self.maps = nn.Conv2d(c4, joints, 1)
        else:
            self.linear = nn.Linear(c16 * cells, 2 * joints)

    def forward(self, features: list[Tensor]) -> Gaussian:
        _, fine, middle, coarse = features
        log_variance = self.log_variance(coarse.mean((2, 3))).float().clamp(*_LOG_VARIANCES)
        if not self.heatmaps:
            return Gaussian(self.linear(coarse.flatten(1)).float(), log_variance)
        middle = F.relu(middle + F.interpolate(self.coarse(coarse), scale_factor=2.0))
        fine = F.relu(fine + F.interpolate(self.middle(middle), scale_factor=2.0))
        maps = self.maps(self.fuse(fine)).float().contiguous()
        cells, _ = decode_heatmap(maps, "softargmax")
        # The means of cells reach from the first cell's centre to the last one's: a little farther
        # is a joint at the border.
        return Gaussian((cells * (2 / (maps.shape[-1] - 1)) - 1).flatten(1), log_variance)

    @torch.no_grad()
    def calibrate(self, posterior: Gaussian, y: Tensor, known: Tensor) -> None:
        """Fits `deviation_factors` to poses y [N, 28], of which known [N, 14] joints count: those
        under which their likelihood is largest. A joint that nobody knows keeps its factor."""
        errors = (posterior.mean - y).view(len(y), -1, 2).double()
        variances = posterior.log_variance.exp().view_as(errors).double()
        squares = (errors.square() / variances).mean(2).where(known, 0)
        counts = known.sum(0)
        factors = (squares.sum(0) / counts.clamp(min=1)).sqrt()
        self.deviation_factors.copy_(torch.where(counts > 0, factors, self.deviation_factors))


class PosePlacement(nn.Module):
    """What a decoder sees of a pose on S/2 cells a side: maps, and the parts' codes in place."""

    def __init__(self, config: DGPoseConfig, maps: int) -> None:
        super().__init__()
        self.codes: nn.Parameter | None = None
        if config.latent == "parts":
            shape = (len(PART_NAMES), config.part_size, _PLACED)
            self.codes = nn.Parameter(torch.randn(shape) / math.sqrt(config.part_size))
        self.mix = nn.Conv2d(maps + (_PLACED if self.codes is not None else 0), _PLACED, 1)

    def forward(self, maps: Tensor, parts: Tensor, shares: Tensor | None) -> Tensor:
        """maps [B, M, S/2, S/2], codes of all parts [B, P part_size], shares [B, P, S/2, S/2] ->
        [B, 32, S/2, S/2]."""
        if self.codes is not None:
            assert shares is not None
            each = parts.reshape(len(parts), len(PART_NAMES), -1)
            codes = torch.einsum("bpd,pde->bpe", each, self.codes)
            maps = torch.cat((maps, place_codes(codes, shares)), 1)
        mixed: Tensor = F.relu(self.mix(maps.contiguous(memory_format=torch.channels_last)))
        return mixed


class _UpBlock(nn.Module):
    """One grid of the decoder: features and conditions, brought together, to features."""

    def __init__(
        self, inputs: int, outputs: int, conditions: int, *, blocks: int, modulated: bool
    ) -> None:
        super().__init__()
        self.modulation: nn.Conv2d | None = None
        if modulated and conditions:
            self.modulation = nn.Conv2d(conditions, 2 * outputs, 3, padding=1)
            nn.init.zeros_(self.modulation.weight)
            conditions = 0
        self.convolution = conv_bn(inputs + conditions, outputs, 3)
        self.relu = nn.ReLU()
        self.blocks = nn.Sequential(*(ResidualBlock(outputs, outputs // 2) for _ in range(blocks)))

    def forward(self, x: Tensor, condition: Tensor | None) -> Tensor:
        if self.modulation is not None and condition is not None:
            scale, shift = self.modulation(condition).chunk(2, 1)
            out = self.convolution(x) * (1 + scale) + shift
        else:
            out = self.convolution(x if condition is None else torch.cat((x, condition), 1))
        result: Tensor = self.blocks(self.relu(out))
        return result


class Decoder(nn.Module):
    """Code of the image, and conditions on S/2 cells a side, to the image.

    Shape:
        code [B, latent_size], condition [B, 32, S/2, S/2] or None -> [B, 3, S, S] in [0, 1].
    """

    def __init__(self, config: DGPoseConfig, *, conditioned: bool) -> None:
        super().__init__()
        c2, c4, c8, c16 = config.channels
        conditions = _PLACED if conditioned else 0
        self.grid = config.image_size // 16
        self.first = nn.Linear(config.latent_size, c16 * self.grid**2)
        widths = ((c16, c16), (c16, c8), (c8, c4), (c4, c2))
        self.stages = nn.ModuleList(
            _UpBlock(
                before,
                after,
                conditions,
                blocks=config.blocks if after != c2 else 0,
                modulated=config.modulated,
            )
            for before, after in widths
        )
        self.last = nn.Conv2d(c2, 12, 3, padding=1)
        with torch.no_grad():  # four alike: they begin without a pattern (Aitken et al., 2017)
            for values in self.last.parameters():
                values.copy_(values[::4].repeat_interleave(4, 0))

    def forward(self, code: Tensor, condition: Tensor | None = None) -> Tensor:
        conditions: list[Tensor | None] = [condition]
        for _ in self.stages[1:]:
            conditions.append(None if condition is None else F.avg_pool2d(conditions[-1], 2))  # type: ignore[arg-type]
        x = self.first(code).unflatten(1, (-1, self.grid, self.grid))
        x = F.relu(x).contiguous(memory_format=torch.channels_last)
        for index, (stage, seen) in enumerate(zip(self.stages, conditions[::-1], strict=True)):
            x = stage(F.interpolate(x, scale_factor=2.0) if index else x, seen)
        return F.pixel_shuffle(self.last(x), 2).float().sigmoid()


class Discriminator(nn.Module):
    """Image, and maps beside it, to one logit for each cell of its coarsest grid.

    Shape:
        images [B, 3, S, S] in [0, 1], maps [B, M, S/2, S/2] where the configuration has it see
        them ->
        (logits [B, 1, h, w], features: one [B, C, h, w] a layer).
    """

    def __init__(self, config: DGPoseConfig, maps: int) -> None:
        super().__init__()
        self.sees_pose = config.discriminator_sees_pose and maps > 0
        inputs = 12 + (maps if self.sees_pose else 0)

        def layer(before: int, after: int, kernel: int, stride: int) -> nn.Module:
            convolution = nn.Conv2d(before, after, kernel, stride, 1)
            return spectral_norm(convolution) if config.spectral_norm else convolution

        first, *others = config.discriminator_channels
        self.layers = nn.ModuleList([layer(inputs, first, 3, 1)])
        for before, after in zip((first, *others), others, strict=False):
            self.layers.append(layer(before, after, 4, 2))
        self.last = layer(config.discriminator_channels[-1], 1, 3, 1)

    def forward(self, images: Tensor, maps: Tensor | None = None) -> tuple[Tensor, list[Tensor]]:
        x = F.pixel_unshuffle(2 * images - 1, 2)
        if self.sees_pose:
            assert maps is not None
            x = torch.cat((x, maps), 1)
        x = x.contiguous(memory_format=torch.channels_last)
        features = []
        for convolution in self.layers:
            x = F.leaky_relu(convolution(x), 0.2)
            features.append(x)
        return self.last(x), features
