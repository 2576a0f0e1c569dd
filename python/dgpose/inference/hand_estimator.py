"""HandEstimator: from one depth image to 36 hand joints, on a CPU.

Centre (given, or found by `dgpose_ext.find_hand_center`, then moved to the palm that the network
sees) -> crop of a metric cube (`dgpose_ext.depth_crop`) -> network (`dgpose_ext.HandNet`, or torch)
-> millimetres -> a check of the result against the image (`hand_evidence`). A pose that fails the
check is not given out.
"""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

import dgpose_ext
from dgpose.data.cameras import Camera, parse_camera, unproject
from dgpose.data.depth_io import UNITS
from dgpose.data.nyu import CENTER_JOINT
from dgpose.inference.hand_calibration import calibration_crops
from dgpose.inference.hand_evidence import weigh_evidence
from dgpose.nn.hand_regressor import CROP_SIZE, HandRegressor, load_weights
from dgpose.skeletons import NYU36, Skeleton
from dgpose_ext import depth_crop, find_hand_center
from dgpose_ext.hand_net import PRECISIONS, HandNet

__all__ = ["HandEstimator", "HandPose", "check_center", "model_path"]

CUBE_MM = 300.0
"""Edge of the cube around a hand of common size."""

_FLOAT_DEPTH_M = 20.0
"""No depth camera for hands sees farther, in metres; in millimetres nothing is nearer."""

_LOOK_AGAIN_MM = 15.0
"""How far a found centre may lie from the palm; the network is trained for about as much."""

Array = npt.NDArray[np.float32]
Depth = npt.NDArray[Any] | Tensor


@dataclass(frozen=True, eq=False)
class HandPose:
    """One estimated hand.

    Attributes:
        joints_mm: `[36, 3]` float32, mm from the camera: x right, y UP, z forward; the joints of
            `dgpose.skeletons.NYU36`. NaN where `found` is false.
        joints_px: `[36, 2]` float32, (u, v) in pixels of the image, v down. NaN likewise.
        center: (u, v, mm), the centre of the crop, given or found; None where none was found.
        found: whether there is a hand and the pose agrees with the image.
        confidence: 0 to 1, the agreement (see `hand_evidence`).
        reason: why `found` is false, in one sentence; else empty.
        timings: milliseconds: "center", "crop+network", "check", and "total".
    """

    joints_mm: npt.NDArray[np.float32]
    joints_px: npt.NDArray[np.float32]
    center: tuple[float, float, float] | None
    found: bool
    confidence: float
    reason: str
    timings: dict[str, float]


class HandEstimator:
    """Estimates one hand in a depth image; make one with `HandEstimator.load`.

    Each image stands alone; `HandTracker` follows a hand through a stream. An estimator may be
    called from several threads at once.
    """

    skeleton: Skeleton = NYU36

    def __init__(
        self,
        network: Callable[[Tensor], Tensor],
        *,
        hand: str,
        cube_mm: float,
        description: dict[str, Any],
    ) -> None:
        self._network = network
        self._mirrored = hand == "left"
        self._cube_mm = cube_mm
        self._description = description

    @classmethod
    def load(
        cls,
        model: str | Path = "accurate",
        *,
        hand: Literal["right", "left"] = "right",
        engine: Literal["auto", "native", "torch"] = "auto",
        cube_mm: float = CUBE_MM,
        precision: Literal["float32", "bfloat16", "int8"] = "float32",
    ) -> HandEstimator:
        """Load a model.

        Args:
            model: name of a shipped model ("accurate", which "default" means too, or
                "fast"), or a weight file of
                `dgpose.nn.hand_regressor.save_weights`.
            hand: which hand is looked for. One network serves both: a left hand is mirrored.
            engine: "native" is `dgpose_ext.HandNet`, "torch" the plain module; "auto" takes the
                native one where the compiled core is there.
            cube_mm: edge of the cube that the hand lies in; less for a child's hand.
            precision: of the native engine. "bfloat16" and "int8" are faster on processors that
                multiply them in one instruction (AVX-512 BF16; AVX-512 VNNI, AVX-VNNI); "int8" is
                calibrated here, on rendered hands, which takes about a second.

        Raises:
            ValueError: an unknown name or option, a damaged file, a network of other joints, a
                precision that engine="torch" does not have.
            FileNotFoundError: no such file.
            RuntimeError: engine="native", or another precision than float32, and the compiled core
                is missing.
        """
        _require_option("hand", hand, ("right", "left"))
        _require_option("engine", engine, ("auto", "native", "torch"))
        _require_option("precision", precision, PRECISIONS)
        if not (math.isfinite(cube_mm) and cube_mm > 0):
            raise ValueError(f"cube_mm must be positive, got {cube_mm}")
        path = model_path(model)
        regressor, _ = load_weights(path)
        if engine == "auto":
            only_torch = dgpose_ext.why_no_core() and precision == "float32"
            engine = "torch" if only_torch else "native"
        return cls.from_module(
            regressor,
            hand=hand,
            engine=engine,
            cube_mm=cube_mm,
            precision=precision,
            name=str(model),
        )

    @classmethod
    def from_module(
        cls,
        module: HandRegressor,
        *,
        hand: Literal["right", "left"] = "right",
        engine: Literal["native", "torch"] = "torch",
        cube_mm: float = CUBE_MM,
        precision: Literal["float32", "bfloat16", "int8"] = "float32",
        name: str = "unnamed",
    ) -> HandEstimator:
        """An estimator from a network in memory; arguments as for `load`.

        Raises:
            ValueError: the network has other joints than `skeleton`; an unknown precision, or one
                that engine="torch" does not have.
            RuntimeError: engine="native" and the compiled core is missing.
        """
        if module.config.joints != len(cls.skeleton):
            raise ValueError(
                f"model must have the {len(cls.skeleton)} joints of {cls.skeleton.name}, "
                f"got {module.config.joints}"
            )
        _require_option("precision", precision, PRECISIONS)
        if engine == "torch" and precision != "float32":
            raise ValueError(f"precision must be float32 for engine 'torch', got {precision!r}")
        module = copy.deepcopy(module).eval()  # the caller's may go on training
        network: Callable[[Tensor], Tensor] = module
        if engine == "native":
            if why := dgpose_ext.why_no_core():
                raise RuntimeError(f"engine 'native' is not available. {why}")
            calibration = calibration_crops() if precision == "int8" else None
            network = HandNet.from_module(module, precision, calibration=calibration)
        estimator = cls(
            network,
            hand=hand,
            cube_mm=float(cube_mm),
            description={
                "model": name,
                "engine": engine,
                "precision": precision,
                "device": "cpu",
                "parameters": module.parameter_count(),
                "multiply_adds": module.macs(),
                "joints": cls.skeleton.name,
                "hand": hand,
                "cube_mm": float(cube_mm),
                "cpu_capability": dgpose_ext.cpu_capability(),
                "dgpose_ext": dgpose_ext.__version__,
            },
        )
        # The first call allocates workspaces: it must not be a user's first frame.
        estimator.regress(torch.ones(1, 1, CROP_SIZE, CROP_SIZE))
        return estimator

    def info(self) -> dict[str, Any]:
        """What runs: model, engine, precision, device, CPU capability, size, joints, hand, cube."""
        return dict(self._description)

    def __call__(
        self,
        depth: Depth,
        camera: str | Sequence[float],
        center: Sequence[float] | None = None,
        *,
        unit: Literal["mm", "m"] = "mm",
        look_again: bool | None = None,
    ) -> HandPose:
        """Estimate the hand in one depth image.

        Args:
            depth: `[H, W]`, NumPy or torch on the CPU: uint16 in mm, or float32 in `unit`. 0, NaN
                and Inf mean "no depth".
            camera: (fx, fy, cx, cy) in pixels (OpenCV's convention), or a name: "nyu", "kinect2",
                "icvl", "msra".
            center: (u, v, mm) of the hand's middle; None: it is found in the image, as the nearest
                object of a hand's size.
            unit: of float32 depth.
            look_again: crop a second time, around the palm that the first look saw, where that is
                more than 15 mm from the centre; None: where the centre was found, not given.

        Returns:
            The pose. Where there is no hand, or the estimate contradicts the image, `found` is
            false, the joints are NaN and `reason` says why.

        Raises:
            TypeError: depth is no array or tensor, or of another dtype.
            ValueError: the shape, camera, centre or unit is wrong, or values cannot be in `unit`.
        """
        start = time.perf_counter()
        optics = parse_camera(camera)
        image = _depth_in_mm(depth, unit)
        place = find_hand_center(image, optics) if center is None else check_center(center)
        located = time.perf_counter()
        if place is None:
            return _not_found(None, 0.0, _why_no_center(image), (located - start, 0.0, 0.0))

        crop, coords, uvd = self._look(image, optics, place)
        if look_again or (look_again is None and center is None):
            # The mean of what is seen lies towards the forearm; a tracked hand has moved.
            offset_mm = float(np.linalg.norm(coords[CENTER_JOINT])) * self._cube_mm / 2
            palm = uvd[CENTER_JOINT].tolist()
            if offset_mm > _LOOK_AGAIN_MM and palm[2] > 0:
                place = (palm[0], palm[1], palm[2])
                crop, coords, uvd = self._look(image, optics, place)
        joints_mm = unproject(uvd, optics)
        estimated = time.perf_counter()
        evidence = weigh_evidence(crop, coords, joints_mm, self._cube_mm)
        seconds = (located - start, estimated - located, time.perf_counter() - estimated)
        if not evidence.accepted:
            return _not_found(place, evidence.confidence, evidence.reason, seconds)
        return HandPose(
            joints_mm, uvd[:, :2].copy(), place, True, evidence.confidence, "", _timings(seconds)
        )

    def _look(
        self, image: Tensor, optics: Camera, place: tuple[float, float, float]
    ) -> tuple[Array, Array, Array]:
        """Crop `[S, S]`, crop coordinates `[36, 3]` and (u, v, mm) `[36, 3]` around a place."""
        centers = torch.tensor([place], dtype=torch.float64)
        crop = depth_crop(image[None], centers, optics, self._cube_mm, CROP_SIZE)
        if self._mirrored:
            crop = crop.flip(-1)
        coords = self.regress(crop).numpy()[0]
        half = self._cube_mm / 2
        width, height = half * optics.fx / place[2], half * optics.fy / place[2]
        scale = np.array([-width if self._mirrored else width, height, half], np.float32)
        return crop.numpy()[0, 0], coords, coords * scale + np.array(place, np.float32)

    def regress(self, crop: Tensor) -> Tensor:
        """The network alone: crops [B, 1, 128, 128] of `dgpose_ext.depth_crop`, of right hands ->
        [B, 36, 3] crop coordinates."""
        with torch.inference_mode():
            return self._network(crop)


def _require_option(name: str, value: object, options: Sequence[str]) -> None:
    if value not in options:
        raise ValueError(f"{name} must be one of {', '.join(options)}, got {value!r}")


def model_path(model: str | Path) -> Path:
    """The weight file of a shipped model, or the path that was given.

    Raises:
        ValueError: a name without suffix that no shipped model has.
    """
    if isinstance(model, str) and not Path(model).suffix and Path(model).name == model:
        weights = Path(str(resources.files("dgpose"))) / "weights"
        name = "accurate" if model == "default" else model
        path = weights / f"hand_{name}.safetensors"
        if not path.is_file():
            shipped = sorted(
                p.stem.removeprefix("hand_") for p in weights.glob("hand_*.safetensors")
            )
            names = ", ".join(shipped) or "none is shipped"
            raise ValueError(
                f"model must be a weight file or a shipped model ({names}), got {model!r}"
            )
        return path
    return Path(model)


def _depth_in_mm(depth: object, unit: str) -> Tensor:
    """The image as a tensor `[H, W]`, uint16 or float32, mm, without a copy where it can be."""
    if unit not in UNITS:
        raise ValueError(f"unit must be one of {', '.join(UNITS)}, got {unit!r}")
    if isinstance(depth, Tensor):
        image = depth.detach()
        if image.device.type != "cpu":
            raise ValueError(f"depth must be on the CPU, got {image.device}")
    elif isinstance(depth, np.ndarray):
        if depth.dtype.kind not in "fiub" or depth.dtype.itemsize > 8:
            raise TypeError(f"depth must be of dtype uint16 or float32, got {depth.dtype}")
        native = np.ascontiguousarray(depth, depth.dtype.newbyteorder("="))
        image = torch.from_numpy(native if native.flags.writeable else native.copy())
    else:
        raise TypeError(
            f"depth must be a NumPy array or a torch tensor, got {type(depth).__name__}"
        )
    if image.dtype not in (torch.uint16, torch.float32):
        got = str(image.dtype).removeprefix("torch.")
        hint = " (an 8-bit picture is no depth in mm)" if image.dtype == torch.uint8 else ""
        raise TypeError(f"depth must be of dtype uint16 (mm) or float32, got {got}{hint}")
    if image.dim() != 2 or 0 in image.shape:
        raise ValueError(f"depth must have shape [H, W], H, W >= 1, got {list(image.shape)}")
    image = image.contiguous()
    if image.dtype == torch.uint16:
        if unit != "mm":
            raise ValueError("uint16 depth must be in millimetres (unit='mm'), got unit='m'")
        return image
    _require_plausible_unit(image, unit)
    return image * 1000.0 if unit == "m" else image


def _require_plausible_unit(image: Tensor, unit: str) -> None:
    """ValueError where all depths are absurd in `unit`, and would be sensible in the other one."""

    def valid(values: Tensor) -> npt.NDArray[np.float32]:
        array = values.numpy()
        kept: npt.NDArray[np.float32] = array[(array > 0) & (array < np.inf)]
        return kept

    def absurd(depths: npt.NDArray[np.float32]) -> bool:
        far = depths >= _FLOAT_DEPTH_M
        return bool(far.all() if unit == "m" else not far.any())

    # A coarse grid tells in nearly all cases, and costs nothing.
    if absurd(valid(image[::16, ::16])):
        depths = valid(image)
        if depths.size and absurd(depths):
            other = "mm" if unit == "m" else "m"
            raise ValueError(
                f"depth in {unit} is expected, but all its values lie in "
                f"{depths.min():.4g}..{depths.max():.4g}: pass unit={other!r}?"
            )


def check_center(center: Sequence[float]) -> tuple[float, float, float]:
    """(u, v, mm) as three floats.

    Raises:
        ValueError: not three finite numbers, or mm not positive.
    """
    try:
        values = tuple(float(value) for value in center)
    except (TypeError, ValueError):
        values = ()
    if len(values) != 3 or not all(math.isfinite(v) for v in values) or values[2] <= 0:
        raise ValueError(f"center must be (u, v, mm), finite, with mm > 0, got {center!r}")
    u, v, mm = values
    return u, v, mm


def _why_no_center(image: Tensor) -> str:
    depths = image.numpy()
    if not bool(((depths > 0) & (depths < np.inf)).any()):
        return "the image holds no depth"
    return "no object of a hand's size between 10 mm and 1500 mm"


def _timings(seconds: tuple[float, float, float]) -> dict[str, float]:
    names = ("center", "crop+network", "check", "total")
    values = (*seconds, sum(seconds))
    return {name: 1000 * value for name, value in zip(names, values, strict=True)}


def _not_found(
    center: tuple[float, float, float] | None,
    confidence: float,
    reason: str,
    seconds: tuple[float, float, float],
) -> HandPose:
    joints = len(NYU36)
    return HandPose(
        np.full((joints, 3), np.nan, np.float32),
        np.full((joints, 2), np.nan, np.float32),
        center,
        False,
        confidence,
        reason,
        _timings(seconds),
    )
