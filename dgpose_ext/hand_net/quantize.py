"""A float32 `Graph` as one of lower precision: how each map is stored, and int8 weights."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dgpose_ext.hand_net.graph import Graph
from dgpose_ext.hand_net.reference import channel_scale, run_graph

_CHUNK = 32


def to_bfloat16(graph: Graph) -> Graph:
    """All maps but the last ones (see `_stays_float32`) as bfloat16."""
    graph = copy.deepcopy(graph)
    for index, layer in enumerate(graph.layers):
        if not _stays_float32(graph, index):
            layer["element"] = "bfloat16"
    return graph


def to_int8(graph: Graph, crops: Tensor) -> Graph:
    graph = copy.deepcopy(graph)
    fold_input(graph)
    lowest, highest = _ranges(graph, crops)
    for index, layer in enumerate(graph.layers):
        if _stays_float32(graph, index):
            continue
        low, high = lowest[index].clamp(max=0), highest[index].clamp(min=0)
        layer["element"] = "uint8"
        if layer["kind"] == "input":
            low, high = low.min().expand_as(low), high.max().expand_as(high)
        if layer.get("slope") == 0.0 or float(low.min()) == 0:
            layer["zero_point"] = 0
            scale = high / 255
        else:
            layer["zero_point"] = 128
            scale = torch.maximum(high / 127, -low / 128)
        scale = scale.clamp(min=float(scale.max()) / 256).clamp(min=1e-20)
        name = f"{index}.scale"
        graph.tensors[name] = scale.float().numpy()
        layer["scale"] = name
    for layer in graph.layers:
        if layer["kind"] not in ("conv", "linear"):
            continue
        source = graph.layers[layer["input"]]
        if source.get("element") != "uint8":
            continue
        weight = torch.from_numpy(graph.tensors[layer["weight"]]).double()
        unit = channel_scale(graph, source).reshape(-1)
        if layer["kind"] == "linear":
            scaled = weight.reshape(weight.shape[0], unit.numel(), -1) * unit.reshape(1, -1, 1)
            scaled = scaled.reshape(weight.shape)
        else:
            scaled = weight * unit.reshape(1, -1, 1, 1)
        step = scaled.flatten(1).abs().amax(1).clamp(min=1e-20) / 127
        step = step.float().double()
        codes = (scaled / step.reshape(-1, *[1] * (weight.dim() - 1))).round().clamp(-127, 127)
        name = layer["weight"].replace("weight", "codes")
        graph.tensors[name] = codes.to(torch.int8).numpy()
        graph.tensors[name + "_scale"] = step.float().numpy()
        layer["weight"], layer["weight_scale"] = name, name + "_scale"
    _drop_unused(graph)
    return graph


def _stays_float32(graph: Graph, index: int) -> bool:
    """The output, and what the anchors read."""
    readers = [r for r in graph.layers if index in (r.get("input"), r.get("a"), r.get("b"), r.get("residual"))]
    return index + 1 == len(graph.layers) or any(r["kind"] == "anchor_regression" for r in readers)


def fold_input(graph: Graph) -> None:
    """A convolution of stride s on an input of few channels becomes one of stride 1 on the input
    with s x s pixels folded into channels."""
    for layer in graph.layers:
        if layer["kind"] != "conv":
            continue
        source = graph.layers[layer["input"]]
        s = layer["stride"][0]
        c, height, width = graph.input_shape
        if (
            source["kind"] != "input" or source["unshuffle"] != 1 or c * s * s > 16 or s not in (2, 4)
            or layer["stride"] != [s, s] or layer["dilation"] != [1, 1] or height % s or width % s
            or sum(layer["input"] in (r.get("input"), r.get("a"), r.get("b"), r.get("residual")) for r in graph.layers) > 1
        ):
            continue
        weight = graph.tensors[layer["weight"]]
        out, _, kh, kw = weight.shape
        pads = [-(-p // s) for p in layer["padding"]]
        lead = [q * s - p for q, p in zip(pads, layer["padding"], strict=True)]
        size = [-(-(k + l) // s) for k, l in zip((kh, kw), lead, strict=True)]
        full = np.zeros((out, c, size[0] * s, size[1] * s), np.float32)
        full[:, :, lead[0] : lead[0] + kh, lead[1] : lead[1] + kw] = weight
        folded = full.reshape(out, c, size[0], s, size[1], s).transpose(0, 1, 3, 5, 2, 4)
        graph.tensors[layer["weight"]] = np.ascontiguousarray(folded.reshape(out, c * s * s, *size))
        layer["stride"], layer["padding"] = [1, 1], pads
        source["unshuffle"] = s


def _ranges(graph: Graph, crops: Tensor) -> tuple[list[Tensor], list[Tensor]]:
    lowest: list[Tensor] = []
    highest: list[Tensor] = []
    for begin in range(0, len(crops), _CHUNK):
        with torch.no_grad():
            maps = run_graph(graph, crops[begin : begin + _CHUNK])
        low = [m.transpose(0, 1).flatten(1).amin(1) for m in maps]
        high = [m.transpose(0, 1).flatten(1).amax(1) for m in maps]
        lowest = [torch.minimum(a, b) for a, b in zip(lowest, low)] if lowest else low
        highest = [torch.maximum(a, b) for a, b in zip(highest, high)] if highest else high
    return lowest, highest


def _drop_unused(graph: Graph) -> None:
    used: set[Any] = set()
    for layer in graph.layers:
        used.update(layer.get(k) for k in ("weight", "bias", "scale", "weight_scale"))
    graph.tensors = {k: v for k, v in graph.tensors.items() if k in used}
