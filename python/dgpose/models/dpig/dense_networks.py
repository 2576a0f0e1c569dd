"""Networks of vectors: the pose autoencoder, and the mappers and critics of stage 2."""

from __future__ import annotations

from torch import Tensor, nn

from dgpose.models.dgpose import FittedGaussian
from dgpose.models.dpig.config import DPIGConfig, Factor
from dgpose.skeletons import OPENPOSE18

__all__ = ["Critic", "Mapper", "PoseDecoder", "PoseEncoder", "straight_through_round"]

_JOINTS = len(OPENPOSE18)


def _layer(inputs: int, outputs: int, slope: float) -> list[nn.Module]:
    activation = nn.LeakyReLU(slope) if slope else nn.ReLU()
    return [nn.Linear(inputs, outputs), activation]


class _DenseBlock(nn.Module):
    """x + f(fc(f(fc(x)))), f the activation: [B, D] -> [B, D]."""

    def __init__(self, width: int, slope: float) -> None:
        super().__init__()
        self.pair = nn.Sequential(*_layer(width, width, slope), *_layer(width, width, slope))

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = x + self.pair(x)
        return out


class _Dense(nn.Sequential):
    """[B, inputs] -> [B, outputs] through layers and residual blocks of the given width; the layers
    are those after the first."""

    def __init__(
        self, inputs: int, width: int, blocks: int, outputs: int, slope: float, layers: int = 0
    ) -> None:
        super().__init__(
            *_layer(inputs, width, slope),
            *(module for _ in range(layers) for module in _layer(width, width, slope)),
            *(_DenseBlock(width, slope) for _ in range(blocks)),
            nn.Linear(width, outputs),
        )


class PoseEncoder(nn.Module):
    """Coordinates [B, 18, 2] of `normalized_coordinates` and visible [B, 18] -> code [B, D]."""

    def __init__(self, config: DPIGConfig) -> None:
        super().__init__()
        sizes = (3 * _JOINTS, config.pose_width, config.pose_blocks, config.pose_code)
        self.layers = _Dense(*sizes, config.dense_slope)

    def forward(self, coordinates: Tensor, visible: Tensor) -> Tensor:
        record = nn.functional.pad(coordinates, (0, 1))
        record[..., 2] = visible
        code: Tensor = self.layers(record.flatten(1)).float()
        return code


class PoseDecoder(nn.Module):
    """Code [B, D] -> (coordinates [B, 18, 2], visibility [B, 18]).

    Coordinates are those of `normalized_coordinates`, also where a joint is not visible; visibility
    is 0 or 1, its gradient that of the sigmoid which is rounded.
    """

    def __init__(self, config: DPIGConfig) -> None:
        super().__init__()
        sizes = (config.pose_code, config.pose_width, config.pose_blocks, 3 * _JOINTS)
        self.layers = _Dense(*sizes, config.dense_slope)

    def forward(self, code: Tensor) -> tuple[Tensor, Tensor]:
        record = self.layers(code).float().unflatten(1, (_JOINTS, 3))
        return record[..., :2], straight_through_round(record[..., 2].sigmoid())


def straight_through_round(values: Tensor) -> Tensor:
    """values rounded; the gradient passes unchanged (Bengio et al., 2013)."""
    return values + (values.round() - values).detach()


class _OfCodes(nn.Module):
    """What knows the codes of a factor, and with `fitted_codes` the Gaussian fitted to them."""

    def __init__(self, config: DPIGConfig, factor: Factor) -> None:
        super().__init__()
        size = config.code_size(factor)
        self.fitted = FittedGaussian(size) if config.fitted_codes else None

    def fit(self, codes: Tensor) -> None:
        """Fits the Gaussian to the training's codes [N, D], before all else; without
        `fitted_codes` there is nothing to fit.

        Raises:
            ValueError: fewer than 2 codes.
        """
        if self.fitted is not None:
            self.fitted.fit(codes)


class Mapper(_OfCodes):
    """Noise [B, D] -> code [B, D] of a factor.

    With `fitted_codes` it starts as draws of their Gaussian, which the network then bends.
    """

    def __init__(self, config: DPIGConfig, factor: Factor) -> None:
        super().__init__(config, factor)
        size = config.code_size(factor)
        width = config.mapper_width
        if factor == "background":
            width = config.background_mapper_width
        self.noise_std = config.noise_std
        self.layers = _Dense(size, width, config.mapper_blocks, size, config.dense_slope)
        if self.fitted is not None:
            for values in self.layers[-1].parameters():
                nn.init.zeros_(values)

    def forward(self, noise: Tensor) -> Tensor:
        if self.fitted is None:
            code: Tensor = self.layers(noise).float()
            return code
        white = noise / self.noise_std
        return self.fitted.colored(white + self.layers(white).float())


class Critic(_OfCodes):
    """Code [B, D] of a factor -> score [B]; with `fitted_codes` it sees them whitened."""

    def __init__(self, config: DPIGConfig, factor: Factor) -> None:
        super().__init__(config, factor)
        size = config.code_size(factor)
        sizes = (size, config.critic_width, config.critic_blocks, 1)
        self.layers = _Dense(*sizes, config.dense_slope, config.critic_layers)

    def seen(self, code: Tensor) -> Tensor:
        """[B, D], what the layers score, and a gradient penalty is about."""
        return code if self.fitted is None else self.fitted.whitened(code)

    def score(self, seen: Tensor) -> Tensor:
        """Scores [B] of what `seen` gives."""
        score: Tensor = self.layers(seen).float()[:, 0]
        return score

    def forward(self, code: Tensor) -> Tensor:
        return self.score(self.seen(code))
