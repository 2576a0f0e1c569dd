"""HandNet, a compiled engine for small convolutional regressors (CudaHandNet on a GPU), and the
layers made for it."""

from dgpose_ext.hand_net.cuda_engine import CapturedHandNet, CudaHandFrames, CudaHandNet
from dgpose_ext.hand_net.engine import PRECISIONS, HandNet
from dgpose_ext.hand_net.layers import AnchorRegression

__all__ = [
    "PRECISIONS",
    "AnchorRegression",
    "CapturedHandNet",
    "CudaHandFrames",
    "CudaHandNet",
    "HandNet",
]
