"""A float32 `Graph` as one of lower precision: how each map is stored, and int8 weights.

The output, and what anchor regression reads, stay float32.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dgpose_ext.hand_net.graph import Graph, readers
from dgpose_ext.hand_net.reference import channel_scale, run_graph

_CHUNK = 32
"""Crops that are calibrated at a time."""

_LEAST_SHARE = 1 / 256
"""A channel counts as having at least this share of its map's range: dead ones have none."""


def to_bfloat16(graph: Graph) -> Graph:
    """The graph with maps and weights of bfloat16; sums stay float32."""
    graph = _fold_input(graph, channels_per_word=2)
    for index in _narrowed(graph):
        graph.layers[index]["element"] = "bfloat16"
    return graph


def to_int8(graph: Graph, crops: Iterable[Tensor]) -> Graph:
    """The graph with maps of uint8 and weights of int8; sums are int32.

    A map has one zero point and a scale per channel: the geometric mean of the channel's own range
    and its map's, over the calibration crops. The channel's own would be finest for the map, but
    makes the weights of the next layer, which the scales are multiplied into, uneven. Weights have
    a scale per output channel.

    Args:
        crops: batches [N, *graph.input_shape] float32.
    """
    graph = _fold_input(graph, channels_per_word=4)
    lowest, highest = _ranges(graph, crops)
    for index in _narrowed(graph):
        layer = graph.layers[index]
        low, high = lowest[index].clamp(max=0.0), highest[index].clamp(min=0.0)
        zero_point = _zero_point(float(low.min()), float(high.max()))
        below = -low / zero_point if zero_point > 0 else torch.zeros_like(low)
        steps = torch.maximum(high / (255 - zero_point), below)
        largest = steps.max() if steps.max() > 0 else torch.ones(())
        if layer["kind"] == "input":  # the engine reads all its channels with one scale
            steps = largest.expand_as(steps)
        scale = steps.clamp(min=float(largest) * _LEAST_SHARE).sqrt() * largest.sqrt()
        name = f"{index}.scale"
        graph.tensors[name] = scale.numpy()
        layer.update(element="uint8", scale=name, zero_point=zero_point)
    for layer in graph.layers:
        if "weight" in layer and graph.layers[layer["input"]].get("element") == "uint8":
            _quantise_weights(graph, layer)
    graph.drop_unused_tensors()
    return graph


def _quantise_weights(graph: Graph, layer: dict[str, Any]) -> None:
    """Codes times the layer's `weight_scale` are the weights of its input's codes."""
    weight = torch.from_numpy(graph.tensors[layer["weight"]]).double()
    if not torch.isfinite(weight).all():
        raise ValueError(f"weights must be finite for int8, those of a {layer['kind']} are not")
    units = channel_scale(graph, graph.layers[layer["input"]])
    per_code = weight.reshape(len(weight), units.shape[1], -1, 1) * units
    step = (per_code.flatten(1).abs().amax(1) / 127).clamp(min=1e-30).float()
    codes = (per_code / step.double().reshape(-1, 1, 1, 1)).round().clamp(-127, 127)
    name = layer["weight"]
    graph.tensors[f"{name}.codes"] = codes.reshape(weight.shape).to(torch.int8).numpy()
    graph.tensors[f"{name}.scale"] = step.numpy()
    layer.update(weight=f"{name}.codes", weight_scale=f"{name}.scale")


def _zero_point(low: float, high: float) -> int:
    if low == 0:
        return 0
    return min(max(round(255 * -low / (high - low)), 1), 254)


def _narrowed(graph: Graph) -> list[int]:
    """The maps that are stored in the lower precision."""
    return [
        index
        for index in range(len(graph.layers) - 1)
        if all(reader["kind"] != "anchor_regression" for reader in readers(graph, index))
    ]


def _ranges(graph: Graph, crops: Iterable[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
    """Lowest and highest value of each channel of each map."""
    lowest: list[Tensor] = []
    highest: list[Tensor] = []
    for batch in crops:
        for chunk in torch.split(batch, _CHUNK):
            with torch.no_grad():
                channels = [m.transpose(0, 1).flatten(1) for m in run_graph(graph, chunk)]
            low, high = [c.amin(1) for c in channels], [c.amax(1) for c in channels]
            lowest = list(map(torch.minimum, lowest, low)) if lowest else low
            highest = list(map(torch.maximum, highest, high)) if highest else high
    return lowest, highest


def _fold_input(graph: Graph, channels_per_word: int) -> Graph:
    """A copy in which convolutions that step over an input of few channels read it with their
    stride folded into channels, where the engine then multiplies fewer words."""
    graph = copy.deepcopy(graph)
    for layer in graph.layers:
        if layer["kind"] != "conv":
            continue
        source, stride = graph.layers[layer["input"]], layer["stride"][0]
        channels, *size = graph.input_shape
        if (
            source["kind"] != "input"
            or source["unshuffle"] != 1
            or len(readers(graph, layer["input"])) != 1
            or layer["stride"] != [stride, stride]
            or layer["dilation"] != [1, 1]
            or any(n % stride for n in size)
        ):
            continue
        weight = graph.tensors[layer["weight"]]
        kernel, padding = weight.shape[2:], layer["padding"]
        # Zeros before and after the filter bring it to whole steps.
        around = [-(-p // stride) for p in padding]
        before = [a * stride - p for a, p in zip(around, padding, strict=True)]
        steps = [
            2 * a - (2 * p - k) // stride for a, p, k in zip(around, padding, kernel, strict=True)
        ]
        folded_channels = channels * stride * stride
        words = steps[0] * steps[1] * -(-folded_channels // channels_per_word)
        if words >= kernel[0] * kernel[1] * -(-channels // channels_per_word):
            continue
        filters = np.zeros((len(weight), channels, *(n * stride for n in steps)), np.float32)
        rows, columns = (slice(b, b + k) for b, k in zip(before, kernel, strict=True))
        filters[:, :, rows, columns] = weight
        folded = torch.nn.functional.pixel_unshuffle(torch.from_numpy(filters), stride)
        graph.tensors[layer["weight"]] = folded.contiguous().numpy()
        layer.update(stride=[1, 1], padding=around)
        source["unshuffle"] = stride
    return graph
