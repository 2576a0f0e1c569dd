"""Sample inputs of gaussian_heatmap."""

from __future__ import annotations

import torch

from dgpose_ext import gaussian_heatmap
from dgpose_ext.testing import ODD_SIZES, BadInput, OpSpec, Sample, bad_keypoints


def random_keypoints(
    batch: int, count: int, size: tuple[int, int], dtype: torch.dtype = torch.float32, seed: int = 0
) -> Sample:
    """Keypoints in the image and up to a quarter of its size outside. For benchmarks, examples."""
    generator = torch.Generator().manual_seed(seed)
    height, width = size
    unit = torch.rand((batch, count, 2), generator=generator, dtype=torch.float64) * 1.5 - 0.25
    keypoints = unit * torch.tensor([width, height], dtype=torch.float64)
    return {"keypoints": keypoints.to(dtype), "size": size, "sigma": 2.0}


def _sigmas(shape: tuple[int, ...], dtype: torch.dtype) -> torch.Tensor:
    generator = torch.Generator().manual_seed(len(shape))
    return (torch.rand(shape, generator=generator, dtype=torch.float64) * 3 + 0.6).to(dtype)


def _samples(dtype: torch.dtype) -> list[Sample]:
    first = random_keypoints(2, 3, (13, 18), dtype) | {"sigma": _sigmas((2, 3), dtype)}
    calls: list[Sample] = [first, first | {"normalize": "sum"}]
    calls += [random_keypoints(1, 2, (5, n), dtype, n) | {"sigma": 1.5} for n in ODD_SIZES]
    calls += [
        random_keypoints(1, 2, (n, 20), dtype, n) | {"sigma": 4.0, "normalize": "sum"}
        for n in ODD_SIZES
    ]
    plain = random_keypoints(2, 3, (20, 33), dtype, 1)
    visible = torch.tensor([[1, 0, 1], [0, 1, 1]])
    calls += [
        plain | {"cutoff": 3.0, "round_centers": True, "visible": visible},
        plain | {"cutoff": 1.0, "normalize": "sum", "visible": visible.bool()},
        plain | {"round_centers": True, "sigma": _sigmas((3,), dtype)},
        plain | {"sigma": _sigmas((2, 3, 2), dtype)},
        plain | {"sigma": _sigmas((2, 3, 2), dtype), "normalize": "sum", "visible": visible},
        plain | {"sigma": 50.0},
        plain | {"sigma": 0.1, "cutoff": 2.5},
        plain | {"keypoints": plain["keypoints"] * 10 - 100, "normalize": "sum"},
    ]
    if dtype in (torch.float16, torch.bfloat16):
        return [*calls, plain | {"dtype": torch.float32}]
    if dtype == torch.float32:
        # Large enough for several threads.
        many = random_keypoints(3, 5, (96, 80), dtype, 2)
        halves = [plain | {"dtype": half} for half in (torch.float16, torch.bfloat16)]
        return [*calls, *halves, plain | {"dtype": torch.float64}, many, many | {"sigma": 20.0}]
    return calls


def _raw_calls() -> list[tuple[str, tuple[object, ...]]]:
    keypoints = random_keypoints(2, 3, (7, 18))["keypoints"]
    sigma, visible = _sigmas((2, 3, 2), torch.float32), torch.ones((2, 3), dtype=torch.bool)
    maps = torch.rand(2, 3, 7, 18)
    return [
        (
            "gaussian_heatmap",
            (keypoints, sigma, visible, 7, 18, 3.0, True, False, torch.float16),
        ),
        ("gaussian_heatmap", (keypoints, sigma, None, 7, 18, 9.0, False, True, torch.float32)),
        ("gaussian_heatmap_backward", (maps, keypoints, sigma, visible, 3.0, False, True)),
        ("gaussian_heatmap_backward", (maps.half(), keypoints, sigma, None, 9.0, True, False)),
    ]


def _empty() -> list[Sample]:
    shapes = ((0, 3, (4, 5)), (2, 0, (4, 5)), (2, 3, (0, 5)), (2, 3, (4, 0)))
    return [
        random_keypoints(*shape) | {"normalize": normalize}
        for shape in shapes
        for normalize in ("peak", "sum")
    ]


def _hostile() -> list[Sample]:
    calls: list[Sample] = []
    for value in (float("nan"), float("inf"), -float("inf"), 3e38, -3e38, -1e30, 1e-40, 0.0, -1.0):
        for normalize in ("peak", "sum"):
            call = random_keypoints(2, 3, (7, 18)) | {"normalize": normalize}
            call["keypoints"][0, 1, 0] = value
            call["keypoints"][1, 2, 1] = value
            sigma = torch.full((2, 3, 2), 1.5)
            sigma[0, 0, 1] = value
            sigma[1, 2, 0] = value
            windowed = call | {"cutoff": 3.0, "round_centers": True}
            calls += [call, windowed, call | {"sigma": sigma}, windowed | {"sigma": sigma}]
    return calls


def _gradient_samples() -> list[Sample]:
    first = random_keypoints(2, 3, (7, 9), torch.float64, 3)
    first["sigma"] = _sigmas((2, 3), torch.float64)
    visible = torch.tensor([[1, 0, 1], [1, 1, 1]])
    second = first | {"sigma": _sigmas((2, 3, 2), torch.float64), "visible": visible}
    vanishing = first["sigma"].clone()
    vanishing[1] = 1e-30  # its inverse squared overflows in float32
    return [
        first,
        first | {"normalize": "sum"},
        first | {"sigma": _sigmas((3,), torch.float64), "cutoff": 2.03},
        second,
        second | {"normalize": "sum", "cutoff": 3.01},
        first | {"sigma": vanishing},
    ]


_KEYPOINTS = torch.zeros((2, 3, 2))

SPEC = OpSpec(
    name="gaussian_heatmap",
    family="heatmap",
    function=gaussian_heatmap,
    samples=_samples,
    dtypes=(torch.float32, torch.float64, torch.float16, torch.bfloat16),
    raw_calls=_raw_calls,
    empty=_empty,
    hostile=_hostile,
    differentiable=("keypoints", "sigma"),
    gradient_samples=_gradient_samples,
    # Two exponentials, each within 2 units in the last place, of an argument that is rounded once
    # more than the reference's; in halves a neighbouring value (also of a denormal).
    tolerance={
        torch.float32: (1e-5, 1e-7),
        torch.float64: (1e-12, 1e-15),
        torch.float16: (1e-3, 1e-7),
        torch.bfloat16: (8e-3, 1e-7),
    },
    bad=(
        *bad_keypoints(3),
        BadInput(
            {"keypoints": _KEYPOINTS.int()}, TypeError,
            "keypoints must be of dtype float32, .*, got int32",
        ),
        BadInput({"sigma": 0.0}, ValueError, "sigma must be finite and positive, got 0.0"),
        BadInput({"sigma": -1.0}, ValueError, "sigma must be finite and positive, got -1.0"),
        BadInput({"sigma": float("nan")}, ValueError, "sigma must be finite and positive, got nan"),
        BadInput(
            {"sigma": [2.0, 2.0, 2.0]}, TypeError,
            r"sigma must be a number or a torch.Tensor, got \[2.0, 2.0, 2.0\]",
        ),
        BadInput(
            {"sigma": torch.ones(3, device="meta")}, ValueError,
            r"sigma must be on the device of keypoints \(cpu\), got meta",
        ),
        BadInput(
            {"sigma": torch.ones(4)}, ValueError,
            r"sigma must be a number or have shape \[K\], .* with B = 2, K = 3, got \[4\]",
        ),
        BadInput(
            {"sigma": torch.ones(3, dtype=torch.int64)}, TypeError,
            "sigma must be of dtype float32, .*, got int64",
        ),
        BadInput({"cutoff": -1.0}, ValueError, "cutoff must be positive or None, got -1.0"),
        BadInput({"cutoff": "3"}, TypeError, "cutoff must be a number, got '3'"),
        BadInput({"normalize": "max"}, ValueError, "normalize must be 'peak' or 'sum', got 'max'"),
        BadInput({"dtype": torch.int32}, TypeError, "dtype must be float32, .*, got torch.int32"),
        BadInput({"size": (-1, 4)}, ValueError, r"size must not be negative, got \(-1, 4\)"),
    ),
)  # fmt: skip
