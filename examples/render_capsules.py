"""Renders a hand of capsules, depth, part and normals: python examples/render_capsules.py [OUT.png]

Makes the figure of docs/ops/capsule_depth.md.
"""

from __future__ import annotations

import sys

import cv2
import numpy as np
import torch

from dgpose_ext import capsule_depth
from dgpose_ext.testing.capsule_depth import hand_scene


def main(path: str = "capsules.png") -> None:
    """Writes the picture."""
    scene = hand_scene(1, size=256)
    depth, part, normals = (t[0].numpy() for t in capsule_depth(**scene, return_normals=True))
    hit = part >= 0
    near, far = depth[hit].min(), depth[hit].max()
    shade = np.where(hit, 255 - 190 * (depth - near) / (far - near), 0).astype(np.uint8)
    generator = torch.Generator().manual_seed(3)
    colours = torch.randint(60, 256, (len(scene["edges"]), 3), generator=generator).numpy()
    parts = np.where(hit[..., None], colours[part], 0).astype(np.uint8)
    vectors = np.where(hit[..., None], 127.5 * (1 - normals.transpose(1, 2, 0)), 0).astype(np.uint8)
    cv2.imwrite(path, np.hstack([cv2.cvtColor(shade, cv2.COLOR_GRAY2BGR), parts, vectors]))
    print(f"wrote {path}")


if __name__ == "__main__":
    main(*sys.argv[1:])
