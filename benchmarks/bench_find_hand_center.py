"""find_hand_center on one 640x480 frame beside the same search written with OpenCV and NumPy.

Limit: the frame read once.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from dgpose_ext.testing.find_hand_center import full_frame

from .harness import Case

NEAR, FAR, SLABS, MIN_PIXELS, CUBE = 10.0, 1500.0, 20, 200, 250.0


def _ours(dtype: torch.dtype, backend: str = "cpu") -> Callable[[], Any]:
    from dgpose_ext import find_hand_center

    call = full_frame(dtype)
    return lambda: find_hand_center(**call, backend=backend)


def _opencv(dtype: torch.dtype, contours: bool) -> Callable[[], Any]:
    """inRange a slab, then contours or components, then the centre of mass in NumPy five times."""
    import cv2

    cv2.setNumThreads(1)
    call = full_frame(dtype)
    depth, (fx, fy, *_) = call["depth"].numpy(), call["camera"]

    def start(low: float, high: float) -> tuple[float, float, float] | None:
        mask = cv2.inRange(depth, low, high)
        if contours:
            found, _ = cv2.findContours(mask, cv2.RETR_LIST, cv2.CHAIN_APPROX_SIMPLE)
            for contour in found:
                if cv2.contourArea(contour) > MIN_PIXELS:
                    m = cv2.moments(contour)
                    return m["m10"] / m["m00"], m["m01"] / m["m00"], low
            return None
        _, _, stats, centroids = cv2.connectedComponentsWithStats(mask, connectivity=8)
        areas = stats[1:, cv2.CC_STAT_AREA]
        if not len(areas) or areas.max() <= MIN_PIXELS:
            return None
        u, v = centroids[1 + areas.argmax()]
        return u, v, (low + high) / 2

    def search() -> tuple[float, float, float] | None:
        step = (FAR - NEAR) / SLABS
        for slab in range(SLABS):
            center = start(NEAR + slab * step, NEAR + (slab + 1) * step)
            if center is None:
                continue
            u, v, mm = center
            for _ in range(5):
                hw_x, hw_y = CUBE / 2 * fx / mm, CUBE / 2 * fy / mm
                x0, y0 = max(round(u - hw_x), 0), max(round(v - hw_y), 0)
                window = depth[y0 : round(v + hw_y) + 1, x0 : round(u + hw_x) + 1]
                inside = (window >= max(mm - CUBE / 2, 1)) & (window <= mm + CUBE / 2)
                y, x = np.nonzero(inside)
                u, v, mm = x0 + x.mean(), y0 + y.mean(), window[y, x].mean()
            return u, v, mm
        return None

    return search


def _read(dtype: torch.dtype) -> Callable[[], Any]:
    depth = full_frame(dtype)["depth"].numpy()
    return depth.max


def _case(dtype: torch.dtype, name: str) -> Case:
    return Case(
        name, "frames", 1, 1,
        {
            "dgpose_ext": lambda: _ours(dtype),
            "one read of the frame (NumPy max)": lambda: _read(dtype),
            "OpenCV contours + NumPy": lambda: _opencv(dtype, True),
            "OpenCV components + NumPy": lambda: _opencv(dtype, False),
            "dgpose_ext reference (torch)": lambda: _ours(dtype, "reference"),
        },
        "dgpose_ext", "one read of the frame (NumPy max)",
        note="640x480, a hand before a body, near specks, holes",
    )  # fmt: skip


CASES = [_case(torch.uint16, "one uint16 frame"), _case(torch.float32, "one float32 frame")]
