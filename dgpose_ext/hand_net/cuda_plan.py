"""From a Graph to what csrc/hand_net/hand_net_cuda.h runs: steps, packed weights, a workspace."""

from __future__ import annotations

import math
import struct
from collections.abc import Iterable
from dataclasses import astuple, dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dgpose_ext.hand_net.graph import Graph

#: In the order of GpuElement.
DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}

_CHUNK = 16  # bytes
_OUTPUT, _NONE = -1, -2  # kOutput, kNone
_INPUT, _CONV, _POOL, _SUM, _ANCHORS, _PLAIN = range(6)  # GpuStepKind

Shape = tuple[int, int, int]
Pair = tuple[int, int]


@dataclass
class _Step:
    """GpuStep, in its order; maps are buffers until they are placed."""

    kind: int
    source: int
    in_shape: Shape
    out: int
    out_shape: Shape
    out_plain: int = 0
    residual: int = _NONE
    factor: int = 1
    slope_bits: int = 0
    weights: int = 0
    bias: int = 0
    kernel: Pair = (1, 1)
    stride: Pair = (1, 1)
    padding: Pair = (0, 0)
    dilation: Pair = (1, 1)
    tables: int = 0
    maximum: int = 0
    divisor: int = 0

    def words(self) -> list[int]:
        """As int64 of a program."""
        return [
            word
            for value in astuple(self)
            for word in (value if isinstance(value, tuple) else (value,))
        ]


@dataclass(frozen=True)
class CudaPlan:
    """A network for the ops hand_net and hand_net_frames."""

    program: Tensor  #: [P] int64, on the CPU
    weights: Tensor  #: [W] uint8, to be moved to the device
    frame_bytes: int  #: workspace of one frame
    launches: int  #: kernels of one call


def plan(graph: Graph, precision: str) -> CudaPlan:
    """Lays out a graph for a GPU.

    Raises:
        ValueError: an unknown precision, weights that are not finite in it, or not float.
    """
    if precision not in DTYPES:
        raise ValueError(f"precision must be one of {', '.join(DTYPES)}, got {precision!r}")
    return _Planner(graph, precision).plan()


class _Planner:
    def __init__(self, graph: Graph, precision: str) -> None:
        self.graph = graph
        self.precision = precision
        self.dtype = DTYPES[precision]
        self.values = _CHUNK // self.dtype.itemsize  # of a chunk
        self.steps: list[_Step] = []
        self.shapes: list[Shape] = []  # of the maps of layers
        self.buffers: list[int] = []  # map of a layer -> buffer; what is fused away has none
        self.chunks: list[int] = []  # of a buffer, for one frame
        self.packed = bytearray()
        self.input_maps: dict[int, int] = {}  # unshuffle factor -> buffer
        self.readers = [0] * len(graph.layers)
        for layer in graph.layers:
            for key in ("input", "residual", "a", "b"):
                if layer.get(key) is not None:
                    self.readers[layer[key]] += 1

    def plan(self) -> CudaPlan:
        layers = self.graph.layers
        self.fused = self._convolutions_of_sums()
        # What anchors read is plain, and so is the output: convolutions write it that way.
        self.plain = {len(layers) - 1, *self._read_by_anchors()}
        for index, layer in enumerate(layers):
            self.shapes.append(self._shape(layer))
            self.buffers.append(_NONE)
            if index not in self.fused.values():
                getattr(self, f"_add_{layer['kind']}")(index, layer)
        if layers[-1]["kind"] not in ("conv", "linear", "anchor_regression"):
            last = len(layers) - 1
            if last not in self.fused:
                self._add_plain(self._map(last), self.shapes[last], _OUTPUT)
        frame_chunks = self._place_buffers()
        header = [
            list(DTYPES).index(self.precision),
            *self.graph.input_shape,
            math.prod(self.graph.output_shape),
            frame_chunks,
            len(self.steps),
        ]
        words = header + [word for step in self.steps for word in step.words()]
        return CudaPlan(
            program=torch.tensor(words, dtype=torch.int64),
            weights=torch.frombuffer(self.packed or bytearray(_CHUNK), dtype=torch.uint8).clone(),
            frame_bytes=frame_chunks * _CHUNK,
            launches=len(self.steps),
        )

    # ---- what is fused ----

    def _convolutions_of_sums(self) -> dict[int, int]:
        """Sum layer -> the convolution it enlarges, which nothing else reads or follows."""
        layers = self.graph.layers
        fused = {}
        for index, layer in enumerate(layers):
            if layer["kind"] != "sum":
                continue
            conv = layers[layer["b"]]
            if (
                conv["kind"] == "conv"
                and self.readers[layer["b"]] == 1
                and conv["slope"] == 1.0
                and conv["residual"] is None
            ):
                fused[index] = layer["b"]
        return fused

    def _read_by_anchors(self) -> Iterable[int]:
        layers = self.graph.layers
        for layer in layers:
            if layer["kind"] == "anchor_regression":
                source = layer["input"]
                makes_plain = layers[source]["kind"] in ("conv", "linear") or source in self.fused
                if makes_plain and self.readers[source] == 1:
                    yield source

    # ---- shapes ----

    def _shape(self, layer: dict[str, Any]) -> Shape:
        kind = layer["kind"]
        if kind == "input":
            channels, height, width = self.graph.input_shape
            r = layer["unshuffle"]
            return channels * r * r, height // r, width // r
        channels, height, width = self.shapes[layer["b" if kind == "sum" else "input"]]
        if kind == "conv":
            weight = self.graph.tensors[layer["weight"]]
            grid = [
                (size + 2 * layer["padding"][i] - layer["dilation"][i] * (weight.shape[2 + i] - 1))
                for i, size in enumerate((height, width))
            ]
            rows, columns = ((n - 1) // layer["stride"][i] + 1 for i, n in enumerate(grid))
            return weight.shape[0], rows, columns
        if kind == "linear":
            return self.graph.tensors[layer["weight"]].shape[0], 1, 1
        if kind == "pool":
            return channels, len(layer["rows"][0]), len(layer["columns"][0])
        if kind == "sum":
            return channels, height * layer["upsample"], width * layer["upsample"]
        if kind == "anchor_regression":
            return channels // 4, 3, 1
        raise ValueError(f"unknown layer kind {kind!r}")

    # ---- one step a layer ----

    def _new_buffer(self, shape: Shape, plain: bool = False) -> int:
        channels, height, width = shape
        size = -(-channels * height * width * 4 // _CHUNK)
        self.chunks.append(size if plain else height * width * -(-channels // self.values))
        return len(self.chunks) - 1

    def _output_of(self, index: int) -> tuple[int, int]:
        """Where a convolution writes its map, and whether plain."""
        plain = index in self.plain
        last = index == len(self.graph.layers) - 1
        buffer = _OUTPUT if last else self._new_buffer(self.shapes[index], plain)
        self.buffers[index] = buffer
        return buffer, int(plain)

    def _input_map(self, unshuffle: int) -> int:
        if unshuffle not in self.input_maps:
            channels, height, width = self.graph.input_shape
            shape = (channels * unshuffle**2, height // unshuffle, width // unshuffle)
            buffer = self._new_buffer(shape)
            self.input_maps[unshuffle] = buffer
            self.steps.append(
                _Step(_INPUT, 0, self.graph.input_shape, buffer, shape, factor=unshuffle)
            )
        return self.input_maps[unshuffle]

    def _add_input(self, index: int, layer: dict[str, Any]) -> None:
        pass  # made by the first layer that reads it

    def _map(self, index: int) -> int:
        layer = self.graph.layers[index]
        if layer["kind"] == "input":
            self.buffers[index] = self._input_map(layer["unshuffle"])
        return self.buffers[index]

    def _add_conv(self, index: int, layer: dict[str, Any]) -> None:
        residual = _NONE if layer["residual"] is None else self._map(layer["residual"])
        self._add_convolution(index, layer, residual, 1, layer["slope"])

    def _add_convolution(
        self, index: int, layer: dict[str, Any], residual: int, factor: int, slope: float
    ) -> None:
        weight = self._weight(layer)
        padding, stride, dilation = (_pair(layer[k]) for k in ("padding", "stride", "dilation"))
        source = self.graph.layers[layer["input"]]
        folded = None
        if source["kind"] == "input" and source["unshuffle"] == 1:
            folded = self._fold_stride(weight, stride, padding, dilation)
        if folded is None:
            buffer, shape = self._map(layer["input"]), self.shapes[layer["input"]]
        else:
            weight, padding = folded
            buffer = self._input_map(stride[0])
            _, height, width = self.shapes[layer["input"]]
            shape = (weight.shape[1], height // stride[0], width // stride[0])
            stride = dilation = (1, 1)
        out, plain = self._output_of(index)
        self.steps.append(
            _Step(
                _CONV, buffer, shape, out, self.shapes[index], plain, residual, factor,
                _bits(slope), self._pack_weight(weight), self._pack_bias(layer),
                (weight.shape[2], weight.shape[3]), stride, padding, dilation,
            )
        )  # fmt: skip

    def _fold_stride(
        self, weight: Tensor, stride: Pair, padding: Pair, dilation: Pair
    ) -> tuple[Tensor, Pair] | None:
        """A convolution of stride s as one of stride 1 on s x s pixels folded into channels.

        An input of one channel would fill one of eight places that a chunk has. None where that
        does not pay, or s does not divide the input.
        """
        s = stride[0]
        _, height, width = self.graph.input_shape
        if s == 1 or stride[1] != s or height % s or width % s:
            return None
        outputs, channels, *kernel = weight.shape
        taps = []  # per axis: of each row of the kernel, (row of the new one, row in the cell)
        for axis in (0, 1):
            offsets = [k * dilation[axis] - padding[axis] for k in range(kernel[axis])]
            taps.append([divmod(offset, s) for offset in offsets])
        first = [min(cell for cell, _ in axis) for axis in taps]
        size = [
            max(cell for cell, _ in axis) - low + 1 for axis, low in zip(taps, first, strict=True)
        ]
        if any(low > 0 for low in first):
            return None
        result = weight.new_zeros(outputs, channels, s, s, *size)
        for i, (cell_y, y) in enumerate(taps[0]):
            for j, (cell_x, x) in enumerate(taps[1]):
                result[:, :, y, x, cell_y - first[0], cell_x - first[1]] = weight[:, :, i, j]
        before = math.prod(kernel) * -(-channels // self.values)
        after = math.prod(size) * -(-channels * s * s // self.values)
        if after >= before:
            return None
        return result.reshape(outputs, channels * s * s, *size), (-first[0], -first[1])

    def _add_linear(self, index: int, layer: dict[str, Any]) -> None:
        shape = self.shapes[layer["input"]]
        weight = self._weight(layer)
        weight = weight.reshape(weight.shape[0], *shape)
        source = self._map(layer["input"])
        out, plain = self._output_of(index)
        self.steps.append(
            _Step(
                _CONV, source, shape, out, self.shapes[index], plain,
                slope_bits=_bits(layer["slope"]), weights=self._pack_weight(weight),
                bias=self._pack_bias(layer), kernel=(shape[1], shape[2]),
            )
        )  # fmt: skip

    def _add_pool(self, index: int, layer: dict[str, Any]) -> None:
        source = self._map(layer["input"])
        tables = np.concatenate([np.ravel(layer[key]) for key in ("rows", "columns")])
        self.buffers[index] = self._new_buffer(self.shapes[index])
        self.steps.append(
            _Step(
                _POOL, source, self.shapes[layer["input"]], self.buffers[index], self.shapes[index],
                tables=self._pack(tables.astype(np.int32).tobytes()),
                maximum=int(layer["pool"] == "max"), divisor=layer["divisor"],
            )
        )  # fmt: skip

    def _add_sum(self, index: int, layer: dict[str, Any]) -> None:
        residual = _NONE if layer["a"] is None else self._map(layer["a"])
        if index in self.fused:
            conv = self.graph.layers[self.fused[index]]
            self._add_convolution(index, conv, residual, layer["upsample"], layer["slope"])
            return
        source = self._map(layer["b"])
        self.buffers[index] = self._new_buffer(self.shapes[index])
        self.steps.append(
            _Step(
                _SUM, source, self.shapes[layer["b"]], self.buffers[index], self.shapes[index],
                residual=residual, factor=layer["upsample"], slope_bits=_bits(layer["slope"]),
            )
        )  # fmt: skip

    def _add_plain(self, source: int, shape: Shape, out: int) -> None:
        self.steps.append(_Step(_PLAIN, source, shape, out, shape))

    def _add_anchor_regression(self, index: int, layer: dict[str, Any]) -> None:
        shape = self.shapes[layer["input"]]
        source = self._map(layer["input"])
        if layer["input"] not in self.plain:
            plain = self._new_buffer(shape, plain=True)
            self._add_plain(source, shape, plain)
            source = plain
        self.steps.append(_Step(_ANCHORS, source, shape, _OUTPUT, self.shapes[index]))

    # ---- memory ----

    def _place_buffers(self) -> int:
        """Replaces buffers by offsets, first fit by lifetime; the chunks of a frame."""
        born: dict[int, int] = {}
        dies: dict[int, int] = {}
        for time, step in enumerate(self.steps):
            if step.out >= 0:
                born[step.out] = time
            for buffer in (step.out, step.residual, step.source):
                if buffer >= 0 and not (step.kind == _INPUT and buffer is step.source):
                    dies[buffer] = time
        offsets: dict[int, int] = {}
        for buffer, size in enumerate(self.chunks):
            others = sorted(
                (offsets[other], offsets[other] + self.chunks[other])
                for other in offsets
                if born[other] <= dies[buffer] and born[buffer] <= dies[other]
            )
            offset = 0
            for begin, end in others:
                if offset < end and begin < offset + size:
                    offset = end
            offsets[buffer] = offset
        for step in self.steps:
            step.source = 0 if step.kind == _INPUT else offsets[step.source]
            step.out = offsets.get(step.out, step.out)
            step.residual = offsets.get(step.residual, step.residual)
        return max(offset + self.chunks[buffer] for buffer, offset in offsets.items())

    def _pack(self, data: bytes) -> int:
        """The chunk where `data` begin among the weights."""
        offset = len(self.packed) // _CHUNK
        self.packed += data + bytes(-len(data) % _CHUNK)
        return offset

    def _weight(self, layer: dict[str, Any]) -> Tensor:
        array = self.graph.tensors[layer["weight"]]
        if array.dtype != np.float32:
            raise ValueError(
                f"a network on a GPU must have weights of float32, got {array.dtype}; "
                "make it from the module, or from a file of float32 or bfloat16"
            )
        return torch.from_numpy(array)

    def _pack_weight(self, weight: Tensor) -> int:
        """[O, C, kh, kw] as [O][kh][kw][C padded to whole chunks]."""
        padded = torch.nn.functional.pad(
            weight.permute(0, 2, 3, 1), (0, -weight.shape[1] % self.values)
        )
        cast = padded.to(self.dtype).contiguous()
        if bool(weight.isfinite().all()) and not bool(cast.isfinite().all()):
            raise ValueError(f"weights must be finite in {self.precision}: use bfloat16 or float32")
        return self._pack(cast.view(torch.uint8).numpy().tobytes())

    def _pack_bias(self, layer: dict[str, Any]) -> int:
        bias = self.graph.tensors[layer["bias"]].astype(np.float32)
        return self._pack(np.pad(bias, (0, -len(bias) % 8)).tobytes())


def _pair(values: list[int]) -> Pair:
    return values[0], values[1]


def _bits(slope: float) -> int:
    return int.from_bytes(struct.pack("<f", slope), "little")
