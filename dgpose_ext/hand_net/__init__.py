"""HandNet: a compiled CPU engine for small convolutional regressors, and the layers made for it."""

from dgpose_ext.hand_net.engine import HandNet
from dgpose_ext.hand_net.layers import AnchorRegression

__all__ = ["AnchorRegression", "HandNet"]
