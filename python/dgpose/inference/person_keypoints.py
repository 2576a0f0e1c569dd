"""KeypointEstimator: 2D poses of people in images, by a DGPose model or a keypoint network."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import dgpose_ext
from dgpose.data.person_crops import CropSize, from_crop
from dgpose.inference.person_views import Boxes, FloatArray, Images, together, view_person
from dgpose.metrics.keypoints import torso_px
from dgpose.model_zoo import model_path
from dgpose.models.dgpose import PoseRegressor, SemiDGPose
from dgpose.models.dgpose import load_model as load_dgpose
from dgpose.nn.keypoint_network import KeypointNetwork, load_judge
from dgpose.skeletons import BODY14, Skeleton
from dgpose_ext.tensor_file import read_tensor_header

__all__ = ["CropPoses", "KeypointEstimate", "KeypointEstimator", "described", "moved"]

PoseNetwork: TypeAlias = SemiDGPose | PoseRegressor | KeypointNetwork

_AT_ONCE = 64
_NEAR = 0.2  # torso lengths within which a joint counts as found


class CropPoses(NamedTuple):
    """Estimates of B crops; what they are is said in `KeypointEstimate`."""

    poses_px: Tensor  # [B, 14, 2] pixels of the crops
    std_px: Tensor | None  # [B, 14]
    confidence: Tensor  # [B, 14]


@dataclass(frozen=True, eq=False)
class KeypointEstimate:
    """Estimated poses of B people, BODY14 in pixels of their whole pictures.

    Attributes:
        poses_px: [B, 14, 2] float64.
        confidence: [B, 14] in 0 to 1. Of a DGPose model: the probability, by its own posterior,
            that the joint lies within 0.2 torso lengths of the estimate. Of a keypoint network:
            its score, which is no probability.
        std_px: [B, 14], standard deviation of the posterior (root mean square of x and y), of each
            joint calibrated on validation images; None of a keypoint network.
        squares: [B, 4], what of the pictures was seen: x1, y1, x2, y2.
        crops: [B, 3, S, S], and what it looked like.
    """

    poses_px: FloatArray
    confidence: FloatArray
    std_px: FloatArray | None
    squares: FloatArray
    crops: Tensor

    def __len__(self) -> int:
        return len(self.poses_px)


class KeypointEstimator:
    """Estimates 2D poses of people in images; make one with `load`.

    Args:
        network: SemiDGPose, PoseRegressor or KeypointNetwork in eval mode; used where it is.
        name: for `info`.

    Raises:
        ValueError: another network, or one in training mode.
    """

    def __init__(self, network: PoseNetwork, *, name: str = "unnamed") -> None:
        if not isinstance(network, PoseNetwork):
            raise ValueError(
                "network must be a SemiDGPose, a PoseRegressor or a KeypointNetwork, got a "
                f"{type(network).__name__}, which estimates no poses"
            )
        if network.training:
            raise ValueError("network must be in eval mode")
        self.network, self._name = network, name

    @classmethod
    def load(
        cls, model: str | Path = "person_judge", *, device: str | torch.device = "cpu"
    ) -> KeypointEstimator:
        """Load a model.

        Args:
            model: name of a shipped model, or a weight file of DGPose or of a `KeypointNetwork`.
            device: where it runs.

        Raises:
            FileNotFoundError: there is no such file.
            ValueError: an unknown name, a damaged file, a model that estimates no poses, or a
                device that torch does not have here.
        """
        path = model_path(model)
        judge = read_tensor_header(path).kind == "keypoint_network"
        network: Any = load_judge(path)[0] if judge else load_dgpose(path)
        try:
            return cls(moved(network, device), name=str(model))
        except ValueError as error:
            raise ValueError(f"{model}: {error}") from None

    @property
    def image_size(self) -> int:
        """S: the edge of crops in pixels."""
        return self.network.config.image_size

    def info(self) -> dict[str, Any]:
        """What is loaded: model, network, image size, device, learned numbers, version."""
        return described(self._name, self.network, self.image_size)

    def estimate(self, images: Images, *, boxes: Boxes | None = None) -> KeypointEstimate:
        """The poses of people in images.

        Args:
            images: one or several; see `PersonGenerator`.
            boxes: tight around the people; None: the whole image shows a person.

        Raises:
            ValueError, TypeError: images or boxes that are not such, or not as many.
        """
        views = [
            view_person(image, self.image_size, None, box)
            for image, box in together(images=images, boxes=boxes)
        ]
        crops = torch.stack([view.image for view in views])
        squares = np.stack([view.box for view in views])
        found = self.of_crops(crops)

        def placed(crop_px: Tensor) -> FloatArray:
            pairs = zip(crop_px.double().numpy(), squares, strict=True)
            return np.stack([from_crop(points, box, self.image_size) for points, box in pairs])

        std = None
        if found.std_px is not None:
            nothing = torch.zeros_like(found.std_px)
            wide = placed(torch.stack([found.std_px, nothing], -1))
            std = (wide - placed(torch.stack([nothing, nothing], -1)))[..., 0]
        confidence = found.confidence.double().numpy()
        return KeypointEstimate(placed(found.poses_px), confidence, std, squares, crops)

    @torch.no_grad()
    def of_crops(self, crops: Tensor) -> CropPoses:
        """Poses in crops [B, 3, s, s] in [0, 1]; of another size than S they are resampled.

        Returns:
            Tensors on the CPU.
        """
        device = next(self.network.parameters()).device
        if isinstance(self.network, KeypointNetwork):
            poses, scores = self.network.estimate(crops.to(device))
            return CropPoses(poses.cpu(), None, scores.cpu())
        size = self.image_size
        zoom = size / crops.shape[-1]
        middles, spreads = [], []
        for part in crops.split(_AT_ONCE):  # type: ignore[no-untyped-call]
            given = part
            if zoom != 1:
                given = F.interpolate(part, (size, size), mode="bilinear", antialias=True)
            posterior = self.network.estimate_pose(given.to(device))
            middles.append(self.network.pose_px(posterior.mean))
            spreads.append(self.network.pose_std_px(posterior))
        poses = (torch.cat(middles).cpu() + 0.5) / zoom - 0.5
        std = torch.cat(spreads).cpu() / zoom
        torsos = torso_px(poses, torch.ones(poses.shape[:-1], dtype=torch.bool)).nan_to_num(0)
        near = _NEAR * torsos[:, None] / std.clamp(min=1e-6)
        return CropPoses(poses, std, 1 - (-0.5 * near.square()).exp())


def moved(network: nn.Module, device: str | torch.device) -> Any:
    """The network on a device.

    Raises:
        ValueError: torch does not have it here.
    """
    try:
        return network.to(device)
    except (AssertionError, RuntimeError) as error:  # torch's without CUDA asserts
        raise ValueError(f"device must be one that torch has here, got {device}: {error}") from None


def described(
    name: str, network: nn.Module, image_size: CropSize, skeleton: Skeleton = BODY14
) -> dict[str, Any]:
    """What `info()` says of a network of people."""
    learned = {k: v for k, v in network.state_dict().items() if v.is_floating_point()}
    return {
        "model": name,
        "network": type(network).__name__,
        "image_size": image_size,
        "device": str(next(network.parameters()).device),
        "parameters": sum(v.numel() for k, v in learned.items() if ".running_" not in k),
        "joints": skeleton.name,
        "dgpose_ext": dgpose_ext.__version__,
    }
