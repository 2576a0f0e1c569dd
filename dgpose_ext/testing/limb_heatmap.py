"""Sample inputs of limb_heatmap."""

from __future__ import annotations

import torch

from dgpose_ext import limb_heatmap
from dgpose_ext.testing import ODD_SIZES, BadInput, OpSpec, Sample, bad_keypoints

#: A tree over four joints, and a limb from a joint to itself.
LIMBS = ((0, 1), (1, 2), (3, 1), (2, 2))

#: The limbs of a body of 18 joints (OpenPose's) without ears: 17.
BODY_LIMBS = (
    *((1, 2), (2, 3), (3, 4), (1, 5), (5, 6), (6, 7), (1, 8), (8, 9), (9, 10), (1, 11)),
    *((11, 12), (12, 13), (1, 0), (0, 14), (0, 15), (14, 16), (15, 17)),
)


#: More than one tile of the CUDA kernels in either direction.
_TILES = ((150, 6), (2, 530))


def random_limbs(
    batch: int, size: tuple[int, int], dtype: torch.dtype = torch.float32, seed: int = 0
) -> Sample:
    """Four joints in the image and up to a quarter of its size outside, joined by LIMBS."""
    generator = torch.Generator().manual_seed(seed)
    height, width = size
    unit = torch.rand((batch, 4, 2), generator=generator, dtype=torch.float64) * 1.5 - 0.25
    keypoints = (unit * torch.tensor([width, height], dtype=torch.float64)).to(dtype)
    return {"keypoints": keypoints, "limbs": LIMBS, "size": size, "sigma": 2.0}


def bodies(batch: int, size: tuple[int, int], seed: int = 0) -> Sample:
    """Standing people that fill the image, each joint moved a little. For benchmarks, examples."""
    joints = (
        *((50, 10), (50, 20), (38, 21), (32, 36), (29, 51), (62, 21), (68, 36), (71, 51), (43, 52)),
        *((41, 72), (40, 92), (57, 52), (59, 72), (60, 92), (47, 8), (53, 8), (44, 10), (56, 10)),
    )
    generator = torch.Generator().manual_seed(seed)
    percent = torch.tensor(joints) + torch.rand((batch, 18, 2), generator=generator) * 12 - 6
    height, width = size
    keypoints = percent * torch.tensor([width / 100, height / 100])
    return {"keypoints": keypoints, "limbs": BODY_LIMBS, "size": size, "sigma": 2.0}


def _sigmas(shape: tuple[int, ...], dtype: torch.dtype) -> torch.Tensor:
    generator = torch.Generator().manual_seed(len(shape))
    return (torch.rand(shape, generator=generator, dtype=torch.float64) * 3 + 0.6).to(dtype)


def _samples(dtype: torch.dtype) -> list[Sample]:
    tensor = torch.tensor(LIMBS)
    calls: list[Sample] = [
        random_limbs(2, (13, 18), dtype) | {"sigma": _sigmas((2, 4), dtype), "limbs": tensor},
        random_limbs(2, (13, 18), dtype) | {"sigma": _sigmas((4,), dtype)},
    ]
    calls += [random_limbs(1, (5, n), dtype, n) | {"sigma": 1.5} for n in ODD_SIZES]
    calls += [random_limbs(1, (n, 20), dtype, n) | {"sigma": 0.7} for n in ODD_SIZES]
    calls += [random_limbs(1, size, dtype) | {"sigma": 9.0} for size in _TILES]
    plain = random_limbs(2, (20, 33), dtype, 1)
    visible = torch.tensor([[1, 0, 1, 1], [0, 1, 1, 1]])
    calls += [
        plain | {"visible": visible},
        plain | {"visible": visible.bool(), "limbs": ((3, 2), (2, 3))},
        plain | {"sigma": 50.0},
        plain | {"sigma": 0.1},
        plain | {"keypoints": plain["keypoints"] * 10 - 100},
        plain | {"keypoints": plain["keypoints"].round()},
        plain | {"keypoints": plain["keypoints"][:, :1].expand(2, 4, 2)},
    ]
    if dtype in (torch.float16, torch.bfloat16):
        return [*calls, plain | {"dtype": torch.float32}]
    if dtype == torch.float32:
        # Large enough for several threads.
        many = random_limbs(4, (112, 80), dtype, 2)
        halves = [plain | {"dtype": half} for half in (torch.float16, torch.bfloat16)]
        return [*calls, *halves, plain | {"dtype": torch.float64}, many, many | {"sigma": 20.0}]
    return calls


def _raw_calls() -> list[tuple[str, tuple[object, ...]]]:
    keypoints, limbs = random_limbs(2, (7, 18))["keypoints"], torch.tensor(LIMBS)
    sigma, visible = _sigmas((2, 4), torch.float32), torch.ones((2, 4), dtype=torch.bool)
    maps = torch.rand(2, 4, 7, 18)
    return [
        ("limb_heatmap", (keypoints, limbs, sigma, visible, 7, 18, torch.float16)),
        ("limb_heatmap", (keypoints, limbs, sigma, None, 7, 18, torch.float32)),
        ("limb_heatmap_backward", (maps, keypoints, limbs, sigma, visible)),
        ("limb_heatmap_backward", (maps.half(), keypoints, limbs, sigma, None)),
    ]


def _empty() -> list[Sample]:
    call = random_limbs(2, (4, 5))
    return [
        random_limbs(0, (4, 5)),
        random_limbs(2, (0, 5)),
        random_limbs(2, (4, 0)),
        call | {"limbs": ()},
        call | {"limbs": torch.zeros((0, 2), dtype=torch.int64)},
        call | {"keypoints": torch.zeros((2, 0, 2)), "limbs": ()},
    ]


def _hostile() -> list[Sample]:
    calls: list[Sample] = []
    for value in (float("nan"), float("inf"), -float("inf"), 3e38, -3e38, -1e30, 1e-40, 0.0, -1.0):
        call = random_limbs(2, (7, 18))
        call["keypoints"][0, 1, 0] = value
        call["keypoints"][1, 2, 1] = value
        sigma = torch.full((2, 4), 1.5)
        sigma[0, 1] = value
        sigma[1, 2] = value
        across = random_limbs(2, (7, 18))  # limbs that end far away on both sides
        across["keypoints"][:, 0, 0] = value
        across["keypoints"][:, 1, 0] = -value
        calls += [call, call | {"sigma": sigma}, call | {"sigma": 1e-30}, across]
    return calls


def _gradient_samples() -> list[Sample]:
    first = random_limbs(2, (7, 9), torch.float64, 3)
    first["sigma"] = _sigmas((2, 4), torch.float64)
    visible = torch.tensor([[1, 0, 1, 1], [1, 1, 1, 1]])
    return [
        first,
        first | {"sigma": _sigmas((4,), torch.float64), "visible": visible},
        first | {"limbs": torch.tensor([[0, 1], [1, 0], [0, 1], [3, 3]])},
        *(
            random_limbs(1, size, torch.float64)
            | {"limbs": torch.tensor([[3, 1]]), "sigma": torch.tensor([9.0]).double()}
            for size in _TILES
        ),
    ]


_KEYPOINTS = torch.zeros((2, 4, 2))

SPEC = OpSpec(
    name="limb_heatmap",
    family="heatmap",
    function=limb_heatmap,
    samples=_samples,
    dtypes=(torch.float32, torch.float64, torch.float16, torch.bfloat16),
    raw_calls=_raw_calls,
    empty=_empty,
    hostile=_hostile,
    differentiable=("keypoints", "sigma"),
    gradient_samples=_gradient_samples,
    # The same exponent, but another exponential, within 2 units in the last place; in halves a
    # neighbouring value (also of a denormal).
    tolerance={
        torch.float32: (1e-6, 1e-12),
        torch.float64: (1e-12, 1e-15),
        torch.float16: (1e-3, 1e-7),
        torch.bfloat16: (8e-3, 1e-7),
    },
    bad=(
        *bad_keypoints(4),
        BadInput(
            {"keypoints": _KEYPOINTS.int()}, TypeError,
            "keypoints must be of dtype float32, .*, got int32",
        ),
        BadInput(
            {"limbs": ((0, 4),)}, ValueError,
            r"limbs must lie in 0 .. K-1 with K = 4, got \(0, 4\)",
        ),
        BadInput({"limbs": (0, 1)}, ValueError, "limbs must be pairs of joints, got 0"),
        BadInput({"limbs": ((0, 1.0),)}, TypeError, "a joint of limbs must be an integer, got 1.0"),
        BadInput(
            {"limbs": torch.tensor([[0, 4]])}, ValueError,
            "limbs must lie in 0 .. K-1 with K = 4, got 4",
        ),
        BadInput({"limbs": torch.tensor([[-1, 0]])}, ValueError, "limbs must lie in .*, got -1"),
        BadInput(
            {"limbs": torch.tensor([0, 1])}, ValueError,
            r"limbs must have shape \[L, 2\], got \[2\]",
        ),
        BadInput(
            {"limbs": torch.zeros((1, 2))}, TypeError, "limbs must be of dtype int64, got float32"
        ),
        BadInput({"sigma": 0.0}, ValueError, "sigma must be finite and positive, got 0.0"),
        BadInput({"sigma": "2"}, TypeError, "sigma must be a number or a torch.Tensor, got '2'"),
        BadInput({"sigma": float("nan")}, ValueError, "sigma must be finite and positive, got nan"),
        BadInput(
            {"sigma": torch.ones(3)}, ValueError,
            r"sigma must be a number or have shape \[L\] or .* with B = 2, L = 4, got \[3\]",
        ),
        BadInput(
            {"sigma": torch.ones(4, dtype=torch.int64)}, TypeError,
            "sigma must be of dtype float32, .*, got int64",
        ),
        BadInput({"dtype": torch.int32}, TypeError, "dtype must be float32, .*, got torch.int32"),
        BadInput({"size": (-1, 4)}, ValueError, r"size must not be negative, got \(-1, 4\)"),
    ),
)  # fmt: skip
