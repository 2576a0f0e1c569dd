"""HandNet beside torch eager, torch.compile (frozen) and ONNX Runtime: one thread, batch 1.

All have the same weights. Two tables: the network alone (a crop to crop coordinates), and the whole
way from Python, a raw 640x480 frame and the hand's centre to joints in millimetres, for which the
peers crop with OpenCV and go back to millimetres in NumPy.

Limit: the multiply-adds of the direct convolutions at the core's measured float32 peak. Winograd's
convolutions need fewer, so HandNet may pass it; no direct convolution can.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from .hand_net_gpu import GPU_CASES as GPU_CASES  # for benchmarks.gpu
from .harness import Case

CAMERA = (588.03, 587.07, 320.0, 240.0)
CENTER = (330.0, 250.0, 720.0)
CUBE_MM = 300.0
SIZE = 128


def _module() -> nn.Module:
    from dgpose.nn.hand_regressor import HandRegressor

    torch.manual_seed(0)
    return HandRegressor().eval()


def _frame() -> NDArray[np.uint16]:
    """A hand-sized bumpy surface in front of a wall, with holes."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:480, :640]
    depth = np.full((480, 640), 1400, np.uint16)
    hand = ((x - CENTER[0]) / 90) ** 2 + ((y - CENTER[1]) / 100) ** 2 < 1
    surface = CENTER[2] + 40 * np.sin(x / 17) * np.cos(y / 23) + rng.normal(0, 2, x.shape)
    depth[hand] = surface[hand].astype(np.uint16)
    depth[rng.random(depth.shape) < 0.01] = 0
    return depth


# ---- each engine as a function from a crop [1, 1, 128, 128] array to [36, 3] ----

Engine = Callable[[NDArray[np.float32]], NDArray[np.float32]]


def _eager(channels_last: bool = False) -> Engine:
    module = _module()
    if channels_last:
        module = module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def run(crop: NDArray[np.float32]) -> NDArray[np.float32]:
        with torch.inference_mode():
            result: NDArray[np.float32] = module(torch.from_numpy(crop))[0].numpy()
        return result

    return run


def _compiled() -> Engine:
    import torch._inductor.config as inductor

    inductor.freezing = True
    compiled = torch.compile(_module())

    def run(crop: NDArray[np.float32]) -> NDArray[np.float32]:
        with torch.no_grad():
            result: NDArray[np.float32] = compiled(torch.from_numpy(crop))[0].numpy()
        return result

    return run


def _onnx() -> Engine:
    import onnxruntime

    with tempfile.TemporaryDirectory() as folder:
        path = str(Path(folder) / "net.onnx")
        example = (torch.zeros(1, 1, SIZE, SIZE),)
        torch.onnx.export(
            _module(), example, path, input_names=["crop"], dynamo=True, verbose=False
        )
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
        session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])

    def run(crop: NDArray[np.float32]) -> NDArray[np.float32]:
        result: NDArray[np.float32] = session.run(None, {"crop": crop})[0][0]
        return result

    return run


def _hand_net() -> Any:
    from dgpose_ext.hand_net import HandNet

    return HandNet.from_module(_module())


# ---- the two ways to call it ----


def _alone(engine: Callable[[], Engine]) -> Callable[[], Any]:
    run = engine()
    crop = np.random.default_rng(0).uniform(-1, 1, (1, 1, SIZE, SIZE)).astype(np.float32)
    return lambda: run(crop)


def _raw(engine: Callable[[], Engine]) -> Callable[[], Any]:
    """The peers' whole way: one affine resampling, one clamp, and the pinhole camera in NumPy."""
    import cv2

    cv2.setNumThreads(1)
    run = engine()
    depth = _frame()
    fx, fy, cx, cy = CAMERA

    def frame() -> NDArray[np.float32]:
        u, v, mm = CENTER
        half_u, half_v = CUBE_MM / 2 * fx / mm, CUBE_MM / 2 * fy / mm
        step_u, step_v = 2 * half_u / SIZE, 2 * half_v / SIZE
        window = np.array(
            [[step_u, 0, u - half_u + step_u / 2], [0, step_v, v - half_v + step_v / 2]]
        )
        flags = cv2.INTER_NEAREST | cv2.WARP_INVERSE_MAP
        crop = cv2.warpAffine(depth, window, (SIZE, SIZE), flags=flags).astype(np.float32)
        crop[crop == 0] = np.inf
        crop -= np.float32(mm)
        crop *= np.float32(2 / CUBE_MM)
        np.clip(crop, -1, 1, out=crop)
        joints = run(crop[None, None])
        d = mm + joints[:, 2] * (CUBE_MM / 2)
        x = (u + joints[:, 0] * half_u - cx) * d / fx
        y = -(v + joints[:, 1] * half_v - cy) * d / fy
        return np.stack((x, y, d), axis=1)

    return frame


def _hand_net_alone() -> Callable[[], Any]:
    net = _hand_net()
    crop = np.random.default_rng(0).uniform(-1, 1, (1, 1, SIZE, SIZE)).astype(np.float32)
    return lambda: net(crop)


def _hand_net_raw() -> Callable[[], Any]:
    net, depth = _hand_net(), _frame()
    return lambda: net.run(depth, CAMERA, CENTER, cube_mm=CUBE_MM)


def _limit() -> Callable[[], Any]:
    from dgpose_ext import _loader

    core = _loader.core
    assert core is not None
    multiply_adds = _hand_net().multiply_adds
    return lambda: core.spend_multiply_adds(multiply_adds)


def _contenders(
    call: Callable[[Callable[[], Engine]], Callable[[], Any]], ours: Callable[[], Callable[[], Any]]
) -> dict[str, Callable[[], Callable[[], Any]]]:
    return {
        "HandNet": ours,
        "torch eager": lambda: call(_eager),
        "torch eager, channels_last": lambda: call(lambda: _eager(channels_last=True)),
        "torch.compile, frozen": lambda: call(_compiled),
        "ONNX Runtime": lambda: call(_onnx),
        "f32 peak, direct convolution": _limit,
    }


CASES = [
    Case(
        name="network alone, batch 1, f32",
        unit="frames",
        work=1,
        threads=1,
        contenders=_contenders(_alone, _hand_net_alone),
        ours="HandNet",
        limit="f32 peak, direct convolution",
        note="crop [1, 1, 128, 128] to [36, 3], the default HandRegressor",
    ),
    Case(
        name="raw 640x480 uint16 frame to joints in mm, f32",
        unit="frames",
        work=1,
        threads=1,
        contenders=_contenders(_raw, _hand_net_raw),
        ours="HandNet",
        limit="f32 peak, direct convolution",
        note="centre given; peers crop with OpenCV",
    ),
]
