"""ReidNetwork: a small convolutional network from a person image to an embedding in which images of
one person lie near each other.

The default has 0.7 million parameters. Four levels of residual blocks; the coarsest grid is
averaged over horizontal stripes (Sun et al.: "Beyond Part Models", ECCV 2018), so that the head is
compared with the head and the legs with the legs.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dgpose.nn.residual import ResidualBlock, conv_bn
from dgpose.nn.weight_files import read_model, write_model

__all__ = ["ReidNetwork", "ReidNetworkConfig", "load_reid_network", "save_reid_network"]

_KIND = "reid_network"
_FOLD = 2
_IMAGES_AT_ONCE = 128


@dataclass(frozen=True)
class ReidNetworkConfig:
    """Architecture of a `ReidNetwork`; stored in every weight file.

    Args:
        size: (H, W) of the images, multiples of 16.
        channels: at strides 2, 4, 8 and 16.
        stripes: that the coarsest grid is averaged over.
        embedding: numbers of an embedding.

    Raises:
        ValueError: a size that is not such a multiple, a count below 1, or more stripes than rows.
    """

    size: tuple[int, int] = (128, 64)
    channels: tuple[int, int, int, int] = (32, 64, 128, 128)
    stripes: int = 4
    embedding: int = 256

    def __post_init__(self) -> None:
        for name, length in (("size", 2), ("channels", 4)):
            value = tuple(getattr(self, name))
            if len(value) != length or any(type(n) is not int or n < 1 for n in value):
                raise ValueError(f"{name} must be {length} integers >= 1, got {list(value)}")
            object.__setattr__(self, name, value)  # JSON gives lists
        if any(edge % 16 for edge in self.size):
            raise ValueError(f"size must be a multiple of 16 each way, got {self.size}")
        if not 1 <= self.stripes <= self.size[0] // 16:
            raise ValueError(f"stripes must lie in [1, H / 16], got {self.stripes}")
        if self.embedding < 1:
            raise ValueError(f"embedding must be at least 1, got {self.embedding}")


class ReidNetwork(nn.Module):
    """Person images to embeddings, compared by the cosine of their angle.

    Args:
        config: the architecture; None for the default.

    Shape:
        input [B, 3, H, W] RGB in [0, 1]; output [B, D], not normalised.
    """

    def __init__(self, config: ReidNetworkConfig | None = None) -> None:
        super().__init__()
        self.config = config or ReidNetworkConfig()
        channels, stripes = self.config.channels, self.config.stripes
        layers: list[nn.Module] = [
            nn.PixelUnshuffle(_FOLD), conv_bn(3 * _FOLD**2, channels[0], 3), nn.ReLU()
        ]  # fmt: skip
        for before, after in pairwise(channels):
            down = conv_bn(before, after, 3, stride=2)
            layers += [down, nn.ReLU(), ResidualBlock(after, after // 2)]
        self.features = nn.Sequential(*layers)
        self.embedding = nn.Linear(stripes * channels[-1], self.config.embedding, bias=False)
        self.norm = nn.BatchNorm1d(self.config.embedding)

    def forward(self, images: Tensor) -> Tensor:
        """Embeddings; as `Shape` says."""
        grid = self.features(images - 0.5)
        striped = F.adaptive_avg_pool2d(grid, (self.config.stripes, 1)).flatten(1)
        embeddings: Tensor = self.norm(self.embedding(striped))
        return embeddings

    @torch.no_grad()
    def embed(self, images: Tensor) -> Tensor:
        """Embeddings [B, D] float32 of length 1, in evaluation mode.

        Args:
            images: [B, 3, H, W] RGB in [0, 1] (or uint8), of the network's size.

        Raises:
            ValueError: images of another shape.
        """
        if images.dim() != 4 or tuple(images.shape[1:]) != (3, *self.config.size):
            height, width = self.config.size
            raise ValueError(
                f"images must have shape [B, 3, {height}, {width}], got {list(images.shape)}"
            )
        device = self.embedding.weight.device
        parts = [torch.zeros(0, self.config.embedding)]
        for part in images.split(_IMAGES_AT_ONCE):  # type: ignore[no-untyped-call]
            given = part.to(device)
            shown = given.float() / 255 if given.dtype == torch.uint8 else given
            parts.append(F.normalize(self(shown).float(), dim=1).cpu())
        return torch.cat(parts)


def save_reid_network(
    model: ReidNetwork, path: str | Path, training: Mapping[str, Any] | None = None
) -> None:
    """Writes the weights of a `ReidNetwork`; see `dgpose.nn.weight_files.write_model`.

    Args:
        model: the network; matrices and convolutions are stored as float16.
        path: the file to write.
        training: JSON-serialisable facts about the training.
    """
    write_model(model, path, kind=_KIND, config=asdict(model.config), training=training)


def load_reid_network(path: str | Path) -> tuple[ReidNetwork, dict[str, Any]]:
    """Reads a file of `save_reid_network`.

    Returns:
        (network in evaluation mode, on the CPU; the facts about its training).

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: a foreign, truncated or changed file, or tensors that do not fit its config.
    """
    return read_model(
        path, kind=_KIND, build=lambda config: ReidNetwork(ReidNetworkConfig(**config))
    )
