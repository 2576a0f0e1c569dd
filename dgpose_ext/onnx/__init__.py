"""ONNX export: ops of torch.ops.dgpose as standard ONNX operators, which any runtime can run.

    dgpose_ext.onnx.export(model, (image,), "model.onnx")

Each module `dgpose_ext/onnx/<family>/<op>.py` translates the op of its name; nothing lists them.
Needs the extra `onnx`: `pip install dgpose-ext[onnx]`.
"""

from __future__ import annotations

import importlib
import importlib.util
import pkgutil
from collections.abc import Callable
from typing import Any

import torch

from dgpose_ext import _loader

__all__ = ["export", "translation_table"]


def translation_table() -> dict[Callable[..., Any], Callable[..., Any]]:
    """The `custom_translation_table` of torch.onnx.export(dynamo=True): op -> onnxscript function.

    Its ops become ONNX operators of opset 18. Without the compiled core it is empty: what is
    exported then is the reference, which torch translates by itself.

    Raises ModuleNotFoundError where onnx or onnxscript is not installed.
    """
    absent = [name for name in ("onnx", "onnxscript") if importlib.util.find_spec(name) is None]
    if absent:
        raise ModuleNotFoundError(
            f"ONNX export needs {' and '.join(absent)}: run `pip install dgpose-ext[onnx]`"
        )
    if _loader.core is None:
        return {}
    table = {}
    for module in pkgutil.walk_packages(__path__, f"{__name__}."):
        stem = module.name.rpartition(".")[2]
        if not module.ispkg and not stem.startswith("_"):
            op = getattr(torch.ops.dgpose, stem).default
            table[op] = importlib.import_module(module.name).translate
    return table


def export(model: torch.nn.Module, args: tuple[Any, ...], path: Any = None, **options: Any) -> Any:
    """torch.onnx.export(model, args, path, dynamo=True) of a model that calls ops of dgpose_ext.

    Args:
        model, args, path: as torch.onnx.export takes them.
        options: further arguments of torch.onnx.export, such as dynamic_shapes; translations in
            custom_translation_table come before those of `translation_table()`.

    Returns the torch.onnx.ONNXProgram. No gradient is recorded: methods of decode_heatmap without
    one are exported from trainable models too.

    Raises ModuleNotFoundError where onnx or onnxscript is not installed, and what torch raises.
    """
    table = translation_table() | (options.pop("custom_translation_table", None) or {})
    with torch.no_grad():
        return torch.onnx.export(
            model, args, path, dynamo=True, custom_translation_table=table, **options
        )
