"""Residual blocks of batch-normalised 3x3 convolutions."""

from __future__ import annotations

from torch import Tensor, nn

__all__ = ["ResidualBlock", "conv_bn"]


def conv_bn(inputs: int, outputs: int, kernel: int, stride: int = 1) -> nn.Sequential:
    """Convolution with zero padding, then batch normalisation: [B, inputs, H, W] -> [B, outputs,
    ceil(H / stride), ceil(W / stride)]."""
    convolution = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(outputs))


class ResidualBlock(nn.Module):
    """relu(x + bn(conv3x3(relu(bn(conv3x3(x)))))): [B, C, h, w] -> [B, C, h, w]."""

    def __init__(self, channels: int, inner: int) -> None:
        super().__init__()
        self.first = conv_bn(channels, inner, 3)
        norm = nn.BatchNorm2d(channels)
        # The block starts as the identity, which lets the learning rate start high.
        nn.init.zeros_(norm.weight)
        self.second = nn.Sequential(nn.Conv2d(inner, channels, 3, padding=1, bias=False), norm)
        self.relu = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.relu(x + self.second(self.relu(self.first(x))))
        return out
