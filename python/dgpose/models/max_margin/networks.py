"""Image network, pose network and auxiliary heads of max-margin pose retrieval."""

from __future__ import annotations

from typing import Any, NamedTuple, cast

import torch
from torch import Tensor, nn

from dgpose.models.max_margin.config import MaxMarginConfig
from dgpose.nn.residual import ResidualBlock, conv_bn
from dgpose.nn.weight_files import fingerprint

__all__ = [
    "AuxiliaryHead",
    "ImageNetwork",
    "ImageOutput",
    "MaxMarginModel",
    "PaperBackbone",
    "PoseNetwork",
    "PretrainingHeads",
    "ResidualBackbone",
]


class ImageOutput(NamedTuple):
    """What the image network makes of B images."""

    embedding: Tensor  #: h4 [B, D]
    hidden: Tensor  #: h3 [B, H]


def _fully_connected(inputs: int, outputs: int) -> nn.Sequential:
    layer = nn.Linear(inputs, outputs)
    nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
    nn.init.zeros_(layer.bias)
    return nn.Sequential(layer, nn.ReLU())


def _embedding_layer(inputs: int, outputs: int) -> nn.Sequential:
    """The last layer of a network: its embeddings start short, so that the scores of all poses
    start close together, compared to the margins between them."""
    layer = nn.Linear(inputs, outputs)
    nn.init.normal_(layer.weight, std=(2 / inputs) ** 0.5 / outputs**0.25)
    nn.init.zeros_(layer.bias)
    return nn.Sequential(layer)


class PaperBackbone(nn.Module):
    """Three convolutions, each followed by max-pooling, the third of them linear; h1 on the second
    and h2 on the third, both with dropout; h3 on the two.

    Shape:
        input [B, 3, S, S], S a multiple of 8; output [B, H].
    """

    def __init__(self, config: MaxMarginConfig) -> None:
        super().__init__()
        first, second, third = config.channels
        h1, h2, h3 = config.hidden
        cells = config.crop_size // 8

        def convolution(inputs: int, outputs: int) -> list[nn.Module]:
            layer = nn.Conv2d(inputs, outputs, config.kernel, padding=config.kernel // 2)
            return [layer, nn.MaxPool2d(2)]

        self.conv1 = nn.Sequential(*convolution(3, first), nn.ReLU())
        self.conv2 = nn.Sequential(*convolution(first, second), nn.ReLU())
        self.conv3 = nn.Sequential(*convolution(second, third))
        self.h1 = _fully_connected(second * (2 * cells) ** 2, h1)
        self.h2 = _fully_connected(third * cells**2, h2)
        self.h3 = _fully_connected(h1 + h2, h3)
        self.dropout = nn.Dropout(config.dropout)
        self.hidden_size, self.map_shape = h3, (third, cells, cells)

    def convolutions(self) -> list[nn.Module]:
        """What the first stage trains and the second may freeze."""
        return [self.conv1, self.conv2, self.conv3]

    def maps(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """conv2 [B, C, S/4, S/4] and conv3 [B, C, S/8, S/8]."""
        conv2 = self.conv2(self.conv1(images))
        return conv2, self.conv3(conv2)

    def hidden(self, conv2: Tensor, conv3: Tensor) -> Tensor:
        """h3 [B, H] of the maps."""
        h1 = self.dropout(self.h1(conv2.flatten(1)))
        h2 = self.dropout(self.h2(conv3.flatten(1)))
        return cast(Tensor, self.h3(torch.cat((h1, h2), 1)))


class ResidualBackbone(nn.Module):
    """Residual blocks on grids of S/2, S/4, S/8 and S/16 cells at a crop of 56 pixels; larger crops
    start on the same grid of about 28 cells, with more pixels folded into each.

    Shape:
        input [B, 3, S, S]; output [B, H].
    """

    def __init__(self, config: MaxMarginConfig) -> None:
        super().__init__()
        fold = max(1, config.crop_size // 28)
        while config.crop_size % fold:
            fold -= 1
        c1, c2, c3, c4 = config.channels

        def stage(inputs: int, outputs: int, inner: int) -> nn.Sequential:
            down = conv_bn(inputs, outputs, 3, stride=2)
            return nn.Sequential(down, nn.ReLU(), ResidualBlock(outputs, inner))

        self.stem = nn.Sequential(nn.PixelUnshuffle(fold), conv_bn(3 * fold**2, c1, 3), nn.ReLU())
        self.stage2 = stage(c1, c2, config.inner[0])
        self.stage3 = stage(c2, c3, config.inner[1])
        self.stage4 = stage(c3, c4, config.inner[2])
        cells = -(-(config.crop_size // fold) // 8)
        (h3,) = config.hidden
        self.h3 = _fully_connected(c4 * cells**2, h3)
        self.dropout = nn.Dropout(config.dropout)
        self.hidden_size, self.map_shape = h3, (c4, cells, cells)

    def convolutions(self) -> list[nn.Module]:
        """What the first stage trains and the second may freeze."""
        return [self.stem, self.stage2, self.stage3, self.stage4]

    def maps(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """The finer map [B, C, S/8, S/8] (at 56 pixels) and the coarsest."""
        fine = self.stage3(self.stage2(self.stem(images)))
        return fine, self.stage4(fine)

    def hidden(self, fine: Tensor, coarse: Tensor) -> Tensor:
        """h3 [B, H] of the maps."""
        return cast(Tensor, self.dropout(self.h3(coarse.flatten(1))))


class ImageNetwork(nn.Module):
    """Person crops to embeddings: backbone to h3, one more layer to h4.

    Shape:
        input [B, 3, S, S] RGB in [0, 1], S = crop_size; h4 [B, D], h3 [B, H].
    """

    def __init__(self, config: MaxMarginConfig) -> None:
        super().__init__()
        paper = config.backbone == "paper"
        self.backbone = PaperBackbone(config) if paper else ResidualBackbone(config)
        self.embedding = _embedding_layer(self.backbone.hidden_size, config.embedding_size)
        if config.pose_layers != "raw":  # coordinates of a pose may be negative
            self.embedding.append(nn.ReLU())

    def maps(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """The convolutions alone."""
        return self.backbone.maps((images - 0.5) * 4)

    def from_maps(self, fine: Tensor, coarse: Tensor) -> ImageOutput:
        """What follows the convolutions."""
        hidden = self.backbone.hidden(fine, coarse)
        return ImageOutput(self.embedding(hidden), hidden)

    def forward(self, images: Tensor) -> ImageOutput:
        return self.from_maps(*self.maps(images))


class PoseNetwork(nn.Module):
    """Poses to embeddings, through fully connected layers with ReLU.

    Shape:
        input [B, J, 3] mm, relative to the hip, camera coordinates; output [B, D].
    """

    def __init__(self, config: MaxMarginConfig) -> None:
        super().__init__()
        self.unit_mm = config.pose_unit_mm
        size, width = 3 * config.joints, config.embedding_size
        self.layers = nn.Sequential()
        if config.pose_layers == "two":
            self.layers.extend(_fully_connected(size, config.pose_hidden))
            size = config.pose_hidden
        if config.pose_layers != "raw":
            self.layers.extend((*_embedding_layer(size, width), nn.ReLU()))
        if config.pose_layers == "random":
            self.requires_grad_(False)

    def forward(self, poses: Tensor) -> Tensor:
        embedding: Tensor = self.layers(poses.flatten(1) / self.unit_mm)
        return embedding


class AuxiliaryHead(nn.Module):
    """Estimates the pose from h3 alone: tanh of one linear layer.

    Shape:
        input [B, H]; output [B, J, 3] mm, relative to the hip.
    """

    def __init__(self, inputs: int, config: MaxMarginConfig) -> None:
        super().__init__()
        self.joints, self.unit_mm = config.joints, config.auxiliary_unit_mm
        self.linear = nn.Linear(inputs, 3 * config.joints)
        nn.init.normal_(self.linear.weight, std=0.01)
        nn.init.zeros_(self.linear.bias)

    def forward(self, hidden: Tensor) -> Tensor:
        # Millimetres need more than the 8 bits that autocast may have left.
        estimate = torch.tanh(self.linear(hidden).float()) * self.unit_mm
        return estimate.view(len(hidden), self.joints, 3)


class PretrainingHeads(nn.Module):
    """What the first stage trains the convolutions by: the pose from the last map
    (`AuxiliaryHead`), and for each cell of that map, a window of the image, whether a joint lies in
    it.

    Shape:
        input [B, C, h, w]; output poses [B, J, 3] mm, logits [B, J, h, w].
    """

    def __init__(self, config: MaxMarginConfig, map_shape: tuple[int, int, int]) -> None:
        super().__init__()
        channels, height, width = map_shape
        self.regression = AuxiliaryHead(channels * height * width, config)
        self.detection = nn.Conv2d(channels, config.joints, 1)

    def forward(self, coarse: Tensor) -> tuple[Tensor, Tensor]:
        return self.regression(coarse.flatten(1)), self.detection(coarse).float()


class MaxMarginModel(nn.Module):
    """Image network, pose network and auxiliary head: the score of an image and a pose is the inner
    product of their embeddings.

    Args:
        config: the sizes; None for the published ones.

    Attributes:
        training_facts: what its file says about its training.
    """

    def __init__(self, config: MaxMarginConfig | None = None) -> None:
        super().__init__()
        self.config = config = config or MaxMarginConfig()
        self.image_network = ImageNetwork(config)
        self.pose_network = PoseNetwork(config)
        self.training_facts: dict[str, Any] = {}
        self.auxiliary: AuxiliaryHead | None = None
        if config.auxiliary:
            self.auxiliary = AuxiliaryHead(self.image_network.backbone.hidden_size, config)

    @torch.no_grad()
    def embed_images(self, images: Tensor) -> Tensor:
        """Embeddings [B, D] float32 of person crops; call `eval()` before, as `load_model` does.

        Args:
            images: [B, 3, image_size, image_size] RGB, uint8 or floating point in [0, 1]; of
                which the network sees the middle.

        Raises:
            ValueError: another shape. TypeError: another dtype.
        """
        return self.embed_and_estimate(images)[0]

    @torch.no_grad()
    def embed_poses(self, poses_mm: Tensor) -> Tensor:
        """Embeddings [B, D] float32 of poses.

        Args:
            poses_mm: [B, J, 3] floating point, relative to the hip, mm; x right, y DOWN, z forward.

        Raises:
            ValueError: another shape.
        """
        joints = self.config.joints
        if poses_mm.dim() != 3 or tuple(poses_mm.shape[1:]) != (joints, 3):
            raise ValueError(f"poses must have shape [B, {joints}, 3], got {list(poses_mm.shape)}")
        embedding: Tensor = self.pose_network(poses_mm.float())
        return embedding.float()

    @torch.no_grad()
    def estimate_auxiliary(self, images: Tensor) -> Tensor:
        """Poses [B, J, 3] mm relative to the hip, as the auxiliary head regresses them.

        Args:
            images: as for `embed_images`.

        Raises:
            ValueError: another shape, or a model without auxiliary head.
        """
        if self.auxiliary is None:
            raise ValueError("model must have an auxiliary head, it was trained without one")
        return cast(Tensor, self.embed_and_estimate(images)[1])

    @torch.no_grad()
    def embed_and_estimate(self, images: Tensor) -> tuple[Tensor, Tensor | None]:
        """`embed_images` and, where there is an auxiliary head, `estimate_auxiliary` of the same
        images, for one pass through the network."""
        output = self.image_network(self._middle(images))
        poses = None if self.auxiliary is None else self.auxiliary(output.hidden)
        return output.embedding.float(), poses

    @property
    def fingerprint(self) -> str:
        """SHA-256 of all that embeddings of poses depend on, in hexadecimal: an index of them fits
        the models that share it."""
        config = self.config
        settings = {"pose_layers": config.pose_layers, "pose_unit_mm": config.pose_unit_mm}
        return fingerprint(self.pose_network, settings)

    def _middle(self, images: Tensor) -> Tensor:
        size, crop = self.config.image_size, self.config.crop_size
        if images.dim() != 4 or tuple(images.shape[1:]) != (3, size, size):
            raise ValueError(
                f"images must have shape [B, 3, {size}, {size}], got {list(images.shape)}"
            )
        if images.dtype == torch.uint8:
            images = images.float() / 255
        elif not images.is_floating_point():
            raise TypeError(f"images must be uint8 or floating point, got {images.dtype}")
        first = (size - crop) // 2
        return images[:, :, first : first + crop, first : first + crop].float()
