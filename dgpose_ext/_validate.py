"""User-facing checks. Wording: subject, requirement in the notation of the docs, what arrived."""

from __future__ import annotations

import functools
import math
import numbers
from collections.abc import Sequence

import torch
from torch import Tensor


def _parse(notation: str) -> tuple[int | str, ...]:
    names = notation.strip("[]").split(",")
    return tuple(int(n) if n.strip().isdigit() else n.strip() for n in names)


_parse_once = functools.lru_cache(maxsize=256)(_parse)


def require_tensor(name: str, value: object) -> Tensor:
    """The value itself, or TypeError."""
    if not isinstance(value, Tensor):
        raise TypeError(f"{name} must be a torch.Tensor, got {type(value).__name__}")
    return value


def require_shape(name: str, tensor: Tensor, notation: str, **known: int) -> None:
    """ValueError unless the shape fits `notation`.

    "[B, J, 3]" fixes the numbers, and those names that `known` gives a size; other names match
    anything, the same name the same size.
    """
    # torch.compile looks through a cache with a warning, and traces this once anyway.
    sizes = _parse(notation) if torch.compiler.is_compiling() else _parse_once(notation)
    bound = dict(known)
    if tensor.dim() == len(sizes) and all(
        size == (want if isinstance(want, int) else bound.setdefault(want, size))
        for size, want in zip(tensor.shape, sizes, strict=True)
    ):
        return
    where = ", ".join(f"{k} = {v}" for k, v in known.items() if k in sizes)
    where = f" with {where}" if where else ""
    raise ValueError(f"{name} must have shape {notation}{where}, got {list(tensor.shape)}")


def require_dtype(name: str, tensor: Tensor, allowed: Sequence[torch.dtype]) -> None:
    """TypeError unless the dtype is one of `allowed`."""
    if tensor.dtype not in allowed:
        wanted = ", ".join(str(dtype).removeprefix("torch.") for dtype in allowed)
        got = str(tensor.dtype).removeprefix("torch.")
        raise TypeError(f"{name} must be of dtype {wanted}, got {got}")


def require_device(name: str, tensor: Tensor, other_name: str, other: Tensor) -> None:
    """ValueError unless both tensors are on one device."""
    if tensor.device != other.device:
        raise ValueError(
            f"{name} must be on the device of {other_name} ({other.device}), got {tensor.device}"
        )


def refuse_gradients(op: str, **arguments: object) -> None:
    """ValueError where an argument without a gradient requires one, and grad mode is on."""
    if not torch.is_grad_enabled():
        return
    for name, value in arguments.items():
        if isinstance(value, Tensor) and value.requires_grad:
            raise ValueError(f"{name} must not require a gradient: {op} has none for it; detach it")


def visible_mask(visible: Tensor | None, keypoints: Tensor) -> Tensor | None:
    """visible as bool [B, K] beside keypoints [B, K, ...]; None stays None."""
    if visible is None:
        return None
    batch, joints = keypoints.shape[:2]
    require_shape("visible", require_tensor("visible", visible), "[B, K]", B=batch, K=joints)
    require_device("visible", visible, "keypoints", keypoints)
    return visible if visible.dtype == torch.bool else visible != 0


def require_number(name: str, value: object, *, or_tensor: bool = False) -> None:
    """TypeError unless the value is a real number (or a symbolic one, under torch.compile).

    `or_tensor`: the argument may be a tensor too, which the caller has dealt with.
    """
    real = isinstance(value, int | float | torch.SymInt | torch.SymFloat)
    if not real and not isinstance(value, numbers.Real):
        wanted = "a number or a torch.Tensor" if or_tensor else "a number"
        raise TypeError(f"{name} must be {wanted}, got {value!r}")


def require_integer(name: str, value: object) -> None:
    """TypeError unless the value is an integer (or a symbolic one, under torch.compile)."""
    if not isinstance(value, int | torch.SymInt):
        raise TypeError(f"{name} must be an integer, got {value!r}")


def limb_list(limbs: Sequence[tuple[int, int]], joints: int) -> list[int]:
    """Pairs of joints in 0 .. K-1, one after the other, or ValueError / TypeError."""
    flat = []
    if not isinstance(limbs, Sequence):
        raise TypeError(f"limbs must be a sequence of pairs of joints, got {limbs!r}")
    for limb in limbs:
        if not (isinstance(limb, (tuple, list, Sequence)) and len(limb) == 2):
            raise ValueError(f"limbs must be pairs of joints, got {limb!r}")
        for joint in limb:
            if type(joint) is not int:  # the check costs as much as a mask
                require_integer("a joint of limbs", joint)
            if not 0 <= joint < joints:
                raise ValueError(f"limbs must lie in 0 .. K-1 with K = {joints}, got {limb!r}")
            flat.append(joint)
    return flat


def limb_tensor(limbs: Sequence[tuple[int, int]] | Tensor, keypoints: Tensor) -> Tensor:
    """Limbs between the joints of keypoints [B, K, 2] as an int64 tensor [L, 2] beside them.

    The values of a tensor are checked on the CPU, since to look at them elsewhere would wait for
    the device.
    """
    joints = keypoints.shape[1]
    if not isinstance(limbs, Tensor):
        pairs = torch.tensor(limb_list(limbs, joints), dtype=torch.int64, device=keypoints.device)
        return pairs.view(-1, 2)
    require_shape("limbs", limbs, "[L, 2]")
    require_dtype("limbs", limbs, (torch.int64,))
    require_device("limbs", limbs, "keypoints", keypoints)
    if limbs.device.type == "cpu" and not torch.compiler.is_compiling() and limbs.numel():
        low, high = (int(v) for v in limbs.aminmax())
        if low < 0 or high >= joints:
            raise ValueError(
                f"limbs must lie in 0 .. K-1 with K = {joints}, got {low if low < 0 else high}"
            )
    return limbs


def require_size(name: str, value: object) -> tuple[int, int]:
    """(H, W) as two non-negative integers."""
    if not (isinstance(value, Sequence) and len(value) == 2):
        raise ValueError(f"{name} must be (H, W), got {value!r}")
    height, width = value
    require_integer(name, height)
    require_integer(name, width)
    if height < 0 or width < 0:
        raise ValueError(f"{name} must not be negative, got {value!r}")
    return height, width


def camera_tensor(
    camera: Sequence[float] | Tensor, *, like: Tensor, dtype: torch.dtype, batch: int
) -> Tensor:
    """Camera (fx, fy, cx, cy) in pixels as a tensor [1, 4] or [B, 4] beside `like`.

    Four numbers are checked (finite, focal lengths positive); a tensor [4], [1, 4] or [B, 4] is
    checked for shape only, since looking at its values would wait for the device.
    """
    if isinstance(camera, Tensor):
        tensor = camera if camera.dim() == 2 else camera[None]
        if tensor.dim() != 2 or tensor.shape[1] != 4 or tensor.shape[0] not in (1, batch):
            raise ValueError(
                f"camera must be (fx, fy, cx, cy) or have shape [4] or [B, 4] with B = {batch}, "
                f"got {list(camera.shape)}"
            )
        return tensor.to(like.device, dtype)
    return torch.tensor([camera_numbers(camera)], dtype=dtype, device=like.device)


def require_search_range(near: float, far: float) -> None:
    """ValueError unless `find_hand_center` can search [near, far] mm."""
    require_number("near", near)
    require_number("far", far)
    if not 0 <= near < far <= 65535:
        raise ValueError(
            f"near and far must fulfil 0 <= near < far <= 65535, got near = {near}, far = {far}"
        )


def camera_numbers(camera: Sequence[float]) -> tuple[float, float, float, float]:
    """(fx, fy, cx, cy) as finite numbers with positive focal lengths, or ValueError."""
    try:
        values = tuple(float(v) for v in camera)
    except (TypeError, ValueError):
        raise TypeError(f"camera must be (fx, fy, cx, cy), got {camera!r}") from None
    if len(values) != 4:
        raise ValueError(f"camera must be (fx, fy, cx, cy), got {len(values)} numbers")
    fx, fy, cx, cy = values
    if not all(-math.inf < v < math.inf for v in values) or fx <= 0 or fy <= 0:
        raise ValueError(f"camera (fx, fy, cx, cy) must be finite with fx, fy > 0, got {values}")
    return fx, fy, cx, cy
