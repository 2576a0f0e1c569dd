"""ONNX export: what ONNX Runtime computes is what the op computes."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import dgpose_ext.onnx
from dgpose_ext import _loader, crop_and_resize, decode_heatmap
from dgpose_ext.testing import OpSpec, Sample, discover, tensors
from dgpose_ext.testing.crop_and_resize import random_crops
from dgpose_ext.testing.decode_heatmap import gaussians

onnxruntime = pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")

FOLDER = Path(dgpose_ext.onnx.__file__).parent
#: Found by their files: nothing is listed here.
TRANSLATED = [spec for spec in discover() if (FOLDER / spec.family / f"{spec.name}.py").is_file()]
translated_ops = pytest.mark.parametrize("spec", TRANSLATED, ids=lambda spec: spec.name)
needs_core = pytest.mark.skipif(_loader.core is None, reason=_loader.why_no_core())


class Calls(torch.nn.Module):
    """Calls of an op with several options, on the same tensors: the inputs of the model."""

    def __init__(self, function: Callable[..., Any], names: Iterable[str], *options: Sample):
        super().__init__()
        self.function = function
        self.names = tuple(names)
        self.options = options

    def forward(self, *inputs: Tensor) -> list[list[Tensor]]:
        call = dict(zip(self.names, inputs, strict=True))
        return [tensors(self.function(**call, **options)) for options in self.options]


def split(call: Sample) -> tuple[dict[str, Tensor], Sample]:
    """The tensors of a call, and the rest."""
    arrays = {name: value for name, value in call.items() if isinstance(value, Tensor)}
    return arrays, {name: value for name, value in call.items() if name not in arrays}


def session_of(model: torch.nn.Module, inputs: Iterable[Tensor], *, dynamic: bool = False) -> Any:
    """ONNX Runtime for the exported model; `dynamic`: sizes may change where the op allows it."""
    inputs = tuple(inputs)
    sizes = tuple(dict.fromkeys(range(x.dim()), torch.export.Dim.AUTO) for x in inputs)
    program = dgpose_ext.onnx.export(
        model.eval(), inputs, dynamic_shapes=(sizes,) if dynamic else None, verbose=False
    )
    assert {node.domain for node in program.model.graph} == {""}  # ONNX's own operators
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(
        program.model_proto.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )


def run(session: Any, inputs: Iterable[Tensor]) -> list[Tensor]:
    names = [node.name for node in session.get_inputs()]
    fed = [value.detach().contiguous().numpy() for value in inputs]
    return [torch.from_numpy(a) for a in session.run(None, dict(zip(names, fed, strict=True)))]


def assert_close(got: Sequence[Tensor], want: Sequence[Tensor]) -> None:
    for a, b in zip(got, want, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5, equal_nan=True)


@needs_core
@translated_ops
def test_equals_the_op(spec: OpSpec) -> None:
    """Samples, hostile values and empty tensors, in one graph whose sizes are dynamic."""
    by_inputs: dict[tuple[tuple[str, torch.dtype], ...], list[Sample]] = {}
    for call in [*spec.samples(torch.float32), *spec.hostile(), *spec.empty()]:
        inputs = tuple((name, value.dtype) for name, value in split(call)[0].items())
        by_inputs.setdefault(inputs, []).append(call)
    for inputs, calls in by_inputs.items():
        names = [name for name, _ in inputs]
        options: list[Sample] = []
        for call in calls:
            if split(call)[1] not in options:
                options.append(split(call)[1])
        options = options[:: 1 + len(options) // 20]  # each takes a part of a second to export
        # A size of 0 or 1 would be taken for a constant.
        example = max(calls, key=lambda call: min(min(call[name].shape) for name in names))
        model = Calls(spec.function, names, *options)
        session = session_of(model, (example[name] for name in names), dynamic=True)
        for call in calls:
            if split(call)[1] in options:
                got = run(session, (call[name] for name in names))
                want = tensors(spec.function(**call))
                first = options.index(split(call)[1]) * len(want)
                assert_close(got[first : first + len(want)], want)


@needs_core
@translated_ops
def test_other_dtypes(spec: OpSpec) -> None:
    """The model takes and returns float32, NumPy having no bfloat16; the op does not."""

    def converting(dtype: torch.dtype, **call: Any) -> list[Tensor]:
        arrays, options = split(call)
        inside = {k: v.to(dtype) if v.is_floating_point() else v for k, v in arrays.items()}
        results = tensors(spec.function(**inside, **options))
        return [r.float() if r.dtype == torch.bfloat16 else r for r in results]

    inputs, options = split(spec.samples(torch.float32)[0])
    for dtype in spec.dtypes:
        model = Calls(converting, inputs, {**options, "dtype": dtype})
        got = run(session_of(model, inputs.values()), inputs.values())
        want = tensors(model(*inputs.values()))
        assert [a.dtype for a in got] == [b.dtype for b in want]
        rounding = torch.finfo(dtype).eps if torch.finfo(dtype).bits == 16 else 1e-5
        for a, b in zip(got, want, strict=True):
            torch.testing.assert_close(a, b, rtol=rounding, atol=1e-5)


@needs_core
def test_pixels_and_scores_are_equal() -> None:
    """Few values, and so many equal maxima."""
    generator = torch.Generator().manual_seed(0)
    maps = torch.randint(-3, 3, (2, 70, 13, 29), generator=generator).float()
    maps[:, ::2] = torch.rand((2, 35, 13, 29), generator=generator)
    model = Calls(decode_heatmap, ["heatmaps"], {"method": "argmax"}, {"method": "quarter"})
    for a, b in zip(run(session_of(model, [maps]), [maps]), tensors(model(maps)), strict=True):
        assert torch.equal(a, b)


@needs_core
def test_crops_of_dynamic_size() -> None:
    def quarter(features: Tensor, boxes: Tensor, sampling: Any) -> Tensor:
        size = (features.shape[2] // 4, features.shape[3] // 4)
        return crop_and_resize(features, boxes, size, sampling=sampling)

    options = [{"sampling": sampling} for sampling in ("corners", "half_pixel")]
    model = Calls(quarter, ["features", "boxes"], *options)
    first = random_crops((2, 3, 13, 18), 4, (1, 1))
    session = session_of(model, (first["features"], first["boxes"]), dynamic=True)
    for shape in ((2, 3, 13, 18), (1, 3, 4, 4), (3, 3, 8, 40), (2, 3, 3, 9)):
        call = random_crops(shape, 5, (1, 1))
        inputs = call["features"], call["boxes"]
        assert_close(run(session, inputs), tensors(model(*inputs)))


class Network(torch.nn.Module):
    """Something to train whose graph ends in keypoints."""

    def __init__(self, method: str) -> None:
        super().__init__()
        self.layer = torch.nn.Conv2d(3, 5, 3)
        self.method = method

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        return decode_heatmap(self.layer(image), self.method)


@pytest.mark.parametrize("method", ["argmax", "softargmax"])
def test_decoding_inside_a_network(method: str, tmp_path: Path) -> None:
    """Its weights require gradients, which argmax has not."""
    model, image = Network(method).eval(), torch.rand(2, 3, 20, 24)
    path = tmp_path / "model.onnx"
    dgpose_ext.onnx.export(model, (image,), path, verbose=False)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    with torch.no_grad():
        assert_close(run(session, [image]), model(image))


@needs_core
def test_the_table_serves_torch_directly() -> None:
    table = dgpose_ext.onnx.translation_table()
    assert {op.name() for op in table} == {f"dgpose::{spec.name}" for spec in TRANSLATED}
    maps = gaussians(2, 3, 20, 24)
    program = torch.onnx.export(
        Calls(decode_heatmap, ["heatmaps"], {}).eval(),
        (maps,),
        dynamo=True,
        custom_translation_table=table,
        verbose=False,
    )
    assert "ArgMax" in {node.op_type for node in program.model.graph}


@needs_core
def test_translations_of_the_caller_come_first() -> None:
    def ones(heatmaps: Any, method: int, blur_kernel: int, beta: float) -> tuple[Any, Any]:
        from onnxscript import opset18 as op

        return op.Sin(heatmaps), op.Cos(heatmaps)

    program = dgpose_ext.onnx.export(
        Calls(decode_heatmap, ["heatmaps"], {}).eval(),
        (gaussians(2, 3, 20, 24),),
        custom_translation_table={torch.ops.dgpose.decode_heatmap.default: ones},
        verbose=False,
    )
    assert {node.op_type for node in program.model.graph} == {"Sin", "Cos"}


def test_without_the_core_there_is_nothing_to_translate(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_loader, "core", None)
    assert dgpose_ext.onnx.translation_table() == {}


def test_the_reference_is_exported_by_torch() -> None:
    """All but decode_heatmap's dark: ONNX Runtime has no float64 convolution on the CPU."""
    reference = {"backend": "reference"}
    methods = [
        {"method": method, "beta": 9.0} | reference
        for method in ("argmax", "quarter", "softargmax")
    ]
    samplings = [
        {"size": (5, 7), "sampling": name} | reference for name in ("corners", "half_pixel")
    ]
    decode, crop = (
        Calls(decode_heatmap, ["heatmaps"], *methods),
        Calls(crop_and_resize, ["features", "boxes"], *samplings),
    )
    session = session_of(decode, [gaussians(2, 3, 20, 24)], dynamic=True)
    maps = gaussians(3, 5, 33, 18, seed=1)
    assert_close(run(session, [maps]), tensors(decode(maps)))
    first, second = (random_crops(shape, 4, (1, 1)) for shape in ((2, 3, 13, 18), (3, 5, 9, 8)))
    session = session_of(crop, (first["features"], first["boxes"]), dynamic=True)
    inputs = second["features"], second["boxes"]
    assert_close(run(session, inputs), tensors(crop(*inputs)))


@pytest.mark.parametrize("absent", ["onnx", "onnxscript"])
def test_a_missing_extra_is_named(absent: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, absent, None)
    message = rf"ONNX export needs {absent}: run `pip install dgpose-ext\[onnx\]`"
    with pytest.raises(ModuleNotFoundError, match=message):
        dgpose_ext.onnx.export(torch.nn.Identity(), (torch.zeros(1),))
