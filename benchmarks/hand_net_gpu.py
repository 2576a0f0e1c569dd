"""CudaHandNet on a GPU, for `python -m benchmarks.gpu hand_net`.

Ours replays one CUDA graph. Peers with the same weights: torch eager in float32 (the reference) and
float16, and torch.compile(mode="max-autotune"), which autotunes in Triton and replays CUDA graphs;
that takes a minute or more a case. The roofline has two lines: a copy of the bytes that must move,
and a float16 matrix product of as many multiply-adds, at large batches as fast as cuBLAS goes.

Weights are random: they do not change the time.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from .gpu import GpuCase

CAMERA = (588.03, 587.07, 320.0, 240.0)
CENTER = (330.0, 250.0, 720.0)
CUBE_MM = 300.0
SIZE = 128
JOINTS = 36
PEAK_SIDE = 8192


@functools.cache
def _module(size: str) -> nn.Module:
    from dgpose.nn.hand_regressor import SIZES, HandRegressor

    torch.manual_seed(0)
    return HandRegressor(SIZES[size]).eval()


@functools.cache
def _multiply_adds(size: str) -> int:
    return int(_module(size).macs())  # type: ignore[operator]


def _depth(batch: int) -> Tensor:
    """[B, 480, 640] uint16: a bumpy hand-sized surface before a wall, with holes."""
    y, x = torch.meshgrid(torch.arange(480.0), torch.arange(640.0), indexing="ij")
    hand = ((x - CENTER[0]) / 90) ** 2 + ((y - CENTER[1]) / 100) ** 2 < 1
    surface = CENTER[2] + 40 * torch.sin(x / 17) * torch.cos(y / 23)
    depth = torch.where(hand, surface, torch.tensor(1400.0))
    depth[torch.rand(depth.shape, generator=torch.Generator().manual_seed(0)) < 0.01] = 0
    return depth.to(torch.int32).to(torch.uint16).expand(batch, 480, 640)


# ---- the contenders: functions of crops [B, 1, 128, 128], or of frames and their centres ----


def _to_millimetres(abc: Tensor, centers: Tensor) -> Tensor:
    fx, fy, cx, cy = CAMERA
    u, v, mm = (centers[:, i, None] for i in range(3))
    half = CUBE_MM / 2
    d = mm + abc[..., 2] * half
    x = (u + abc[..., 0] * (half * fx / mm) - cx) * d / fx
    y = -(v + abc[..., 1] * (half * fy / mm) - cy) * d / fy
    return torch.stack((x, y, d), dim=2)


def _in_torch(module: nn.Module, inputs: Tensor, centers: Tensor | None) -> Tensor:
    dtype = next(module.parameters()).dtype
    if centers is None:
        result: Tensor = module(inputs.to(dtype))
        return result
    from dgpose_ext import depth_crop

    # The crop of torch is the reference's: torch.compile fuses it.
    crops = depth_crop(inputs, centers, CAMERA, CUBE_MM, SIZE, backend="reference")
    return _to_millimetres(module(crops.to(dtype)).float(), centers)


@functools.cache
def _moved(size: str, device: str, dtype: torch.dtype) -> nn.Module:
    import copy

    return copy.deepcopy(_module(size)).to(device, dtype)


_replays: dict[tuple[Any, ...], tuple[Callable[[], Any], Any]] = {}


def _ours(size: str, inputs: Tensor, centers: Tensor | None) -> Any:
    """A replay of the CUDA graph of these inputs, captured at the first call."""
    key = (size, inputs.data_ptr(), tuple(inputs.shape))
    if key not in _replays:
        from dgpose_ext import CudaHandNet

        net = CudaHandNet.from_module(_module(size))
        if centers is not None:
            captured = net.captured(inputs, centers, CAMERA, cube_mm=CUBE_MM)
            _replays[key] = (captured, captured.frames.joints_mm)
        else:
            net(inputs)
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph):
                out = net(inputs)
            _replays[key] = (functools.partial(_keep, graph, net, inputs), out)
    replay, out = _replays[key]
    replay()
    return out


def _keep(graph: torch.cuda.CUDAGraph, *_: object) -> None:
    """Replays; what it reads lives as long."""
    graph.replay()


def _on_cpu(size: str, inputs: Tensor, centers: Tensor | None) -> Tensor:
    net = _cpu_net(size)
    if centers is None:
        result: Tensor = net(inputs)
        return result
    frames = zip(inputs, centers.tolist(), strict=True)
    return torch.stack([net.run(f, CAMERA, c, cube_mm=CUBE_MM).joints_mm for f, c in frames])


@functools.cache
def _cpu_net(size: str) -> Any:
    from dgpose_ext import HandNet

    return HandNet.from_module(_module(size))


def hand_net(
    inputs: Tensor, centers: Tensor | None = None, *, size: str = "accurate",
    backend: str | None = None,
) -> Any:  # fmt: skip
    """Crops to crop coordinates, or depth frames and their centres to millimetres."""
    if backend == "cuda":
        return _ours(size, inputs, centers)
    if backend == "reference":
        with torch.no_grad():
            return _in_torch(_moved(size, inputs.device.type, torch.float32), inputs, centers)
    return _on_cpu(size, inputs, centers)


def _autotuned(dtype: torch.dtype, arguments: dict[str, Any]) -> Callable[[], Any]:
    inputs, centers = arguments["inputs"], arguments.get("centers")
    module = _moved(arguments["size"], inputs.device.type, dtype)
    compiled = torch.compile(_in_torch, mode="max-autotune")

    def call() -> Any:
        with torch.no_grad():
            return compiled(module, inputs, centers)

    return call


def _matrix_products(arguments: dict[str, Any]) -> Callable[[], Any]:
    """As many multiply-adds at the rate of the tensor cores (on a CPU: float32, and smaller)."""
    inputs = arguments["inputs"]
    wanted = inputs.shape[0] * _multiply_adds(arguments["size"])
    cuda = inputs.device.type == "cuda"
    side = PEAK_SIDE if cuda else 256
    columns = max(1, round(wanted / side**2))
    dtype = torch.float16 if cuda else torch.float32
    a = torch.randn(side, side, device=inputs.device, dtype=dtype)
    b = torch.randn(side, columns, device=inputs.device, dtype=dtype)
    return lambda: torch.mm(a, b)


def _half(arguments: dict[str, Any]) -> Callable[[], Any]:
    inputs, centers = arguments["inputs"], arguments.get("centers")
    dtype = torch.float16 if inputs.device.type == "cuda" else torch.float32  # no CPU is fast in it
    module = _moved(arguments["size"], inputs.device.type, dtype)

    def call() -> Any:
        with torch.no_grad():
            return _in_torch(module, inputs, centers)

    return call


PEERS: dict[str, Callable[[dict[str, Any]], Callable[[], Any]]] = {
    "limit: float16 matrix product of the multiply-adds": _matrix_products,
    "torch, float16": _half,
}
AUTOTUNED = PEERS | {
    f"{name}, max-autotune torch.compile": functools.partial(_autotuned, dtype)
    for name, dtype in {"float32": torch.float32, "float16": torch.float16}.items()
}


def _crops(size: str, batch: int) -> tuple[Callable[..., Any], dict[str, Any]]:
    crops = torch.rand(batch, 1, SIZE, SIZE, generator=torch.Generator().manual_seed(0)) * 2 - 1
    return hand_net, {"inputs": crops, "size": size}


def _frames(size: str, batch: int) -> tuple[Callable[..., Any], dict[str, Any]]:
    centers = torch.tensor([CENTER]).expand(batch, 3)
    return hand_net, {"inputs": _depth(batch), "centers": centers, "size": size}


def _crop_case(size: str, batch: int, peers: dict[str, Any]) -> GpuCase:
    return GpuCase(
        name=f"{size} network, crop to crop coordinates, batch {batch}",
        unit="crops",
        batch=batch,
        call=functools.partial(_crops, size),
        traffic=SIZE * SIZE * 4 + JOINTS * 3 * 4,
        compiled=False,
        peers=peers,
        slow=peers is AUTOTUNED,
    )


def _frame_case(size: str, batch: int) -> GpuCase:
    return GpuCase(
        name=f"{size} network, raw 640x480 uint16 frame to joints in mm, batch {batch}",
        unit="frames",
        batch=batch,
        call=functools.partial(_frames, size),
        traffic=SIZE * SIZE * 2 + 2 * JOINTS * 3 * 4 + 9,  # the pixels that a crop samples
        compiled=False,
        peers=PEERS,
    )


GPU_CASES = [
    _frame_case("accurate", 1),
    _frame_case("accurate", 256),
    _frame_case("fast", 1),
    _crop_case("accurate", 64, PEERS),
    _crop_case("fast", 4096, PEERS),
    _crop_case("accurate", 1, AUTOTUNED),
    _crop_case("accurate", 4096, AUTOTUNED),
]
