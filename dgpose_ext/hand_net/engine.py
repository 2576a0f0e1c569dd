"""HandNet: the compiled inference engine for small convolutional regressors."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from math import inf, isfinite, prod
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from dgpose_ext import _loader
from dgpose_ext._validate import camera_numbers, require_search_range
from dgpose_ext.hand_net.graph import Graph, import_module
from dgpose_ext.hand_net.quantize import to_bfloat16, to_int8
from dgpose_ext.ops.crop.depth_crop import NORMALIZE
from dgpose_ext.tensor_file import read_tensor_file, write_tensor_file

Calibration = Tensor | NDArray[np.float32] | Iterable[Tensor | NDArray[np.float32]]

PRECISIONS = ("float32", "bfloat16", "int8")
"""What `HandNet.from_module` compiles to."""
_KIND = "hand_net"
_VERSIONS = (1, 2)
"""Of files: 2 says how maps are stored; networks of float32 are written as 1, as ever."""
_OUTPUTS = ("crop", "metric")
_DEPTH_TYPES = (np.dtype(np.uint16), np.dtype(np.float32))


class HandFrame(NamedTuple):
    """What `HandNet.run` makes of one depth frame; arrays for an array, tensors for a tensor."""

    joints_mm: Any
    """[J, 3] float32: x right, y UP, z forward, mm, camera origin; NaN where found is False."""
    joints_uvd: Any
    """[J, 3] float32: column, row (pixels), depth (mm)."""
    found: bool
    """False where no centre was found, or nothing lies in the cube around it."""
    center: tuple[float, float, float] | None
    """(u, v, mm): the one given, or found; None where none was found."""
    foreground: float
    """Share of the crop's pixels with a surface before the back of the cube."""
    clipped: float
    """Share of the crop's pixels with a surface before the front of the cube."""


class HandNet:
    """A convolutional regressor compiled for this processor; see docs/ops/hand_net.md.

    Make one with `HandNet.from_module` or `HandNet.load`. It is immutable and may be called from
    many threads at once; one frame uses one thread, a batch is spread over torch's threads.
    """

    def __init__(
        self, graph: Graph, *, precision: str = "float32", algorithm: str = "auto"
    ) -> None:
        """Builds the engine of a graph.

        Args:
            precision: "float32", "bfloat16" or "int8": the name of what the graph is; how maps are
                stored is part of the graph.
            algorithm: how convolutions are computed: "auto", or "direct", "winograd2", "winograd4"
                for tests and measurements.

        Raises:
            ValueError: an unknown precision, or layers whose sizes do not fit together.
            RuntimeError: the compiled core is missing.
        """
        _require_precision(precision)
        if precision == "float32" and any("element" in layer for layer in graph.layers):
            raise ValueError("precision must be that of the graph's maps, bfloat16 or int8")
        self.precision = precision
        self.graph = graph
        self._network = _build(_core(), graph, algorithm)
        if prod(graph.output_shape) != prod(self._network.output_shape):
            raise ValueError(
                f"output_shape {list(graph.output_shape)} does not hold what the layers make, "
                f"{list(self._network.output_shape)}"
            )
        self._input_shape = graph.input_shape
        self._output_shape = graph.output_shape
        channels, height, width = graph.input_shape
        self._takes_frames = (
            channels == 1
            and height == width
            and len(graph.output_shape) == 2
            and graph.output_shape[1] == 3
        )

    @classmethod
    def from_module(
        cls,
        module: nn.Module,
        precision: str = "float32",
        *,
        input_shape: tuple[int, int, int] = (1, 128, 128),
        calibration: Calibration | None = None,
    ) -> HandNet:
        """Compiles a torch module; the module itself is left as it is.

        The module is exported with torch.export for one input [1, *input_shape] in eval mode. Batch
        norm is folded into the convolution before it, activations and residual additions are fused.

        Args:
            precision: "float32"; "bfloat16" (maps and weights; sums are float32); or "int8" (maps
                of uint8, weights of int8, sums of int32).
            calibration: what "int8" takes the ranges of the maps from: crops [N, *input_shape]
                float32 like those that the network will see, a hundred or more, as a tensor, an
                array, or an iterable of such batches.

        Raises:
            ValueError: a layer that the engine does not run (named with its module path), an
                unknown precision, "int8" without calibration crops, or calibration of another
                shape, dtype or precision.
            RuntimeError: the compiled core is missing.
        """
        _require_precision(precision)
        if precision == "int8" and calibration is None:
            shape = ", ".join(map(str, input_shape))
            raise ValueError(
                f"precision='int8' needs calibration, crops [N, {shape}] float32 like those that "
                "the network will see, got None"
            )
        if precision != "int8" and calibration is not None:
            raise ValueError(f"calibration is for precision='int8', got precision={precision!r}")
        graph = import_module(module, input_shape)
        if precision == "bfloat16":
            graph = to_bfloat16(graph)
        elif calibration is not None:
            graph = to_int8(graph, _calibration_batches(calibration, input_shape))
        return cls(graph, precision=precision)

    def __call__(
        self, crops: Tensor | NDArray[np.float32], out: Tensor | NDArray[np.float32] | None = None
    ) -> Any:
        """Runs a batch of crops.

        Args:
            crops: [B, C, H, W] float32, a CPU tensor or an array.
            out: [B, *output_shape] float32, C-contiguous; filled and returned where given.

        Returns:
            [B, *output_shape] float32 ([B, J, 3] crop coordinates for a hand regressor); an array
            where crops is an array, else a tensor.

        Raises:
            ValueError: wrong shape or dtype.
            TypeError: neither tensor nor array.
        """
        array = _as_array(crops, "crops")
        if array.dtype != np.float32 or array.ndim != 4 or array.shape[1:] != self._input_shape:
            raise ValueError(
                f"crops must have shape [B, {', '.join(map(str, self._input_shape))}] and dtype "
                f"float32, got {list(array.shape)} and {array.dtype}"
            )
        shape = (array.shape[0], *self._output_shape)
        result = _output(out, shape)
        if not (array.flags.c_contiguous and array.flags.aligned):
            array = array.copy("C")
        self._network.forward(array, result)
        if out is not None:
            return out
        return torch.from_numpy(result) if isinstance(crops, Tensor) else result

    def run(
        self,
        depth: Tensor | NDArray[Any],
        camera: Sequence[float],
        center: Sequence[float] | None = None,
        *,
        cube_mm: float = 300.0,
        near: float = 10.0,
        far: float = 1500.0,
        normalize: str = "cube",
        output: str = "crop",
        unit_mm: float = 50.0,
        out: Tensor | NDArray[np.float32] | None = None,
    ) -> HandFrame:
        """Raw depth to hand joints in one call: search, crop, network, back to millimetres.

        The crop is `dgpose_ext.depth_crop` (nearest sampling).

        Args:
            depth: [H, W] uint16 or float32, millimetres; 0, negative, NaN and Inf are missing.
            camera: (fx, fy, cx, cy), pixels.
            center: (u, v, mm) of the hand; None searches it with `dgpose_ext.find_hand_center`.
            cube_mm: edge of the cube around the centre; what the network was trained with.
            near, far: range of the search, mm, 0 <= near < far <= 65535.
            normalize: "cube" or "nearest_pixel", of the crop; what the network was trained with.
            output: what the network gives: "crop", coordinates -1..1 over the crop and the cube
                (`AnchorRegression`), or "metric", (joint - centre of the cube) / unit_mm, y UP
                (Crossing Nets).
            unit_mm: millimetres in one unit of metric outputs.
            out: [J, 3] float32, C-contiguous, takes joints_mm.

        Raises:
            ValueError: wrong shape or dtype, a camera or centre that is not finite and in front, an
                unknown normalize or output, a size in mm that is not positive and finite, or a
                network that does not map [1, S, S] to [J, 3].
            TypeError: depth or out is neither tensor nor array.
        """
        if not self._takes_frames:
            raise ValueError(
                f"run needs a network from [1, S, S] to [J, 3], this one goes from "
                f"{list(self._input_shape)} to {list(self._output_shape)}"
            )
        array = _as_array(depth, "depth")
        if array.ndim != 2 or array.dtype not in _DEPTH_TYPES or array.size == 0:
            raise ValueError(
                "depth must have shape [H, W], at least one pixel and dtype uint16 or float32 "
                f"(millimetres), got {list(array.shape)} and {array.dtype}"
            )
        rows_as_they_are = (
            array.strides[1] == array.itemsize and not array.strides[0] % array.itemsize
        )
        if not (rows_as_they_are and array.flags.aligned):
            array = array.copy("C")
        numbers = camera_numbers(camera)
        if center is not None:
            if len(center) != 3:
                raise ValueError(f"center must be (u, v, mm), got {len(center)} numbers")
            u, v, mm = map(float, center)
            if not (isfinite(u) and isfinite(v) and 0 < mm < inf):
                raise ValueError(f"center must be finite (u, v, mm) with mm > 0, got {(u, v, mm)}")
            center = (u, v, mm)
        if not 0 < cube_mm < inf:
            raise ValueError(f"cube_mm must be positive and finite, got {cube_mm}")
        if not 0 < unit_mm < inf:
            raise ValueError(f"unit_mm must be positive and finite, got {unit_mm}")
        if normalize not in NORMALIZE:
            raise ValueError(f"normalize must be one of {', '.join(NORMALIZE)}, got {normalize!r}")
        if output not in _OUTPUTS:
            raise ValueError(f"output must be one of {', '.join(_OUTPUTS)}, got {output!r}")
        require_search_range(near, far)
        uvd = np.empty(self._output_shape, dtype=np.float32)
        result = _output(out, self._output_shape)
        found, u, v, mm, foreground, clipped = self._network.run(
            array,
            numbers,
            center,
            cube_mm,
            near,
            far,
            normalize == "nearest_pixel",
            output == "metric",
            unit_mm,
            result,
            uvd,
        )
        joints: Any = result if out is None else out
        pixels: Any = uvd
        if isinstance(depth, Tensor):
            joints = torch.from_numpy(result) if out is None else out
            pixels = torch.from_numpy(uvd)
        return HandFrame(joints, pixels, found, (u, v, mm) if mm > 0 else None, foreground, clipped)

    # ---- what it is ----

    @property
    def input_shape(self) -> tuple[int, int, int]:
        """(C, H, W) of one crop."""
        return self._input_shape

    @property
    def output_shape(self) -> tuple[int, ...]:
        """The shape of one result: (J, 3) for a hand regressor."""
        return self._output_shape

    @property
    def multiply_adds(self) -> int:
        """Multiply-adds of one crop, counted for direct convolutions."""
        return int(self._network.multiply_adds)

    @property
    def workspace_bytes(self) -> int:
        """Memory that each calling thread uses."""
        return int(self._network.workspace_bytes)

    @property
    def weight_bytes(self) -> int:
        """Memory of the packed weights, shared by all threads."""
        return int(self._network.weight_bytes)

    def profile(self, repeats: int = 200) -> list[tuple[str, float, int]]:
        """[(step, mean microseconds, multiply-adds)] of one crop of zeros."""
        crop = np.zeros((1, *self._input_shape), dtype=np.float32)
        return list(self._network.profile(crop, repeats))

    def __repr__(self) -> str:
        return (
            f"HandNet({list(self._input_shape)} -> {list(self._output_shape)}, {self.precision}, "
            f"{self.multiply_adds / 1e6:.1f} M multiply-adds)"
        )

    # ---- files ----

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes one safetensors file: the fused weights, and the graph as JSON in its metadata.

        Raises:
            ModuleNotFoundError: safetensors is not installed.
        """
        graph = self.graph
        description = {
            "precision": self.precision,
            "input_shape": graph.input_shape,
            "output_shape": graph.output_shape,
            "layers": graph.layers,
        }
        tensors = {name: torch.from_numpy(array) for name, array in graph.tensors.items()}
        version = _VERSIONS[self.precision != "float32"]
        write_tensor_file(Path(path), tensors, kind=_KIND, version=version, metadata=description)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> HandNet:
        """Reads a file that `save` wrote.

        Raises:
            FileNotFoundError: there is no such file.
            ValueError: not a HandNet file, of another version, truncated or changed.
            ModuleNotFoundError: safetensors is not installed.
            RuntimeError: the compiled core is missing.
        """
        path = Path(path)
        tensors, plan = read_tensor_file(path, kind=_KIND, version=_VERSIONS)
        try:
            graph = Graph(
                input_shape=tuple(plan["input_shape"]),
                output_shape=tuple(plan["output_shape"]),
                layers=plan["layers"],
                tensors={name: tensor.numpy() for name, tensor in tensors.items()},
            )
            return cls(graph, precision=plan["precision"])
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"{path} does not describe a network: {error}") from error


def _require_precision(precision: str) -> None:
    if precision not in PRECISIONS:
        raise ValueError(f"precision must be one of {', '.join(PRECISIONS)}, got {precision!r}")


def _calibration_batches(
    calibration: Calibration, input_shape: tuple[int, int, int]
) -> Iterator[Tensor]:
    """Batches [N, *input_shape] float32 of finite crops, at least one crop in all.

    Raises:
        ValueError: anything else.
        TypeError: neither tensor nor array.
    """
    is_one = isinstance(calibration, (Tensor, np.ndarray))
    count = 0
    for batch in [calibration] if is_one else calibration:
        array = _as_array(batch, "calibration")
        if array.dtype != np.float32 or array.ndim != 4 or array.shape[1:] != input_shape:
            raise ValueError(
                f"calibration must have shape [N, {', '.join(map(str, input_shape))}] and dtype "
                f"float32, got {list(array.shape)} and {array.dtype}"
            )
        if not np.isfinite(array).all():
            raise ValueError("calibration must be finite, got NaN or Inf")
        count += len(array)
        if len(array) > 0:
            yield torch.from_numpy(np.ascontiguousarray(array))
    if count == 0:
        raise ValueError("calibration must hold at least one crop, got none")


def _core() -> ModuleType:
    if _loader.core is None:
        raise RuntimeError(f"HandNet needs the compiled core. {_loader.why_no_core()}")
    return _loader.core


def _as_array(value: Any, name: str) -> NDArray[Any]:
    if isinstance(value, np.ndarray):
        return value
    if isinstance(value, Tensor):
        if value.device.type != "cpu":
            raise ValueError(f"{name} must be on the CPU, got a tensor on {value.device}")
        try:
            array: NDArray[Any] = value.detach().numpy()
        except TypeError:  # bfloat16, sparse
            kind = f"{value.layout} of {value.dtype}".replace("torch.", "")
            raise ValueError(
                f"{name} must be a dense tensor of a dtype that NumPy has, got {kind}"
            ) from None
        return array
    raise TypeError(f"{name} must be a torch tensor or a numpy array, got {type(value).__name__}")


def _output(out: Any, shape: tuple[int, ...]) -> NDArray[np.float32]:
    """The array that takes the result: new, or the memory of `out`."""
    if out is None:
        return np.empty(shape, dtype=np.float32)
    result = _as_array(out, "out")
    if result.shape != shape or result.dtype != np.float32:
        raise ValueError(
            f"out must have shape {list(shape)} and dtype float32, "
            f"got {list(result.shape)} and {result.dtype}"
        )
    flags = result.flags
    if not (flags.c_contiguous and flags.aligned and flags.writeable):
        raise ValueError("out must be C-contiguous, aligned and writable")
    return result


def _build(core: ModuleType, graph: Graph, algorithm: str) -> Any:
    algorithms = core.ConvAlgorithm.__members__
    if algorithm not in algorithms:
        raise ValueError(f"algorithm must be one of {', '.join(algorithms)}, got {algorithm!r}")
    builder = core.HandNetBuilder(graph.input_shape, algorithms[algorithm])
    elements = core.HandNetElement.__members__
    tensors = graph.tensors

    def weights(layer: dict[str, Any]) -> tuple[Any, Any]:
        return tensors[layer["weight"]], tensors[layer["bias"]]

    def weight_scale(layer: dict[str, Any]) -> Any:
        return tensors[layer["weight_scale"]] if "weight_scale" in layer else None

    output = -1
    for layer in graph.layers:
        if layer["kind"] == "input":
            output = builder.add_input(layer["unshuffle"])
        elif layer["kind"] == "conv":
            output = builder.add_conv(
                layer["input"],
                *weights(layer),
                tuple(layer["stride"]),
                tuple(layer["padding"]),
                tuple(layer["dilation"]),
                layer["slope"],
                layer["residual"],
                weight_scale(layer),
            )
        elif layer["kind"] == "linear":
            output = builder.add_linear(
                layer["input"], *weights(layer), layer["slope"], weight_scale(layer)
            )
        elif layer["kind"] == "pool":
            output = builder.add_pool(
                layer["input"],
                layer["pool"],
                tuple(layer["rows"]),
                tuple(layer["columns"]),
                layer["divisor"],
            )
        elif layer["kind"] == "sum":
            output = builder.add_sum(layer["a"], layer["b"], layer["upsample"], layer["slope"])
        elif layer["kind"] == "anchor_regression":
            output = builder.add_anchor_regression(layer["input"])
        else:
            raise ValueError(f"unknown layer kind {layer['kind']!r}")
        if "element" in layer:
            scale = tensors[layer["scale"]] if "scale" in layer else None
            zero_point = layer.get("zero_point", 0)
            builder.store_as(output, elements[layer["element"]], scale, zero_point)
    return builder.finish(output)
