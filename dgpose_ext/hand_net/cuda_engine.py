"""CudaHandNet: HandNet's networks on a GPU."""

from __future__ import annotations

import os
from collections.abc import Sequence
from math import inf
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from dgpose_ext import _loader
from dgpose_ext._validate import (
    camera_numbers,
    camera_tensor,
    require_device,
    require_dtype,
    require_number,
    require_shape,
    require_tensor,
)
from dgpose_ext.hand_net.cuda_plan import plan
from dgpose_ext.hand_net.engine import HandNet
from dgpose_ext.hand_net.graph import Graph, import_module

_DEPTH_TYPES = (torch.uint16, torch.float32)


class CudaHandFrames(NamedTuple):
    """What `CudaHandNet.run` makes of depth frames; all tensors lie on the GPU."""

    joints_mm: Tensor
    """[B, J, 3] float32: x right, y UP, z forward, mm, camera origin; NaN where found is False."""
    joints_uvd: Tensor
    """[B, J, 3] float32: column, row (pixels), depth (mm)."""
    found: Tensor
    """[B] bool: False where nothing lies in the cube around the centre."""
    foreground: Tensor
    """[B] float32: share of the crop's pixels with a surface before the back of the cube."""
    clipped: Tensor
    """[B] float32: share of the crop's pixels with a surface before the front of the cube."""


class CudaHandNet:
    """A convolutional regressor on a GPU; see docs/ops/hand_net.md, "On a GPU".

    Make one with `CudaHandNet.from_module` or `CudaHandNet.load`. It is immutable. Calls start
    kernels on torch's current stream and return: they neither wait for the GPU nor copy to or from
    the host, and can be captured in a CUDA graph (`captured` does it).
    """

    def __init__(
        self,
        graph: Graph,
        *,
        precision: str = "float16",
        device: str | int | torch.device = "cuda",
    ) -> None:
        """Lays out a graph and moves its weights to the device.

        Args:
            graph: what `HandNet.graph` is.
            precision: of maps and weights, "float16", "bfloat16" or "float32"; sums are float32.
            device: a CUDA device.

        Raises:
            ValueError: an unknown precision, weights that do not fit it, another device.
            RuntimeError: no CUDA kernels or no GPU are here; the message says why.
        """
        _require_cuda(torch.device(device))
        laid_out = plan(graph, precision)
        self.graph = graph
        self.precision = precision
        self._program = laid_out.program
        self._weights = laid_out.weights.to(device)
        self._frame_bytes = laid_out.frame_bytes
        self._launches = laid_out.launches
        self._ops = _ops()
        channels, height, width = graph.input_shape
        shape = graph.output_shape
        self._takes_frames = channels == 1 and height == width and len(shape) == 2 and shape[1] == 3

    @classmethod
    def from_module(
        cls,
        module: nn.Module,
        precision: str = "float16",
        *,
        input_shape: tuple[int, int, int] = (1, 128, 128),
        device: str | int | torch.device = "cuda",
    ) -> CudaHandNet:
        """Compiles a torch module, as `HandNet.from_module` does; the module is left as it is.

        Raises:
            ValueError: a layer that the engine does not run, or as for `CudaHandNet`.
            RuntimeError: no CUDA kernels or no GPU are here.
        """
        return cls(import_module(module, input_shape), precision=precision, device=device)

    @classmethod
    def load(
        cls,
        path: str | os.PathLike[str],
        precision: str = "float16",
        *,
        device: str | int | torch.device = "cuda",
    ) -> CudaHandNet:
        """Reads a file that `HandNet.save` wrote, of precision float32 or bfloat16.

        Raises:
            FileNotFoundError: there is no such file.
            ValueError: not a HandNet file, a damaged one, or as for `CudaHandNet`.
            ModuleNotFoundError: safetensors is not installed.
            RuntimeError: no CUDA kernels or no GPU are here.
        """
        return cls(HandNet.load(path).graph, precision=precision, device=device)

    def __call__(self, crops: Tensor) -> Tensor:
        """Runs a batch of crops.

        Args:
            crops: [B, C, H, W] float32 on the network's device.

        Returns:
            [B, *output_shape] float32 on that device ([B, J, 3] crop coordinates for a hand
            regressor).

        Raises:
            ValueError: another shape or device.
            TypeError: no tensor, or another dtype.
        """
        crops = require_tensor("crops", crops)
        require_dtype("crops", crops, (torch.float32,))
        channels, height, width = self.graph.input_shape
        require_shape("crops", crops, f"[B, {channels}, {height}, {width}]")
        require_device("crops", crops, "the network", self._weights)
        out: Tensor = self._ops.hand_net(crops.detach(), self._weights, self._program)
        return out.view(-1, *self.graph.output_shape)

    def run(
        self,
        depth: Tensor,
        centers: Tensor,
        camera: Sequence[float] | Tensor,
        *,
        cube_mm: float = 300.0,
    ) -> CudaHandFrames:
        """Raw depth frames to hand joints: crop, network, back to millimetres.

        The crop is `dgpose_ext.depth_crop` (cube normalisation, nearest sampling).

        Args:
            depth: [B, H, W] uint16 or float32 on the network's device, millimetres; 0, negative,
                NaN and Inf are missing.
            centers: [B, 3] float32 or float64 there: u, v (pixels) and depth (mm) of the hands, as
                of the last frame, or of `dgpose_ext.find_hand_center`.
            camera: (fx, fy, cx, cy) in pixels, or a tensor [4], [1, 4] or [B, 4] on that device.
            cube_mm: edge of the cube around the centre; what the network was trained with.

        Returns:
            CudaHandFrames. A centre that is not finite or not in front of the camera finds nothing.

        Raises:
            ValueError: shapes, devices, camera or cube_mm do not fit, or the network does not map
                [1, S, S] to [J, 3].
            TypeError: an argument is of another type, or a tensor of another dtype.
        """
        if not self._takes_frames:
            raise ValueError(
                f"run needs a network from [1, S, S] to [J, 3], this one goes from "
                f"{list(self.input_shape)} to {list(self.output_shape)}"
            )
        depth = require_tensor("depth", depth)
        require_dtype("depth", depth, _DEPTH_TYPES)
        require_shape("depth", depth, "[B, H, W]")
        require_device("depth", depth, "the network", self._weights)
        batch = depth.shape[0]
        centers = require_tensor("centers", centers)
        require_dtype("centers", centers, (torch.float32, torch.float64))
        require_shape("centers", centers, "[B, 3]", B=batch)
        require_device("centers", centers, "depth", depth)
        require_number("cube_mm", cube_mm)
        if not 0 < cube_mm < inf:
            raise ValueError(f"cube_mm must be positive and finite, got {cube_mm}")
        cameras, numbers = None, (0.0, 0.0, 0.0, 0.0)
        if isinstance(camera, Tensor):
            require_device("camera", camera, "depth", depth)
            cameras = camera_tensor(camera, like=depth, dtype=torch.float64, batch=batch)
        else:
            numbers = camera_numbers(camera)
        mm, uvd, shares, found = self._ops.hand_net_frames(
            depth.detach(), centers.detach(), cameras, *numbers, float(cube_mm), self._weights,
            self._program,
        )  # fmt: skip
        return CudaHandFrames(mm, uvd, found, shares[:, 0], shares[:, 1])

    def captured(
        self,
        depth: Tensor,
        centers: Tensor,
        camera: Sequence[float] | Tensor,
        *,
        cube_mm: float = 300.0,
    ) -> CapturedHandNet:
        """`run` as one CUDA graph, for frames of the shape and dtype of `depth`.

        Args and errors: as for `run`; a camera given as a tensor is read again by every call.
        """
        return CapturedHandNet(self, depth, centers, camera, cube_mm)

    # ---- what it is ----

    @property
    def input_shape(self) -> tuple[int, int, int]:
        """(C, H, W) of one crop."""
        return self.graph.input_shape

    @property
    def output_shape(self) -> tuple[int, ...]:
        """The shape of one result: (J, 3) for a hand regressor."""
        return self.graph.output_shape

    @property
    def device(self) -> torch.device:
        """Where it runs."""
        return self._weights.device

    @property
    def launches(self) -> int:
        """Kernels that one call starts, for as many frames as fit in a cache at once."""
        return self._launches

    @property
    def weight_bytes(self) -> int:
        """Memory of the packed weights."""
        return self._weights.numel()

    @property
    def frame_bytes(self) -> int:
        """Working memory of one frame; about 32 MiB of frames are worked on at once."""
        return self._frame_bytes

    def __repr__(self) -> str:
        return (
            f"CudaHandNet({list(self.input_shape)} -> {list(self.output_shape)}, {self.precision}, "
            f"{self.device}, {self.launches} launches)"
        )


class CapturedHandNet:
    """`CudaHandNet.run` as a CUDA graph on buffers of its own; made by `CudaHandNet.captured`.

    A call copies its arguments into the buffers, starts the graph on torch's current stream and
    returns the same tensors each time: the next call overwrites them. It allocates nothing and does
    not wait. Not for several threads or streams at once.
    """

    def __init__(
        self,
        net: CudaHandNet,
        depth: Tensor,
        centers: Tensor,
        camera: Sequence[float] | Tensor,
        cube_mm: float,
    ) -> None:
        """Captures; the arguments are those of `CudaHandNet.run`."""
        self.depth = depth.clone()
        """[B, H, W]: write frames here where a copy would be one too many."""
        self.centers = centers.clone()
        """[B, 3]."""
        self._kept = (net, camera)  # the graph reads them
        self._graph = torch.cuda.CUDAGraph()
        with torch.cuda.device(net.device):
            net.run(self.depth, self.centers, camera, cube_mm=cube_mm)  # loads the kernels
            with torch.cuda.graph(self._graph):
                self.frames = net.run(self.depth, self.centers, camera, cube_mm=cube_mm)
                """What the last replay made."""

    def __call__(
        self, depth: Tensor | None = None, centers: Tensor | None = None
    ) -> CudaHandFrames:
        """Runs the graph on these frames and centres, from the GPU or pinned memory, or on what the
        buffers hold.

        Raises:
            ValueError: another shape or dtype than what was captured.
        """
        for name, buffer, given in (
            ("depth", self.depth, depth),
            ("centers", self.centers, centers),
        ):
            if given is None:
                continue
            if given.shape != buffer.shape or given.dtype != buffer.dtype:
                raise ValueError(
                    f"{name} must be {buffer.dtype} of shape {list(buffer.shape)} as captured, "
                    f"got {given.dtype} of shape {list(given.shape)}"
                )
            buffer.copy_(given, non_blocking=True)
        self._graph.replay()
        return self.frames


def _ops() -> Any:
    return torch.ops.dgpose


def _require_cuda(device: torch.device) -> None:
    if device.type != "cuda":
        raise ValueError(f"device must be a CUDA device, got {device}; HandNet runs on the CPU")
    if why := _loader.why_no_cuda():
        raise RuntimeError(f"CudaHandNet is not available. {why}")
