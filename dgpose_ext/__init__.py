"""Native kernels for pose, as PyTorch ops on every backend, each with a pure-torch reference."""

import importlib
from typing import TYPE_CHECKING, Any

from dgpose_ext._loader import cpu_capability, why_no_core
from dgpose_ext.ops.crop.crop_and_resize import crop_and_resize
from dgpose_ext.ops.crop.depth_crop import crop_to_uvd, depth_crop
from dgpose_ext.ops.crop.find_hand_center import find_hand_center
from dgpose_ext.ops.crop.part_boxes import part_boxes
from dgpose_ext.ops.heatmap.body_mask import body_mask
from dgpose_ext.ops.heatmap.decode_heatmap import decode_heatmap
from dgpose_ext.ops.heatmap.disk_heatmap import disk_heatmap
from dgpose_ext.ops.heatmap.gaussian_heatmap import gaussian_heatmap
from dgpose_ext.ops.heatmap.limb_heatmap import limb_heatmap
from dgpose_ext.ops.render.capsule_depth import capsule_depth
from dgpose_ext.ops.scoring.inner_product_topk import inner_product_topk
from dgpose_ext.ops.scoring.max_margin_loss import max_margin_loss
from dgpose_ext.ops.scoring.max_margin_topk import max_margin_topk
from dgpose_ext.ops.scoring.topk_mean_pose import topk_mean_pose

if TYPE_CHECKING:
    from dgpose_ext.hand_net.cuda_engine import CudaHandNet
    from dgpose_ext.hand_net.engine import HandNet
    from dgpose_ext.pose_index import PoseIndex
    from dgpose_ext.sharded_index import ShardedPoseIndex

__version__ = "0.1.0"

__all__ = [
    "CudaHandNet",
    "HandNet",
    "PoseIndex",
    "ShardedPoseIndex",
    "body_mask",
    "capsule_depth",
    "cpu_capability",
    "crop_and_resize",
    "crop_to_uvd",
    "decode_heatmap",
    "depth_crop",
    "disk_heatmap",
    "find_hand_center",
    "gaussian_heatmap",
    "inner_product_topk",
    "limb_heatmap",
    "max_margin_loss",
    "max_margin_topk",
    "part_boxes",
    "topk_mean_pose",
    "why_no_core",
]


# Engines are imported at their first use: HandNet takes as long as all ops together.
_ENGINES = {
    "CudaHandNet": "dgpose_ext.hand_net.cuda_engine",
    "HandNet": "dgpose_ext.hand_net.engine",
    "PoseIndex": "dgpose_ext.pose_index",
    "ShardedPoseIndex": "dgpose_ext.sharded_index",
}


def __getattr__(name: str) -> Any:
    if name in _ENGINES:
        return getattr(importlib.import_module(_ENGINES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
