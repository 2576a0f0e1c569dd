"""ONNX Runtime running an op that was exported by dgpose_ext.onnx: a contender of its benchmark."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor


class _Call(torch.nn.Module):
    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__()
        self.function = function

    def forward(self, *inputs: Tensor) -> Any:
        return self.function(*inputs)


def exported(function: Callable[..., Any], *inputs: Tensor) -> Callable[[], Any]:
    """Runs function(*inputs) as its ONNX graph, sizes fixed, on as many threads as torch has."""
    import onnxruntime

    import dgpose_ext.onnx

    program = dgpose_ext.onnx.export(_Call(function).eval(), inputs, verbose=False)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(
        program.model_proto.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    names = [node.name for node in session.get_inputs()]
    arrays = dict(zip(names, (value.numpy() for value in inputs), strict=True))
    return lambda: session.run(None, arrays)
