"""KeypointNetwork: a small convolutional network from a person crop to the 14 joints of BODY14.

It is the judge of generated images: trained on real or rendered images alone, never on generated
ones, and then frozen. The default has 370 thousand parameters and 50 million multiply-adds. An
encoder goes down to four cells a side, its levels are added back to the 32x32 grid, and each joint
gets a map of logits there; a joint lies where the softmax of its map has its mode.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dgpose.model_zoo import model_path
from dgpose.nn.residual import ResidualBlock, conv_bn
from dgpose.nn.weight_files import read_model, write_model
from dgpose.skeletons import BODY14
from dgpose_ext import decode_heatmap

__all__ = ["KeypointNetwork", "KeypointNetworkConfig", "load_judge", "save_judge"]

_KIND = "keypoint_network"
_STRIDE = 2
_BLUR_KERNEL = 5
_WINDOW = 5  # cells, of scores
_IMAGES_AT_ONCE = 128


@dataclass(frozen=True)
class KeypointNetworkConfig:
    """Architecture of a `KeypointNetwork`; stored in every weight file.

    Args:
        image_size: S, the edge of the crops; a multiple of 16.
        channels: channels at strides 2, 4, 8 and 16.
        inner: channels inside the residual blocks at strides 4, 8 and 16.

    Raises:
        ValueError: a size that is not such a multiple, a count below 1.
    """

    image_size: int = 64
    channels: tuple[int, int, int, int] = (32, 64, 96, 64)
    inner: tuple[int, int, int] = (64, 48, 48)

    def __post_init__(self) -> None:
        if self.image_size < 16 or self.image_size % 16:
            raise ValueError(f"image_size must be a multiple of 16, got {self.image_size}")
        for name, length in (("channels", 4), ("inner", 3)):
            value = tuple(getattr(self, name))
            if len(value) != length or any(type(n) is not int or n < 1 for n in value):
                raise ValueError(f"{name} must be {length} integers >= 1, got {list(value)}")
            object.__setattr__(self, name, value)  # JSON gives lists


class KeypointNetwork(nn.Module):
    """Person crops to joints.

    Args:
        config: the architecture; None for the default.

    Shape:
        input [B, 3, S, S] RGB in [0, 1]; `estimate` and `features` also take crops of other sizes.
        output [B, 14, S/2, S/2] logits; cell (0, 0) covers the first 2x2 pixels.
    """

    def __init__(self, config: KeypointNetworkConfig | None = None) -> None:
        super().__init__()
        self.config = config or KeypointNetworkConfig()
        c2, c4, c8, c16 = self.config.channels

        def stage(inputs: int, outputs: int, inner: int) -> nn.Sequential:
            down = conv_bn(inputs, outputs, 3, stride=2)
            return nn.Sequential(down, nn.ReLU(), ResidualBlock(outputs, inner))

        inner4, inner8, inner16 = self.config.inner
        self.stem = nn.Sequential(
            nn.PixelUnshuffle(_STRIDE), conv_bn(3 * _STRIDE**2, c2, 3), nn.ReLU()
        )
        self.down4 = stage(c2, c4, inner4)
        self.down8 = stage(c4, c8, inner8)
        self.down16 = stage(c8, c16, inner16)
        self.lateral16 = conv_bn(c16, c8, 1)
        self.lateral8 = conv_bn(c8, c4, 1)
        self.lateral4 = conv_bn(c4, c2, 1)
        self.up = nn.Upsample(scale_factor=2, mode="bilinear")
        self.relu = nn.ReLU()
        self.fuse = nn.Sequential(conv_bn(c2, c2, 3), nn.ReLU())
        self.head = nn.Conv2d(c2, len(BODY14), 1)
        nn.init.normal_(self.head.weight, std=0.01)

    @classmethod
    def load(cls, model: str | Path = "person_judge") -> KeypointNetwork:
        """A shipped network by its name, or that of a file; see `load_judge`."""
        return load_judge(model_path(model))[0]

    def _levels(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        x2 = self.stem(images - 0.5)
        x4 = self.down4(x2)
        return x2, x4, self.down8(x4)

    def forward(self, images: Tensor) -> Tensor:
        """Maps of logits; as `Shape` says."""
        x2, x4, x8 = self._levels(images)
        x8 = self.relu(x8 + self.up(self.lateral16(self.down16(x8))))
        x4 = self.relu(x4 + self.up(self.lateral8(x8)))
        x2 = self.relu(x2 + self.up(self.lateral4(x4)))
        logits: Tensor = self.head(self.fuse(x2))
        return logits

    @torch.no_grad()
    def estimate(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Joints of crops, in evaluation mode.

        Args:
            images: [B, 3, H, W] RGB in [0, 1] (or uint8). What is not square has its border
                repeated until it is; other sizes than S are resampled.

        Returns:
            (keypoints_px [B, 14, 2], x then y in pixels of the given images, the centre of the
            first at (0, 0); scores [B, 14], the greatest share that 5x5 cells (10 pixels of a crop
            of S) have of their map, in (0, 1]; not calibrated). Each joint gets a place, also one
            that the image does not show.

        Raises:
            ValueError: images of another shape.
        """
        if not len(images):
            return torch.zeros(0, len(BODY14), 2), torch.zeros(0, len(BODY14))
        keypoints, scores = [], []
        for part in images.split(_IMAGES_AT_ONCE):  # type: ignore[no-untyped-call]
            logits = self(self._prepared(part)).float()
            maps = logits.flatten(2).softmax(2).view_as(logits)
            places, _ = decode_heatmap(maps, "dark", blur_kernel=_BLUR_KERNEL)
            keypoints.append(places)
            near = F.avg_pool2d(maps, _WINDOW, 1, _WINDOW // 2) * _WINDOW**2
            scores.append(near.amax((2, 3)))
        height, width = images.shape[2:]
        edge = max(height, width)
        margin = torch.tensor(((edge - width) // 2, (edge - height) // 2)).to(images.device)
        return self.to_pixels(torch.cat(keypoints), edge) - margin, torch.cat(scores)

    @torch.no_grad()
    def features(self, images: Tensor) -> Tensor:
        """What the encoder sees, for distances between sets of images, in evaluation mode.

        Args:
            images: as for `estimate`.

        Returns:
            [B, F] float32: means over the image of the channels at strides 2, 4 and 8, F = 192.

        Raises:
            ValueError: images of another shape.
        """
        if not len(images):
            return torch.zeros(0, sum(self.config.channels[:3]))
        parts = []
        for part in images.split(_IMAGES_AT_ONCE):  # type: ignore[no-untyped-call]
            levels = self._levels(self._prepared(part))
            parts.append(torch.cat([level.float().mean((2, 3)) for level in levels], 1))
        return torch.cat(parts)

    def to_pixels(self, cells: Tensor, size: int) -> Tensor:
        """Places [..., 2] on the grid of the maps as pixels of an image of `size` pixels a side."""
        edge = self.config.image_size // _STRIDE
        return (cells + 0.5) * (size / edge) - 0.5

    def to_cells(self, keypoints_px: Tensor) -> Tensor:
        """Pixels [..., 2] of a crop of S pixels as places on the grid of the maps."""
        return (keypoints_px + 0.5) / _STRIDE - 0.5

    def _prepared(self, images: Tensor) -> Tensor:
        if images.dim() != 4 or images.shape[1] != 3 or not images.shape[2] * images.shape[3]:
            raise ValueError(f"images must have shape [B, 3, H, W], got {list(images.shape)}")
        if images.dtype == torch.uint8:
            images = images.float() / 255
        height, width = images.shape[2:]
        beside, above = max(height - width, 0), max(width - height, 0)
        if beside or above:
            border = (beside // 2, beside - beside // 2, above // 2, above - above // 2)
            images = F.pad(images, border, mode="replicate")
        size = self.config.image_size
        if images.shape[-1] == size:
            return images
        return F.interpolate(images, (size, size), mode="bilinear", antialias=True)


def save_judge(
    model: KeypointNetwork, path: str | Path, training: Mapping[str, Any] | None = None
) -> None:
    """Writes the weights of a `KeypointNetwork`; see `dgpose.nn.weight_files.write_model`.

    Args:
        model: the network; convolutions are stored as float16.
        path: the file to write.
        training: JSON-serialisable facts about the training.
    """
    write_model(model, path, kind=_KIND, config=asdict(model.config), training=training)


def load_judge(path: str | Path) -> tuple[KeypointNetwork, dict[str, Any]]:
    """Reads a file of `save_judge`.

    Returns:
        (network in evaluation mode, its weights frozen, float32, on the CPU; the facts about its
        training).

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: a foreign, truncated or changed file, or tensors that do not fit its config.
    """
    model, training = read_model(
        path, kind=_KIND, build=lambda config: KeypointNetwork(KeypointNetworkConfig(**config))
    )
    return model.requires_grad_(False), training
