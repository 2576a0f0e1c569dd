"""Laws that hold for every op. Ops are found through dgpose_ext.testing: nothing is listed here."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import dgpose_ext
from dgpose_ext import _loader
from dgpose_ext.testing import BadInput, OpSpec, Sample, discover, tensors

ROOT = Path(__file__).resolve().parents[1]
SPECS = discover()
needs_core = pytest.mark.skipif(_loader.core is None, reason=_loader.why_no_core())

every_op = pytest.mark.parametrize("spec", SPECS, ids=lambda spec: spec.name)
compilable_ops = pytest.mark.parametrize(
    "spec", [s for s in SPECS if s.compilable], ids=lambda spec: spec.name
)
differentiable_ops = pytest.mark.parametrize(
    "spec", [s for s in SPECS if s.differentiable], ids=lambda spec: spec.name
)
every_op_and_dtype = pytest.mark.parametrize(
    ("spec", "dtype"),
    [(s, d) for s in SPECS for d in s.dtypes],
    ids=lambda v: v.name if isinstance(v, OpSpec) else str(v).removeprefix("torch."),
)


def assert_equal(got: Any, want: Any, tolerance: tuple[float, float] | None) -> None:
    got, want = tensors(got), tensors(want)
    assert len(got) == len(want)
    for a, b in zip(got, want, strict=True):
        assert a.dtype == b.dtype
        exact = tolerance is None or not a.dtype.is_floating_point
        rtol, atol = (0.0, 0.0) if exact else tolerance
        torch.testing.assert_close(a, b, rtol=rtol, atol=atol, equal_nan=True)


def strided(value: Any) -> Any:
    """The same values in every second element of a larger storage."""
    if not isinstance(value, Tensor) or value.dim() == 0:
        return value
    store = value.new_zeros((*value.shape[:-1], 2 * value.shape[-1]))
    store[..., ::2] = value
    return store[..., ::2]


@every_op
def test_has_all_its_files(spec: OpSpec) -> None:
    """Folder = family, stem = op: everything about an op is found by its name."""
    stem, family = spec.name, spec.family
    assert set(spec.devices) <= {"cpu", "cuda"}
    cuda = [f"csrc/{family}/{stem}{end}" for end in ("_op_cuda.cpp", "_cuda.cu")]
    contract = ROOT / f"csrc/{family}/{stem}.h"
    if "cuda" in spec.devices and "_cuda(" not in contract.read_text():
        cuda.pop()  # no kernels of its own: ops that search share theirs
    for path in (
        *((*cuda, f"csrc/{family}/{stem}_op.h") if "cuda" in spec.devices else ()),
        f"csrc/{family}/{stem}.h",
        f"csrc/{family}/{stem}_cpu.cpp",
        f"csrc/{family}/{stem}_op.cpp",
        f"dgpose_ext/ops/{family}/{stem}.py",
        f"dgpose_ext/reference/{family}/{stem}.py",
        f"dgpose_ext/testing/{stem}.py",
        f"tests/test_{stem}.py",
        f"tests/cpp/{stem}_test.cpp",
        f"benchmarks/bench_{stem}.py",
        f"docs/ops/{stem}.md",
    ):
        assert (ROOT / path).is_file(), f"{path} is missing"
    for path in () if "cuda" in spec.devices else cuda:
        assert not (ROOT / path).exists(), f"{path} is there, but the SPEC's devices lack 'cuda'"
    assert getattr(dgpose_ext, stem) is spec.function
    assert stem in dgpose_ext.__all__


@needs_core
@every_op_and_dtype
def test_equals_reference(spec: OpSpec, dtype: torch.dtype) -> None:
    for call in spec.samples(dtype):
        got = spec.function(**call, backend="cpu")
        assert_equal(got, spec.function(**call, backend="reference"), spec.tolerance.get(dtype))


@every_op
def test_any_strides(spec: OpSpec) -> None:
    for call in spec.samples(spec.dtypes[0]):
        assert_equal(
            spec.function(**{k: strided(v) for k, v in call.items()}), spec.function(**call), None
        )


@every_op
@pytest.mark.parametrize("backend", [None, "reference"])
def test_empty(spec: OpSpec, backend: str | None) -> None:
    for call in spec.empty():
        got = spec.function(**call, backend=backend)
        assert_equal(got, spec.function(**call, backend="reference"), None)


@needs_core
@every_op
def test_hostile_values(spec: OpSpec) -> None:
    for call in spec.hostile():
        got = spec.function(**call, backend="cpu")
        want = spec.function(**call, backend="reference")
        assert_equal(got, want, spec.tolerance.get(torch.float32))


@every_op
def test_same_result_twice_and_on_any_number_of_threads(spec: OpSpec) -> None:
    threads = torch.get_num_threads()
    for call in spec.samples(spec.dtypes[0]):
        first = spec.function(**call)
        assert_equal(spec.function(**call), first, None)
        try:
            torch.set_num_threads(1)
            assert_equal(spec.function(**call), first, None)
        finally:
            torch.set_num_threads(threads)


@pytest.mark.parametrize(
    ("spec", "bad"),
    [
        pytest.param(spec, bad, id=f"{spec.name}-{index}-{'-'.join(bad.change)}")
        for spec in SPECS
        for index, bad in enumerate(spec.bad)
    ],
)
def test_bad_input(spec: OpSpec, bad: BadInput) -> None:
    call = spec.samples(spec.dtypes[0])[0] | bad.change
    with pytest.raises(bad.error, match=bad.message):
        spec.function(**call)


def in_numpy(value: Any) -> Any:
    """Numbers, also within sequences, as those of NumPy."""
    if isinstance(value, list | tuple):
        return type(value)(in_numpy(v) for v in value)
    if type(value) in (int, float):
        return (np.int64 if type(value) is int else np.float64)(value)
    return value


@every_op
def test_numbers_of_numpy(spec: OpSpec) -> None:
    for call in spec.samples(spec.dtypes[0]):
        same = {name: in_numpy(value) for name, value in call.items()}
        assert_equal(spec.function(**same), spec.function(**call), None)


@every_op
def test_backends_that_cannot_run(spec: OpSpec) -> None:
    call = spec.samples(spec.dtypes[0])[0]
    with pytest.raises(ValueError, match="backend must be one of cpu, cuda, triton, reference"):
        spec.function(**call, backend="gpu")
    # Absent, or present and not for tensors on the CPU.
    why = rf"{spec.name}: backend 'cuda' (is not available|needs tensors on a CUDA device)"
    with pytest.raises((RuntimeError, ValueError), match=why):
        spec.function(**call, backend="cuda")


@needs_core
@every_op
def test_opcheck(spec: OpSpec) -> None:
    for name, args in spec.raw_calls():
        torch.library.opcheck(getattr(torch.ops.dgpose, name).default, args)


@needs_core
@compilable_ops
def test_compiles_without_graph_break(spec: OpSpec) -> None:
    for call in spec.samples(spec.dtypes[0])[:3]:
        compiled = torch.compile(spec.function, fullgraph=True, dynamic=True, backend="aot_eager")
        assert_equal(compiled(**call), spec.function(**call), None)
        torch.compiler.reset()


@needs_core
@compilable_ops
def test_inductor(spec: OpSpec) -> None:
    call = spec.samples(spec.dtypes[0])[0]
    compiled = torch.compile(spec.function, fullgraph=True)
    assert_equal(compiled(**call), spec.function(**call), spec.tolerance.get(spec.dtypes[0]))
    torch.compiler.reset()


@needs_core
@compilable_ops
def test_exports(spec: OpSpec) -> None:
    call = spec.samples(spec.dtypes[0])[0]
    arrays = {k: v for k, v in call.items() if isinstance(v, Tensor)}
    rest = {k: v for k, v in call.items() if k not in arrays}

    class Module(torch.nn.Module):
        def forward(self, **inputs: Tensor) -> Any:
            return spec.function(**inputs, **rest)

    program = torch.export.export(Module(), (), arrays)
    assert_equal(program.module()(**arrays), spec.function(**call), None)


@needs_core
@compilable_ops
def test_shapes_without_data(spec: OpSpec) -> None:
    for call in spec.samples(spec.dtypes[0])[:3]:
        empty = {k: v.to("meta") if isinstance(v, Tensor) else v for k, v in call.items()}
        got, want = tensors(spec.function(**empty)), tensors(spec.function(**call))
        assert [(t.shape, t.dtype) for t in got] == [(t.shape, t.dtype) for t in want]
        assert all(t.is_meta for t in got)


def with_gradients(spec: OpSpec, call: Sample) -> tuple[list[Tensor], Callable[..., Tensor]]:
    leaves = [call[name].clone().requires_grad_() for name in spec.differentiable]

    def run(*values: Tensor, backend: str | None = None) -> Tensor:
        inputs = call | dict(zip(spec.differentiable, values, strict=True))
        return tensors(spec.function(**inputs, backend=backend))[0]

    return leaves, run


@needs_core
@differentiable_ops
def test_gradcheck(spec: OpSpec) -> None:
    for call in spec.gradient_samples():
        leaves, run = with_gradients(spec, call)
        assert torch.autograd.gradcheck(run, leaves, eps=1e-6, atol=1e-4, rtol=1e-3)


@needs_core
@differentiable_ops
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_gradient_equals_reference(spec: OpSpec, dtype: torch.dtype) -> None:
    for call in spec.gradient_samples():
        call = {
            k: v.to(dtype) if isinstance(v, Tensor) and v.is_floating_point() else v
            for k, v in call.items()
        }
        leaves, run = with_gradients(spec, call)
        weight = torch.linspace(-1, 1, run(*leaves).numel(), dtype=dtype)
        got, want = (
            torch.autograd.grad((run(*leaves, backend=b).flatten() * weight).sum(), leaves)
            for b in ("cpu", "reference")
        )
        tolerance = (1e-4, 1e-4) if dtype == torch.float32 else (1e-9, 1e-9)
        assert_equal(got, want, tolerance)


@differentiable_ops
def test_gradient_after_cat_and_expand(spec: OpSpec) -> None:
    """Autograd hands the backward any strides."""
    call = spec.gradient_samples()[0]
    leaves, run = with_gradients(spec, call)
    dense = torch.autograd.grad(run(*leaves).sum() * 2, leaves)

    out = run(*leaves)
    joined = torch.cat([out, torch.zeros_like(out), out], dim=-1)
    assert_equal(torch.autograd.grad(joined.sum(), leaves), dense, (1e-12, 1e-12))

    out = run(*leaves)
    transposed = out.transpose(0, -1)
    assert_equal(torch.autograd.grad((transposed * 2).sum(), leaves), dense, (1e-12, 1e-12))


@differentiable_ops
def test_second_derivative_is_refused(spec: OpSpec) -> None:
    leaves, run = with_gradients(spec, spec.gradient_samples()[0])
    grads = torch.autograd.grad(run(*leaves).square().sum(), leaves, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        grads[0].sum().backward()


@every_op
def test_autocast_changes_nothing(spec: OpSpec) -> None:
    call = spec.samples(spec.dtypes[0])[0]
    with torch.autocast("cpu", torch.bfloat16):
        inside = spec.function(**call)
    assert_equal(inside, spec.function(**call), None)


class CallEveryOp(torch.utils.data.Dataset[list[list[Tensor]]]):
    def __len__(self) -> int:
        return 4

    def __getitem__(self, index: int) -> list[list[Tensor]]:
        return [tensors(spec.function(**spec.samples(spec.dtypes[0])[0])) for spec in SPECS]


def test_forked_workers() -> None:
    """The first call is made here, so that the workers inherit a used thread pool."""
    want = CallEveryOp()[0]
    loader = torch.utils.data.DataLoader(
        CallEveryOp(), batch_size=None, num_workers=2, multiprocessing_context="fork"
    )
    for results in loader:
        for got, expected in zip(results, want, strict=True):
            assert_equal(got, expected, None)
