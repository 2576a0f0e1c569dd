"""HandNet: a compiled CPU engine for small convolutional regressors, and the layers made for it."""

from dgpose_ext.hand_net.engine import PRECISIONS, HandNet
from dgpose_ext.hand_net.layers import AnchorRegression

__all__ = ["PRECISIONS", "AnchorRegression", "HandNet"]
