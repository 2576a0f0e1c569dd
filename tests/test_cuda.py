"""The CUDA kernels against the reference: on a GPU, or the same sources run on the CPU.

`make cuda-check` builds the emulation (csrc/core/cuda_emulation.h) and names it in
DGPOSE_CUDA_EMULATION; on a machine with a GPU the kernels run there too.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from dgpose_ext import _backend, _loader
from dgpose_ext.testing import OpSpec, Sample, discover, tensors

if _loader.core is None:
    pytest.skip(_loader.why_no_core(), allow_module_level=True)

EMULATION = os.environ.get("DGPOSE_CUDA_EMULATION")
if EMULATION:
    torch.ops.load_library(EMULATION)
SPECS = [spec for spec in discover() if "cuda" in spec.devices]


class Runner:
    """Calls ops with their CUDA kernels, from and to the CPU."""

    def __init__(self, device: str) -> None:
        self.device = device
        self.backend = "cpu" if device == "emulated" else "cuda"

    def to_device(self, value: Any) -> Any:
        return value.cuda() if isinstance(value, Tensor) and self.device == "cuda" else value

    def __call__(self, spec: OpSpec, call: Sample) -> list[Tensor]:
        moved = {name: self.to_device(value) for name, value in call.items()}
        return [t.cpu() for t in tensors(spec.function(**moved, backend=self.backend))]


@pytest.fixture(params=["emulated", "cuda"])
def runner(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Runner:
    if request.param == "cuda":
        if why := _loader.why_no_cuda():
            pytest.skip(why)
    elif EMULATION is None:
        pytest.skip("needs the emulated kernels: `make cuda-check`")
    else:

        def emulated(backend: str, name: str, reference: Callable[..., Any]) -> Callable[..., Any]:
            op = getattr(torch.ops.dgpose_emulated, name)
            return reference if backend == "reference" else op  # type: ignore[no-any-return]

        monkeypatch.setattr(_backend, "implementation", emulated)
    return Runner(request.param)


every_kernel = pytest.mark.parametrize("spec", SPECS, ids=lambda spec: spec.name)


@every_kernel
def test_has_a_kernel(runner: Runner, spec: OpSpec) -> None:
    """An op without one says so in its SPEC: devices=("cpu",)."""
    for name in {name for name, _ in spec.raw_calls()}:
        if runner.device == "emulated":
            assert hasattr(torch.ops.dgpose_emulated, name), f"{name} is not in {EMULATION}"
        else:
            assert _loader.has_cuda_kernel(name), f"{name} is not in dgpose_ext._C_cuda"


def reference(spec: OpSpec, call: Sample) -> list[Tensor]:
    return tensors(spec.function(**call, backend="reference"))


def strides(t: Tensor) -> list[int]:
    """Where it makes a difference: along axes of one element any stride is the same layout."""
    return [s for s, n in zip(t.stride(), t.shape, strict=True) if n > 1 and t.numel()]


def assert_equal(
    got: list[Tensor], want: list[Tensor], tolerance: tuple[float, float] | None
) -> None:
    assert len(got) == len(want)
    for a, b in zip(got, want, strict=True):
        assert a.dtype == b.dtype
        exact = tolerance is None or not a.dtype.is_floating_point
        rtol, atol = (0.0, 0.0) if exact else tolerance
        torch.testing.assert_close(a, b, rtol=rtol, atol=atol, equal_nan=True)
        assert strides(a) == strides(b)


@every_kernel
def test_equals_reference(runner: Runner, spec: OpSpec) -> None:
    for dtype in spec.dtypes:
        for call in spec.samples(dtype):
            assert_equal(runner(spec, call), reference(spec, call), spec.tolerance.get(dtype))


@every_kernel
def test_hostile_and_empty(runner: Runner, spec: OpSpec) -> None:
    for call in [*spec.hostile(), *spec.empty()]:
        assert_equal(runner(spec, call), reference(spec, call), spec.tolerance.get(torch.float32))


@every_kernel
def test_same_result_twice(runner: Runner, spec: OpSpec) -> None:
    for call in spec.samples(spec.dtypes[0]):
        assert_equal(runner(spec, call), runner(spec, call), None)


@pytest.mark.parametrize("spec", [s for s in SPECS if s.differentiable], ids=lambda spec: spec.name)
def test_gradients_equal_reference(runner: Runner, spec: OpSpec) -> None:
    for call in spec.gradient_samples():
        for dtype in (torch.float32, torch.float64):
            cast = {
                name: value.to(dtype)
                if isinstance(value, Tensor) and value.is_floating_point()
                else value
                for name, value in call.items()
            }

            def gradients(
                move: Callable[[Any], Any], backend: str, cast: Sample = cast
            ) -> list[Tensor]:
                inputs = {name: move(value) for name, value in cast.items()}
                leaves = {n: inputs[n].clone().requires_grad_() for n in spec.differentiable}
                out = tensors(spec.function(**inputs | leaves, backend=backend))[0]
                weight = torch.linspace(-1, 1, out.numel(), dtype=out.dtype).view(out.shape)
                # A gradient with strides of its own, as a cat leaves behind.
                twice = torch.cat([out, out]) * move(torch.cat([weight, weight]))
                got = torch.autograd.grad(twice.sum(), list(leaves.values()))
                return [gradient.cpu() for gradient in got]

            want = gradients(lambda value: value, "reference")
            tolerance = (1e-4, 1e-4) if dtype == torch.float32 else (1e-9, 1e-9)
            for a, b in zip(gradients(runner.to_device, runner.backend), want, strict=True):
                scale = float(b.abs().max()) if b.numel() else 1.0
                torch.testing.assert_close(
                    a, b, rtol=tolerance[0], atol=tolerance[1] * max(1.0, scale)
                )


@pytest.mark.skipif(EMULATION is None, reason="needs the emulated kernels: `make cuda-check`")
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("batch", [2, 20])
def test_a_search_reads_halves_as_they_are(batch: int, dtype: torch.dtype) -> None:
    """The Python ops hand halves to the CUDA kernels alone; dtypes of a GPU on the CPU."""
    from dgpose_ext import inner_product_topk

    generator = torch.Generator().manual_seed(batch)
    queries = torch.randn((batch, 19), generator=generator)
    rows = torch.randn((300, 24), generator=generator).to(dtype)[:, :19]
    got = torch.ops.dgpose_emulated.inner_product_topk(queries, rows, 6)
    assert_equal(tensors(got), tensors(inner_product_topk(queries, rows, 6)), None)
    with pytest.raises(RuntimeError, match="candidates must be float32, float16 or bfloat16, got"):
        torch.ops.dgpose_emulated.inner_product_topk(queries, rows.double(), 6)


needs_gpu = pytest.mark.skipif(bool(_loader.why_no_cuda()), reason=_loader.why_no_cuda())


def on_gpu(args: tuple[Any, ...]) -> tuple[Any, ...]:
    return tuple(a.cuda() if isinstance(a, Tensor) else a for a in args)


@needs_gpu
@every_kernel
def test_opcheck(spec: OpSpec) -> None:
    for name, args in spec.raw_calls():
        torch.library.opcheck(getattr(torch.ops.dgpose, name).default, on_gpu(args))


@needs_gpu
@every_kernel
def test_runs_in_a_graph_on_its_stream(spec: OpSpec) -> None:
    """Captured and replayed: the op neither synchronises nor leaves the current stream."""
    name, args = spec.raw_calls()[0]
    op, moved = getattr(torch.ops.dgpose, name), on_gpu(args)
    want = tensors(op(*moved))
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        got = tensors(op(*moved))
    graph.replay()
    torch.cuda.synchronize()
    assert_equal(got, want, None)


@needs_gpu
@pytest.mark.parametrize("spec", [s for s in SPECS if s.compilable], ids=lambda spec: spec.name)
def test_compiles(spec: OpSpec) -> None:
    call = {
        name: value.cuda() if isinstance(value, Tensor) else value
        for name, value in spec.samples(spec.dtypes[0])[0].items()
    }
    compiled = torch.compile(spec.function, fullgraph=True)
    got, want = tensors(compiled(**call)), tensors(spec.function(**call))
    assert_equal(got, want, spec.tolerance.get(spec.dtypes[0]))
    torch.compiler.reset()


@needs_gpu
def test_other_device_is_used() -> None:
    if torch.cuda.device_count() < 2:
        pytest.skip("needs two GPUs")
    for spec in SPECS:
        call = spec.samples(spec.dtypes[0])[0]
        moved = {n: v.to("cuda:1") if isinstance(v, Tensor) else v for n, v in call.items()}
        got = [t.cpu() for t in tensors(spec.function(**moved))]
        assert_equal(got, reference(spec, call), spec.tolerance.get(spec.dtypes[0]))
