"""HandRegressor: a small convolutional network from a depth crop to hand joints.

The default has 833 thousand parameters and 69.2 million multiply-adds. It works on four grids
(32, 16, 8 and 4 cells a side): most layers sit on the coarse ones, where a channel costs few
multiply-adds and a 3x3 window sees much of the hand, and their results are added back to the 16x16
grid, on which every cell votes for every joint (`dgpose_ext.hand_net.layers.AnchorRegression`).
It regresses crop coordinates and not millimetres: where a pixel lies in millimetres depends on the
absolute position of the hand, which the crop hides.

Every layer is one that `dgpose_ext.HandNet` runs. Channels are multiples of 16, so that they fill
AVX-512 registers.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from dgpose.nn.residual import ResidualBlock, conv_bn
from dgpose.nn.weight_files import read_model, write_model
from dgpose_ext.hand_net.layers import AnchorRegression

CROP_SIZE = 128
"""Side of the square input, in pixels."""

_UNSHUFFLE = 4
_KIND = "hand_regressor"


@dataclass(frozen=True)
class HandRegressorConfig:
    """Architecture of a `HandRegressor`; stored in every weight file.

    Args:
        joints: number of joints J.
        channels: channels on the grids of 32, 16, 8 and 4 cells a side.
        blocks: residual blocks on the grids of 16, 8 and 4 cells.
        inner: channels inside the residual blocks of these three grids.

    Raises:
        ValueError: a count that is not positive (blocks: negative) or lists of the wrong length.
    """

    joints: int = 36
    channels: tuple[int, int, int, int] = (32, 64, 128, 128)
    blocks: tuple[int, int, int] = (1, 1, 1)
    inner: tuple[int, int, int] = (64, 128, 64)

    def __post_init__(self) -> None:
        for name, length, least in (("channels", 4, 1), ("blocks", 3, 0), ("inner", 3, 1)):
            value = tuple(getattr(self, name))
            if len(value) != length or any(type(n) is not int or n < least for n in value):
                raise ValueError(f"{name} must be {length} integers >= {least}, got {list(value)}")
            object.__setattr__(self, name, value)  # JSON gives lists
        if type(self.joints) is not int or self.joints < 1:
            raise ValueError(f"joints must be at least 1, got {self.joints}")


SIZES: dict[str, HandRegressorConfig] = {
    "accurate": HandRegressorConfig(),
    "fast": HandRegressorConfig(channels=(16, 32, 64, 128), inner=(32, 64, 64)),
}
"""The shipped architectures: 69.2 and 21.5 million multiply-adds."""


class HandRegressor(nn.Module):
    """Depth crop to joints in crop coordinates.

    Args:
        config: the architecture; None for the default.

    Shape:
        input [B, 1, 128, 128] float, -1 (front of the cube) .. 1 (back, and background), as
        `dgpose_ext.depth_crop` with normalize="cube" gives it.
        output [B, J, 3] = (a, b, c): a right, b down, both -1..1 over the crop window; c is depth
        from the centre in half cubes. All relative to the centre and cube of the crop.

    Raises:
        ValueError: an input of another shape.
    """

    def __init__(self, config: HandRegressorConfig | None = None) -> None:
        super().__init__()
        self.config = config or HandRegressorConfig()
        c32, c16, c8, c4 = self.config.channels

        def stage(inputs: int, outputs: int, index: int) -> nn.Sequential:
            inner = self.config.inner[index]
            blocks = [ResidualBlock(outputs, inner) for _ in range(self.config.blocks[index])]
            return nn.Sequential(conv_bn(inputs, outputs, 3, stride=2), nn.ReLU(), *blocks)

        # A 128x128 image of one channel would starve the first layers: fold 4x4 pixels into 16.
        self.stem = nn.Sequential(
            nn.PixelUnshuffle(_UNSHUFFLE), conv_bn(_UNSHUFFLE**2, c32, 3), nn.ReLU()
        )
        self.down16 = stage(c32, c16, 0)
        self.down8 = stage(c16, c8, 1)
        self.down4 = stage(c8, c4, 2)
        self.lateral4 = conv_bn(c4, c8, 1)
        self.lateral8 = conv_bn(c8, c16, 1)
        self.up = nn.Upsample(scale_factor=2, mode="nearest")
        self.relu = nn.ReLU()
        self.fuse = nn.Sequential(conv_bn(c16, c16, 3), nn.ReLU())
        self.head = nn.Conv2d(c16, 4 * self.config.joints, 1)
        # Start from the mean of all anchors: the first steps then move joints, not noise.
        nn.init.normal_(self.head.weight, std=0.01)
        self.anchors = AnchorRegression(self.config.joints)

    def maps(self, crop: Tensor) -> Tensor:
        """[B, 1, 128, 128] -> [B, 4J, 16, 16]: the votes that `anchors` averages."""
        if crop.dim() != 4 or tuple(crop.shape[1:]) != (1, CROP_SIZE, CROP_SIZE):
            raise ValueError(
                f"crop must have shape [B, 1, {CROP_SIZE}, {CROP_SIZE}], got {list(crop.shape)}"
            )
        x16 = self.down16(self.stem(crop))
        x8 = self.down8(x16)
        x8 = self.relu(x8 + self.up(self.lateral4(self.down4(x8))))
        x16 = self.relu(x16 + self.up(self.lateral8(x8)))
        maps: Tensor = self.head(self.fuse(x16))
        return maps

    def forward(self, crop: Tensor) -> Tensor:
        joints: Tensor = self.anchors(self.maps(crop))
        return joints

    def parameter_count(self) -> int:
        """Learned numbers (833,488 for the default)."""
        return sum(parameter.numel() for parameter in self.parameters())

    def macs(self) -> int:
        """Multiply-adds of the convolutions for one crop (69,206,016 for the default)."""
        copy_without_data = copy.deepcopy(self).to("meta").eval()
        total = 0

        def count(convolution: nn.Module, _: object, output: Tensor) -> None:
            nonlocal total
            assert isinstance(convolution, nn.Conv2d)
            total += convolution.weight.numel() * output[0, 0].numel()

        for module in copy_without_data.modules():
            if isinstance(module, nn.Conv2d):
                module.register_forward_hook(count)
        copy_without_data.maps(torch.empty(1, 1, CROP_SIZE, CROP_SIZE, device="meta"))
        return total


def save_weights(
    model: HandRegressor,
    path: str | Path,
    metadata: Mapping[str, Any] | None = None,
    *,
    dtype: torch.dtype = torch.float16,
) -> None:
    """Writes the weights of a `HandRegressor` (1.7 MB for the accurate network as float16); see
    `dgpose.nn.weight_files.write_model`."""
    write_model(
        model, path, kind=_KIND, config=asdict(model.config), training=metadata, dtype=dtype
    )


def load_weights(path: str | Path) -> tuple[HandRegressor, dict[str, Any]]:
    """Reads a file of `save_weights`.

    Returns:
        (network in evaluation mode, float32, on the CPU; the metadata given to `save_weights`).

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: a foreign, truncated or changed file, or tensors that do not fit its config.
    """
    return read_model(
        path, kind=_KIND, build=lambda config: HandRegressor(HandRegressorConfig(**config))
    )
