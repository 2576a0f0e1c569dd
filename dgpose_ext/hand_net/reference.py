"""What a `Graph` means, in torch: the oracle of HandNet's tests, and what calibration runs.

Maps of float32 are computed in float32, those of bfloat16 are rounded to it. Maps of uint8 hold
codes, and each operation is rounded as the engine rounds it: they have the bits of the engine's.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from dgpose_ext.hand_net.graph import Graph
from dgpose_ext.hand_net.layers import AnchorRegression

Layer = dict[str, Any]


def run_graph(graph: Graph, crops: Tensor) -> list[Tensor]:
    """The map of every layer, [B, C, H, W] float32 ([B, J, 3] of the anchors); codes 0..255 where
    it is stored as uint8.

    Args:
        crops: [B, *graph.input_shape] float32.
    """
    maps: list[Tensor] = []
    for layer in graph.layers:
        maps.append(_Step(graph, layer, maps, crops).run())
    return maps


def real_values(graph: Graph, index: int, stored: Tensor) -> Tensor:
    """Map `index` as `run_graph` gives it, in real numbers."""
    layer = graph.layers[index]
    real: Tensor = (stored - layer.get("zero_point", 0)) * channel_scale(graph, layer)
    return real.float()


def channel_scale(graph: Graph, layer: Layer) -> Tensor:
    """What one element of the layer's map stands for: [1, C, 1, 1] float64 (1 but for uint8)."""
    if "scale" not in layer:
        return torch.ones(1, 1, 1, 1, dtype=torch.float64)
    return torch.from_numpy(graph.tensors[layer["scale"]]).double().reshape(1, -1, 1, 1)


class _Step:
    """One layer on the maps before it."""

    def __init__(self, graph: Graph, layer: Layer, maps: list[Tensor], crops: Tensor) -> None:
        self.graph = graph
        self.layer = layer
        self.maps = maps
        self.crops = crops

    def run(self) -> Tensor:
        kind = self.layer["kind"]
        result: Tensor = getattr(self, f"_{kind}")()
        return result

    def _input(self) -> Tensor:
        return self._store(F.pixel_unshuffle(self.crops, self.layer["unshuffle"]))

    def _conv(self) -> Tensor:
        layer = self.layer
        stride, padding, dilation = layer["stride"], layer["padding"], layer["dilation"]
        return self._weighted(
            lambda x, weight, bias: F.conv2d(x, weight, bias, stride, padding, dilation)
        )

    def _linear(self) -> Tensor:
        return self._weighted(lambda x, w, b: F.linear(x.flatten(1), w, b)[:, :, None, None])

    def _weighted(self, product: Callable[[Tensor, Tensor, Tensor | None], Tensor]) -> Tensor:
        layer = self.layer
        source, x = self.graph.layers[layer["input"]], self.maps[layer["input"]]
        weight, bias = self._tensor("weight"), self._tensor("bias")
        residual = layer.get("residual")
        if weight.dtype == torch.int8:  # float64 holds sums of integers exactly
            sums = product((x - source["zero_point"]).double(), weight.double(), None).float()
            unit, offset = (
                values.double().reshape(1, -1, 1, 1)
                for values in (self._tensor("weight_scale"), bias)
            )
            return self._store(sums, unit, offset, residual)
        if source.get("element") == "bfloat16":
            weight = weight.bfloat16().float()
        return self._store(product(x, weight, bias), residual=residual)

    def _pool(self) -> Tensor:
        layer = self.layer
        source = self.graph.layers[layer["input"]]
        x = self.maps[layer["input"]] - source.get("zero_point", 0)
        rows = []
        for top, bottom in zip(*layer["rows"], strict=True):
            cells = []
            for left, right in zip(*layer["columns"], strict=True):
                window = x[:, :, top:bottom, left:right].flatten(2)
                if layer["pool"] == "max":
                    cells.append(window.amax(2))
                else:
                    area = layer["divisor"] or (bottom - top) * (right - left)
                    cells.append(window.sum(2) * (torch.tensor(1.0) / area))
            rows.append(torch.stack(cells, 2))
        return self._store(torch.stack(rows, 2), channel_scale(self.graph, source))

    def _sum(self) -> Tensor:
        source, factor = self.graph.layers[self.layer["b"]], self.layer["upsample"]
        unit = channel_scale(self.graph, source)
        b = self.maps[self.layer["b"]].repeat_interleave(factor, 2).repeat_interleave(factor, 3)
        return self._store(b, unit, -source.get("zero_point", 0) * unit, self.layer["a"])

    def _anchor_regression(self) -> Tensor:
        maps = self.maps[self.layer["input"]]
        result: Tensor = AnchorRegression(maps.shape[1] // 4)(maps)
        return result

    # ---- helpers ----

    def _tensor(self, name: str) -> Tensor:
        return torch.from_numpy(self.graph.tensors[self.layer[name]])

    def _store(
        self,
        elements: Tensor,
        unit: Tensor | float = 1.0,
        offset: Tensor | float = 0.0,
        residual: int | None = None,
    ) -> Tensor:
        """What is stored for elements * unit + offset [+ residual] after the activation; unit and
        offset in real numbers."""
        layer = self.layer
        slope, element = layer.get("slope", 1.0), layer.get("element", "float32")
        scale, zero = channel_scale(self.graph, layer), float(layer.get("zero_point", 0))
        folded = slope in (0.0, 1.0)  # then the zero point is part of the offset
        added = None
        if residual is not None:
            other = self.graph.layers[residual]
            other_unit = channel_scale(self.graph, other)
            offset = offset - other.get("zero_point", 0) * other_unit
            added = self.maps[residual] * (other_unit / scale).float()
        value = elements * (unit / scale).float()
        value = value + (offset / scale + (zero if folded else 0.0)).float()
        if added is not None:
            value = value + added
        if element != "uint8":
            value = _activate(value, slope)
            return value.bfloat16().float() if element == "bfloat16" else value
        if not folded:
            value = _activate(value, slope) + zero
        return value.clamp(zero if slope == 0.0 else 0.0, 255.0).round()


def _activate(value: Tensor, slope: float) -> Tensor:
    return value if slope == 1.0 else torch.where(value >= 0, value, value * slope)
