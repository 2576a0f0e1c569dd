"""Native kernels for pose, as PyTorch ops on every backend, each with a pure-torch reference."""

from dgpose_ext._loader import cpu_capability, why_no_core
from dgpose_ext.ops.crop.depth_crop import crop_to_uvd, depth_crop
from dgpose_ext.ops.crop.find_hand_center import find_hand_center
from dgpose_ext.ops.render.capsule_depth import capsule_depth

__version__ = "0.1.0"

__all__ = [
    "capsule_depth",
    "cpu_capability",
    "crop_to_uvd",
    "depth_crop",
    "find_hand_center",
    "why_no_core",
]
