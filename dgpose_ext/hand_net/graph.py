"""From a torch module to the list of fused layers that HandNet runs.

A `Graph` is plain data: it is what `HandNet.save` writes (JSON + tensors), and nothing in it
depends on torch.export or on the machine.
"""

from __future__ import annotations

import copy
import operator
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, fx, nn
from torch.export.graph_signature import InputKind

from dgpose_ext.hand_net.layers import AnchorRegression

KNOWN_LAYERS = (
    "conv2d (groups=1), batch_norm after a conv2d or linear, relu, leaky_relu, add, max_pool2d, "
    "avg_pool2d, adaptive_avg_pool2d, mean over [2, 3], linear, slices and repetitions of its "
    "features, flatten/view, clone, pixel_unshuffle of the input, nearest upsampling by a whole "
    "factor, dropout, AnchorRegression as the last layer"
)


_READS = ("input", "residual", "a", "b")
"""The keys of a layer that name a map."""
_NAMES = ("weight", "bias", "scale", "weight_scale")
"""The keys of a layer that name a tensor."""


@dataclass
class Graph:
    """Fused layers in the order they run. Layer i makes map i; the last one is the output.

    Each layer is a dict of JSON values; `kind` is one of

    - input: `unshuffle`
    - conv: `input`, `weight`, `bias` (names in `tensors`), `stride`, `padding`, `dilation`,
      `slope`, `residual` (a map that is added before the activation, or None)
    - linear: `input`, `weight`, `bias`, `slope`
    - pool: `input`, `pool` ("max" | "average"), `rows`, `columns` (lists of begins and of ends),
      `divisor` (0: the window's size)
    - sum: `a` (or None), `b`, `upsample` (of b), `slope`
    - anchor_regression: `input`

    `slope` is the activation: 1 none, 0 ReLU, else LeakyReLU's negative slope.

    A map is stored as the layer's `element`: "float32" where none is named, "bfloat16", or "uint8"
    with `scale` (a name in `tensors`, one number per channel) and `zero_point`:
    value = scale * (code - zero_point). A conv or linear that reads uint8 has a `weight` of int8
    and a `weight_scale` (a name):
    sum over i of weight_scale[o] * weight[o, i] * (code[i] - zero_point).
    """

    input_shape: tuple[int, int, int]
    output_shape: tuple[int, ...] = ()
    layers: list[dict[str, Any]] = field(default_factory=list)
    tensors: dict[str, NDArray[Any]] = field(default_factory=dict)

    def drop_unused_tensors(self) -> None:
        """Forgets the tensors that no layer names."""
        used = {layer.get(key) for layer in self.layers for key in _NAMES}
        self.tensors = {name: value for name, value in self.tensors.items() if name in used}


def readers(graph: Graph, index: int) -> list[dict[str, Any]]:
    """The layers that read map `index`."""
    return [layer for layer in graph.layers if index in [layer.get(key) for key in _READS]]


@dataclass
class _Value:
    """What an fx node stands for: a map, read under a logical shape (without the batch axis)."""

    map: int
    shape: tuple[int, ...]


def import_module(module: nn.Module, input_shape: tuple[int, int, int]) -> Graph:
    """Exports `module` (a copy of it, in eval mode) and fuses it into a Graph.

    Raises:
        ValueError: a layer that HandNet does not run, named with its module path.
    """
    module = copy.deepcopy(module).eval().to(device="cpu", dtype=torch.float32)
    with torch.no_grad():
        program = torch.export.export(module, (torch.zeros(1, *input_shape),))
    return _Importer(program, input_shape).graph


class _Importer:
    def __init__(
        self, program: torch.export.ExportedProgram, input_shape: tuple[int, int, int]
    ) -> None:
        self.graph = Graph(input_shape)
        self.values: dict[fx.Node, Any] = {}
        self.input_maps: dict[int, int] = {}  # unshuffle factor -> map
        self.input_node: fx.Node | None = None
        self.sliced: set[int] = set()  # maps of which others are slices, and these slices
        self._load_inputs(program)
        for node in program.graph.nodes:
            if node.op == "call_function":
                self._import_node(node)
            elif node.op == "output":
                self._import_output(node)

    # ---- the frame ----

    def _load_inputs(self, program: torch.export.ExportedProgram) -> None:
        nodes = {node.name: node for node in program.graph.nodes if node.op == "placeholder"}
        users = []
        for spec in program.graph_signature.input_specs:
            node = nodes[spec.arg.name]
            if spec.kind == InputKind.USER_INPUT:
                users.append(node)
            elif spec.target in program.state_dict:
                self.values[node] = program.state_dict[spec.target].detach()
            else:
                self.values[node] = program.constants[str(spec.target)]
        if len(users) != 1:
            raise ValueError(f"module must take one input [B, C, H, W], got {len(users)} inputs")
        self.input_node = users[0]

    def _import_node(self, node: fx.Node) -> None:
        anchor = _anchor_path(node)
        if anchor is not None:
            self._import_anchor_node(node, anchor)
            return
        target = node.target
        if target is operator.getitem or target not in _HANDLERS:
            raise ValueError(
                f"HandNet does not run {_op_name(node)} in module {_path(node)!r}; "
                f"it runs {KNOWN_LAYERS}"
            )
        value = _HANDLERS[target](self, node)
        self.values[node] = value
        if _op_name(node).endswith("_"):  # in place: who reads the old node sees the new value now
            old = self.value(node.args[0], node).map
            if self.graph.layers[old]["kind"] == "input":
                raise ValueError(
                    f"HandNet does not change its input: {_op_name(node)} in module "
                    f"{_path(node)!r} must not work in place"
                )
            if old in self.sliced:
                raise ValueError(
                    f"HandNet does not change slices: {_op_name(node)} in module "
                    f"{_path(node)!r} must not work in place"
                )
            for other, seen in self.values.items():
                if isinstance(seen, _Value) and seen.map == old:
                    self.values[other] = _Value(value.map, seen.shape)

    def _import_anchor_node(self, node: fx.Node, path: str) -> None:
        # The whole module is one layer: it reads the one map that comes from outside, and its last
        # node (stack) is its result.
        outside = [a for a in node.all_input_nodes if _anchor_path(a) != path]
        if outside:
            value = self.value(outside[0], node)
            self.append({"kind": "anchor_regression", "input": self.full_map(value, node)})
        if any(_anchor_path(user) != path for user in node.users):
            self.values[node] = _Value(len(self.graph.layers) - 1, _shape(node))

    def _import_output(self, node: fx.Node) -> None:
        results = node.args[0]
        if not isinstance(results, (tuple, list)) or len(results) != 1:
            raise ValueError("module must return one tensor")
        result: Any = results[0]
        value = self.values.get(result)
        if not isinstance(value, _Value):
            raise ValueError("module must return a tensor that depends on its input")
        self.graph.output_shape = value.shape
        self._keep_ancestors(value.map)

    def _keep_ancestors(self, output: int) -> None:
        """Drops the layers that the output does not depend on: torch.export keeps them."""
        layers = self.graph.layers
        needed = {output}
        for index in range(output, -1, -1):
            if index in needed:
                needed.update(layers[index][key] for key in _READS if key in layers[index])
        needed.discard(None)
        renamed = {old: new for new, old in enumerate(sorted(needed))}
        self.graph.layers = [layers[old] for old in renamed]
        for layer in self.graph.layers:
            for key in _READS:
                if layer.get(key) is not None:
                    layer[key] = renamed[layer[key]]
        self.graph.drop_unused_tensors()

    # ---- helpers of the handlers ----

    def append(self, layer: dict[str, Any]) -> int:
        self.graph.layers.append(layer)
        return len(self.graph.layers) - 1

    def keep(self, name: str, tensor: Tensor) -> str:
        name = f"{len(self.graph.layers)}.{name}"
        self.graph.tensors[name] = np.ascontiguousarray(tensor.numpy(), dtype=np.float32)
        return name

    def value(self, node: Any, user: fx.Node) -> _Value:
        if node is self.input_node:
            return _Value(self.input_map(1), self.graph.input_shape)
        value = self.values.get(node) if isinstance(node, fx.Node) else None
        if not isinstance(value, _Value):
            raise ValueError(
                f"{_op_name(user)} in module {_path(user)!r} must read a map of the network"
            )
        return value

    def input_map(self, unshuffle: int) -> int:
        if unshuffle not in self.input_maps:
            self.input_maps[unshuffle] = self.append({"kind": "input", "unshuffle": unshuffle})
        return self.input_maps[unshuffle]

    def full_map(self, value: _Value, user: fx.Node) -> int:
        """The map of a value that still has its [C, H, W]."""
        if len(value.shape) != 3:
            raise ValueError(
                f"{_op_name(user)} in module {_path(user)!r} must read a map [B, C, H, W], "
                f"got [B, {', '.join(map(str, value.shape))}]"
            )
        return value.map

    def fusable(self, value: _Value, kinds: tuple[str, ...]) -> dict[str, Any] | None:
        """The layer that makes `value`, if it has one reader and no activation yet."""
        layer = self.graph.layers[value.map]
        if layer["kind"] not in kinds or layer["slope"] != 1.0:
            return None
        # Views and folded layers share the map: a fork at any of them is another reader.
        names = [n for n, v in self.values.items() if isinstance(v, _Value) and v.map == value.map]
        return layer if all(len(node.users) == 1 for node in names) else None

    def constant(self, node: Any, user: fx.Node) -> Tensor:
        value = self.values.get(node)
        if not isinstance(value, Tensor):
            raise ValueError(f"{_op_name(user)} in module {_path(user)!r} must have fixed weights")
        return value


# ---- one handler per op: importer, node -> _Value ----


def _pair(value: Any) -> list[int]:
    pair = list(value) if isinstance(value, (tuple, list)) else [value]
    return [int(x) for x in (pair * 2 if len(pair) == 1 else pair)]


def _conv2d(self: _Importer, node: fx.Node) -> _Value:
    a = _arguments(node, "input weight bias stride padding dilation groups")
    if a["groups"] != 1:
        raise ValueError(
            f"HandNet does not run conv2d with groups={a['groups']} in module {_path(node)!r}"
        )
    source = self.full_map(self.value(a["input"], node), node)
    weight = self.constant(a["weight"], node)
    bias = weight.new_zeros(weight.shape[0])
    if a["bias"] is not None:
        bias = self.constant(a["bias"], node)
    padding = a["padding"]
    if isinstance(padding, str):  # "same" and "valid" of aten.conv2d.padding
        reach = [d * (k - 1) for d, k in zip(_pair(a["dilation"]), weight.shape[2:], strict=True)]
        if padding == "same" and any(r % 2 for r in reach):
            raise ValueError(
                f"HandNet does not run padding='same' with an even kernel in {_path(node)!r}"
            )
        padding = [r // 2 for r in reach] if padding == "same" else [0, 0]
    layer = {
        "kind": "conv",
        "input": source,
        "weight": self.keep("weight", weight),
        "bias": self.keep("bias", bias),
        "stride": _pair(a["stride"]),
        "padding": _pair(padding),
        "dilation": _pair(a["dilation"]),
        "slope": 1.0,
        "residual": None,
    }
    return _Value(self.append(layer), _shape(node))


def _linear(self: _Importer, node: fx.Node) -> _Value:
    a = _arguments(node, "input weight bias")
    value = self.value(a["input"], node)
    if len(value.shape) != 1:
        raise ValueError(
            f"linear in module {_path(node)!r} must read features [B, N], "
            f"got [B, {', '.join(map(str, value.shape))}]"
        )
    weight = self.constant(a["weight"], node)
    bias = weight.new_zeros(weight.shape[0])
    if a["bias"] is not None:
        bias = self.constant(a["bias"], node)
    layer = {
        "kind": "linear",
        "input": value.map,
        "weight": self.keep("weight", weight),
        "bias": self.keep("bias", bias),
        "slope": 1.0,
    }
    return _Value(self.append(layer), _shape(node))


def _features_of_linear(
    self: _Importer, node: fx.Node, choose: Callable[[Tensor], Tensor]
) -> _Value:
    """Some of a linear layer's features are a linear layer with some of its weights."""
    value = self.value(node.args[0], node)
    layer = self.graph.layers[value.map]
    if layer["kind"] != "linear" or len(value.shape) != 1:
        raise ValueError(
            f"HandNet runs {_op_name(node)} on the features [B, N] of a linear layer only, "
            f"not in module {_path(node)!r}"
        )
    chosen = choose(torch.arange(value.shape[0])).numpy()
    tensors = self.graph.tensors
    part = {
        **layer,
        "weight": self.keep("weight", torch.from_numpy(tensors[layer["weight"]][chosen])),
        "bias": self.keep("bias", torch.from_numpy(tensors[layer["bias"]][chosen])),
    }
    part_map = self.append(part)
    self.sliced.update((value.map, part_map))
    return _Value(part_map, _shape(node))


def _slice(self: _Importer, node: fx.Node) -> _Value:
    a = _arguments(node, "dim start end step")
    whole_batch = a["start"] in (None, 0) and a["step"] == 1
    if a["dim"] == 0 and whole_batch and (a["end"] is None or a["end"] >= 2**31):
        return self.value(node.args[0], node)
    if a["dim"] not in (1, -1):
        raise ValueError(f"HandNet slices features only, not in module {_path(node)!r}")
    return _features_of_linear(self, node, lambda i: i[a["start"] : a["end"] : a["step"]])


def _repeat(self: _Importer, node: fx.Node) -> _Value:
    repeats = list(_arguments(node, "repeats")["repeats"])
    if len(repeats) != 2 or repeats[0] != 1:
        raise ValueError(f"HandNet repeats features only, not in module {_path(node)!r}")
    return _features_of_linear(self, node, lambda i: i.repeat(repeats[1]))


def _batch_norm(self: _Importer, node: fx.Node) -> _Value:
    a = _arguments(node, "input weight bias running_mean running_var training momentum eps")
    value = self.value(a["input"], node)
    layer = self.fusable(value, ("conv", "linear"))
    if layer is None or layer.get("residual") is not None or a["training"]:
        raise ValueError(
            f"HandNet folds batch_norm into the conv2d or linear right before it; "
            f"module {_path(node)!r} does not follow one"
        )
    mean, variance = (self.constant(a[k], node) for k in ("running_mean", "running_var"))
    scale = torch.rsqrt(variance.double() + a["eps"])
    if a["weight"] is not None:
        scale = scale * self.constant(a["weight"], node).double()
    tensors = self.graph.tensors
    weight = torch.from_numpy(tensors[layer["weight"]]).double()
    bias = (torch.from_numpy(tensors[layer["bias"]]).double() - mean.double()) * scale
    if a["bias"] is not None:
        bias = bias + self.constant(a["bias"], node).double()
    weight = weight * scale.reshape(-1, *[1] * (weight.dim() - 1))
    tensors[layer["weight"]] = weight.float().numpy()
    tensors[layer["bias"]] = bias.float().numpy()
    return value


def _activation(self: _Importer, node: fx.Node, source: Any, slope: float) -> _Value:
    value = self.value(source, node)
    layer = self.fusable(value, ("conv", "linear", "sum"))
    if layer is not None:
        layer["slope"] = slope
        return value
    return _Value(
        self.append({"kind": "sum", "a": None, "b": value.map, "upsample": 1, "slope": slope}),
        value.shape,
    )


def _relu(self: _Importer, node: fx.Node) -> _Value:
    return _activation(self, node, node.args[0], 0.0)


def _leaky_relu(self: _Importer, node: fx.Node) -> _Value:
    a = _arguments(node, "self negative_slope")
    return _activation(self, node, a["self"], float(a["negative_slope"]))


def _add(self: _Importer, node: fx.Node) -> _Value:
    a = _arguments(node, "self other alpha")
    if a["alpha"] != 1:
        raise ValueError(f"HandNet does not run add with alpha in module {_path(node)!r}")
    left, right = self.value(a["self"], node), self.value(a["other"], node)
    if left.shape != right.shape:
        raise ValueError(
            f"add in module {_path(node)!r} must have terms of one shape, "
            f"got {list(left.shape)} and {list(right.shape)}"
        )
    if left.map != right.map:
        # The later term takes the earlier one in: an enlarged map is added while it is read, and a
        # convolution adds what was there before it.
        first, last = sorted((left, right), key=lambda value: value.map)
        for kind, field_name in (("sum", "a"), ("conv", "residual")):
            layer = self.fusable(last, (kind,))
            if layer is not None and layer[field_name] is None:
                layer[field_name] = first.map
                return last
    layer = {"kind": "sum", "a": left.map, "b": right.map, "upsample": 1, "slope": 1.0}
    return _Value(self.append(layer), left.shape)


def _upsample(self: _Importer, node: fx.Node) -> _Value:
    value = self.value(node.args[0], node)
    source = self.full_map(value, node)
    shape = _shape(node)
    factor = shape[1] // value.shape[1]
    if (value.shape[1] * factor, value.shape[2] * factor) != shape[1:]:
        raise ValueError(
            f"HandNet enlarges by one whole factor; module {_path(node)!r} goes from "
            f"{list(value.shape[1:])} to {list(shape[1:])}"
        )
    layer = {"kind": "sum", "a": None, "b": source, "upsample": factor, "slope": 1.0}
    return _Value(self.append(layer), shape)


def _pixel_unshuffle(self: _Importer, node: fx.Node) -> _Value:
    a = _arguments(node, "self downscale_factor")
    if a["self"] is not self.input_node:
        raise ValueError(
            f"HandNet runs pixel_unshuffle on the input only, not in module {_path(node)!r}"
        )
    return _Value(self.input_map(int(a["downscale_factor"])), _shape(node))


def _window_lists(
    size: int, out: int, kernel: int, stride: int, padding: int, dilation: int = 1
) -> list[list[int]]:
    begin = [max(i * stride - padding, 0) for i in range(out)]
    end = [min(i * stride - padding + dilation * (kernel - 1) + 1, size) for i in range(out)]
    return [begin, end]


def _pool(self: _Importer, node: fx.Node, kind: str, a: dict[str, Any]) -> _Value:
    value = self.value(node.args[0], node)
    source = self.full_map(value, node)
    shape = _shape(node)
    kernel, padding = _pair(a["kernel_size"]), _pair(a["padding"])
    stride = _pair(a["stride"]) if a["stride"] else kernel
    rows, columns = (
        _window_lists(value.shape[1 + i], shape[1 + i], kernel[i], stride[i], padding[i])
        for i in (0, 1)
    )
    divisor = 0
    if kind == "average":
        if a["divisor_override"] is not None:
            divisor = int(a["divisor_override"])
        elif a["count_include_pad"] and any(padding):
            divisor = kernel[0] * kernel[1]
            if a["ceil_mode"]:
                raise ValueError(
                    "HandNet does not run avg_pool2d with padding and ceil_mode "
                    f"in module {_path(node)!r}"
                )
    layer = {
        "kind": "pool",
        "input": source,
        "pool": kind,
        "rows": rows,
        "columns": columns,
        "divisor": divisor,
    }
    return _Value(self.append(layer), shape)


def _max_pool2d(self: _Importer, node: fx.Node) -> _Value:
    a = _arguments(node, "self kernel_size stride padding dilation ceil_mode")
    if _pair(a["dilation"]) != [1, 1]:
        raise ValueError(f"HandNet does not run max_pool2d with dilation in {_path(node)!r}")
    return _pool(self, node, "max", a)


def _avg_pool2d(self: _Importer, node: fx.Node) -> _Value:
    a = _arguments(
        node, "self kernel_size stride padding ceil_mode count_include_pad divisor_override"
    )
    return _pool(self, node, "average", a)


def _adaptive_pool(self: _Importer, node: fx.Node, size: list[int]) -> _Value:
    value = self.value(node.args[0], node)
    layer: dict[str, Any] = {
        "kind": "pool",
        "input": self.full_map(value, node),
        "pool": "average",
        "divisor": 0,
    }
    for axis, out, extent in zip(("rows", "columns"), size, value.shape[1:], strict=True):
        layer[axis] = [
            [i * extent // out for i in range(out)],
            [-(-(i + 1) * extent // out) for i in range(out)],
        ]
    return _Value(self.append(layer), _shape(node))


def _adaptive_avg_pool2d(self: _Importer, node: fx.Node) -> _Value:
    return _adaptive_pool(self, node, list(_shape(node)[1:]))


def _mean(self: _Importer, node: fx.Node) -> _Value:
    a = _arguments(node, "self dim keepdim dtype")
    if a["dim"] is None or sorted(d % 4 for d in a["dim"]) != [2, 3]:
        raise ValueError(f"HandNet runs mean over [2, 3] only, not in module {_path(node)!r}")
    return _adaptive_pool(self, node, [1, 1])


def _reshape(self: _Importer, node: fx.Node) -> _Value:
    return _Value(self.value(node.args[0], node).map, _shape(node))


def _same(self: _Importer, node: fx.Node) -> _Value:
    return self.value(node.args[0], node)


def _clone(self: _Importer, node: fx.Node) -> _Value:
    value = self.value(node.args[0], node)
    layer = {"kind": "sum", "a": None, "b": value.map, "upsample": 1, "slope": 1.0}
    return _Value(self.append(layer), value.shape)


aten = torch.ops.aten
_HANDLERS: dict[Any, Callable[[_Importer, fx.Node], _Value]] = {
    aten.conv2d.default: _conv2d,
    aten.conv2d.padding: _conv2d,
    aten.linear.default: _linear,
    aten.batch_norm.default: _batch_norm,
    aten.relu.default: _relu,
    aten.relu_.default: _relu,
    aten.leaky_relu.default: _leaky_relu,
    aten.leaky_relu_.default: _leaky_relu,
    aten.add.Tensor: _add,
    aten.add_.Tensor: _add,
    aten.upsample_nearest2d.vec: _upsample,
    aten.upsample_nearest2d.default: _upsample,
    aten.pixel_unshuffle.default: _pixel_unshuffle,
    aten.max_pool2d.default: _max_pool2d,
    aten.avg_pool2d.default: _avg_pool2d,
    aten.adaptive_avg_pool2d.default: _adaptive_avg_pool2d,
    aten.mean.dim: _mean,
    aten.flatten.using_ints: _reshape,
    aten.view.default: _reshape,
    aten.reshape.default: _reshape,
    aten.unflatten.int: _reshape,
    aten.slice.Tensor: _slice,
    aten.repeat.default: _repeat,
    aten.dropout.default: _same,
    aten.clone.default: _clone,
    aten.contiguous.default: _same,
}


# ---- reading fx nodes ----


def _arguments(node: fx.Node, names: str) -> dict[str, Any]:
    """The arguments of an aten op by name, with the schema's defaults."""
    schema = node.target._schema.arguments  # type: ignore[union-attr]
    values = {argument.name: argument.default_value for argument in schema}
    for argument, value in zip(schema, node.args, strict=False):
        values[argument.name] = value
    values.update(node.kwargs)
    return {name: values[name] for name in names.split()}


def _shape(node: fx.Node) -> tuple[int, ...]:
    shape = tuple(int(size) for size in node.meta["val"].shape)
    if not shape or shape[0] != 1:
        raise ValueError(
            f"{_op_name(node)} in module {_path(node)!r} must keep the batch as its first axis, "
            f"it makes {list(shape)} of a batch of 1"
        )
    return shape[1:]


def _modules(node: fx.Node) -> list[tuple[str, Any]]:
    return list((node.meta.get("nn_module_stack") or {}).values())


def _path(node: fx.Node) -> str:
    modules = _modules(node)
    return modules[-1][0] if modules else ""


def _op_name(node: fx.Node) -> str:
    return str(
        getattr(node.target, "_opname", None) or getattr(node.target, "__name__", node.target)
    )


_ANCHOR_TYPE = f"{AnchorRegression.__module__}.{AnchorRegression.__qualname__}"


def _anchor_path(node: fx.Node) -> str | None:
    path: str
    for path, kind in reversed(_modules(node)):
        name = kind if isinstance(kind, str) else f"{kind.__module__}.{kind.__qualname__}"
        if name == _ANCHOR_TYPE:
            return path
    return None
