"""Sample inputs of capsule_depth."""

from __future__ import annotations

import torch

from dgpose_ext import capsule_depth
from dgpose_ext.testing import ODD_SIZES, BadInput, OpSpec, Sample

CAMERA = (60.0, 62.0, 15.5, 14.5)


def _chain(dtype: torch.dtype, batch: int, joints: int, seed: int) -> Sample:
    generator = torch.Generator().manual_seed(seed)
    points = torch.randn((batch, joints, 3), generator=generator) * 30
    points[..., 2] += 250
    index = torch.arange(joints)
    edges = torch.stack([index[:-1], index[1:]], 1)
    return {
        "joints": points.to(dtype),
        "edges": torch.cat([edges, torch.tensor([[0, 0]])]),
        "radii": (torch.rand((1, joints), generator=generator) * 15 + 5).to(dtype),
        "camera": CAMERA,
        "size": (24, 32),
    }


def hand_scene(batch: int, size: int = 128) -> Sample:
    """A hand of 46 capsules that fills a size x size picture: five fingers, palm and wrist.

    Each frame has its own bend. For benchmarks and examples.
    """
    points, edges, radii = [(0.0, 60.0, 0.0), (0.0, 85.0, 0.0)], [(0, 1)], [26.0, 28.0]
    for finger, (x, length) in enumerate([(-42, 62), (-24, 88), (-4, 95), (16, 88), (34, 70)]):
        first = len(points)
        for k in range(9):
            points.append((x * (1 + 0.04 * k), 10.0 - length * k / 8, 6.0 * finger - 1.5 * k))
            radii.append(11 - 0.5 * k)
        edges += [(first + k, first + k + 1) for k in range(8)] + [(0, first)]
    bend = torch.linspace(-0.5, 0.5, batch).view(-1, 1)
    rest = torch.tensor(points)
    joints = rest.repeat(batch, 1, 1)
    joints[..., 2] += 700 + bend * (rest[:, 1] - 60).abs()
    focal = size * 700 / 250
    return {
        "joints": joints,
        "edges": torch.tensor(edges),
        "radii": torch.tensor([radii]),
        "camera": (focal, focal, (size - 1) / 2, (size - 1) / 2),
        "size": (size, size),
    }


def _samples(dtype: torch.dtype) -> list[Sample]:
    calls = [_chain(dtype, 2, 6, 0)]
    calls += [_chain(dtype, 1, 4, size) | {"size": (size, size)} for size in ODD_SIZES]
    per_frame = _chain(dtype, 3, 5, 1)
    per_frame["radii"] = per_frame["radii"] * torch.tensor([[1.0], [0.5], [2.0]]).to(dtype)
    per_frame["camera"] = torch.tensor([CAMERA, (90.0, 90.0, 10.0, 20.0), (30.0, 31.0, 16.0, 12.0)])
    nested = _chain(dtype, 1, 2, 2)  # one ball holds the other: no cone
    nested["joints"] = torch.tensor([[[0.0, 0, 200], [2, 0, 203]]], dtype=dtype)
    nested["radii"] = torch.tensor([[20.0, 5.0]], dtype=dtype)
    along = _chain(dtype, 1, 2, 3)  # seen along its axis
    along["joints"] = torch.tensor([[[0.0, 0, 150], [1, 1, 300]]], dtype=dtype)
    camera_inside = _chain(dtype, 1, 3, 4)
    camera_inside["joints"] = camera_inside["joints"] - torch.tensor([0, 0, 250]).to(dtype)
    normals = _chain(dtype, 2, 6, 5) | {"background": -1.0, "return_normals": True}
    many = _chain(dtype, 1, 140, 6)  # more capsules than a group of the CUDA kernel
    return [*calls, per_frame, nested, along, camera_inside, normals, many]


def _raw_calls() -> list[tuple[str, tuple[object, ...]]]:
    call = _chain(torch.float32, 2, 4, 0)
    inputs = (call["joints"], call["edges"], call["radii"], torch.tensor([CAMERA]))
    depth, part, *_ = capsule_depth(**call)
    return [
        ("capsule_depth", (*inputs, 24, 32, 0.0)),
        ("capsule_depth_normals", (*inputs, depth, part)),
        ("capsule_depth_backward", (torch.ones_like(depth), *inputs, depth, part)),
    ]


def _empty() -> list[Sample]:
    call = _chain(torch.float32, 2, 4, 0)
    return [
        call | {"joints": call["joints"][:0]},
        call | {"edges": call["edges"][:0]},
        call | {"size": (0, 32)},
        call | {"joints": call["joints"][:, :0], "radii": call["radii"][:, :0],
                "edges": call["edges"][:0], "return_normals": True},
    ]  # fmt: skip


def _hostile() -> list[Sample]:
    calls = []
    for value in (float("nan"), float("inf"), -float("inf"), 3e38, -1e30, 0.0):
        call = _chain(torch.float32, 2, 5, 0)
        call["joints"][0, 1, 2] = value
        call["joints"][1, 2, 0] = value
        bad_radius = _chain(torch.float32, 2, 5, 0)
        bad_radius["radii"][0, 1] = value
        calls += [call, bad_radius]
    bad_camera = _chain(torch.float32, 2, 5, 0) | {"return_normals": True}
    bad_camera["camera"] = torch.tensor([bad_camera["camera"], [float("nan")] * 4])
    calls.append(bad_camera)
    return calls


def _gradient_samples() -> list[Sample]:
    shared = _chain(torch.float64, 2, 4, 7) | {"size": (9, 11), "camera": (20.0, 20.0, 5.0, 4.0)}
    per_frame = shared | {"radii": shared["radii"].repeat(2, 1)}
    return [shared, per_frame]


_JOINTS = torch.zeros((1, 3, 3))
_EDGES = torch.tensor([[0, 1]])

SPEC = OpSpec(
    name="capsule_depth",
    family="render",
    function=capsule_depth,
    samples=_samples,
    dtypes=(torch.float32, torch.float64, torch.float16, torch.bfloat16),
    raw_calls=_raw_calls,
    empty=_empty,
    hostile=_hostile,
    differentiable=("joints", "radii"),
    gradient_samples=_gradient_samples,
    # float64: torch's own square root is not correctly rounded. Normals sum in another order.
    tolerance={
        torch.float64: (1e-12, 1e-9),
        torch.float32: (0.0, 1e-6),
        torch.float16: (0.0, 1e-6),
        torch.bfloat16: (0.0, 1e-6),
    },
    bad=(
        BadInput({"joints": [[0.0]]}, TypeError, "joints must be a torch.Tensor, got list"),
        BadInput(
            {"joints": torch.zeros((3, 3))}, ValueError,
            r"joints must have shape \[B, J, 3\], got \[3, 3\]",
        ),
        BadInput(
            {"joints": _JOINTS.int()}, TypeError, "joints must be of dtype float32, .*, got int32"
        ),
        BadInput({"edges": [[0, 1]]}, TypeError, "edges must be a torch.Tensor, got list"),
        BadInput(
            {"edges": torch.zeros((2, 3), dtype=torch.int64)}, ValueError,
            r"edges must have shape \[E, 2\], got \[2, 3\]",
        ),
        BadInput(
            {"edges": _EDGES.to("meta")}, ValueError,
            r"edges must be on the device of joints \(cpu\), got meta",
        ),
        BadInput({"edges": _EDGES.int()}, TypeError, "edges must be of dtype int64, got int32"),
        BadInput(
            {"edges": torch.tensor([[0, 9]])}, ValueError, r"edges must lie in \[0, 6\), got 9"
        ),
        BadInput(
            {"radii": torch.zeros((1, 2))}, ValueError,
            r"radii must have shape \[B, J\] with J = 6, got \[1, 2\]",
        ),
        BadInput(
            {"radii": torch.zeros((1, 6), dtype=torch.int32)}, TypeError,
            "radii must be of dtype float32, .*, got int32",
        ),
        BadInput(
            {"radii": torch.zeros((1, 6), device="meta")}, ValueError,
            r"radii must be on the device of joints \(cpu\), got meta",
        ),
        BadInput({"camera": None}, TypeError, r"camera must be \(fx, fy, cx, cy\), got None"),
        BadInput(
            {"camera": torch.ones(4, requires_grad=True)}, ValueError,
            "camera must not require a gradient: capsule_depth has none for it",
        ),
        BadInput({"camera": (0.0,) * 4}, ValueError, "camera .* must be finite with fx, fy > 0"),
        BadInput({"camera": (1.0, 2.0)}, ValueError, r"camera must be .*, got 2 numbers"),
        BadInput({"size": (-1, 4)}, ValueError, r"size must not be negative, got \(-1, 4\)"),
        BadInput({"background": "0"}, TypeError, "background must be a number, got '0'"),
        BadInput({"size": (16.0, 4)}, TypeError, "size must be an integer, got 16.0"),
    ),
)  # fmt: skip
