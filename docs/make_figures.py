"""The figures of the docs pages of heatmaps, crops and pose edits: python docs/make_figures.py

A person of capsules, rendered by capsule_depth, stands for a photograph; the ops get its joints.
"""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import torch
from PIL import Image

import dgpose_ext
from dgpose.data.dpig_parts import dpig_part_boxes
from dgpose.data.pose_edits import drag_joint, scale_height, scale_limb
from dgpose.skeletons import BODY14, DPIG_LIMBS, DPIG_PART_NAMES, OPENPOSE18
from dgpose.viz.body import PART_COLORS, maps_over, parts_picture
from dgpose.viz.drawing import PAGE, Picture, draw_skeleton, titled, write_text

OUT = Path(__file__).parent / "ops" / "img"
SYSTEMS = Path(__file__).parent / "systems" / "img"
SIDE = 256
CAMERA = (420.0, 420.0, 127.5, 127.5)
DISTANCE = 3150.0

# OpenPose-18 in mm from the pelvis: x to the right of the picture, y down, z away from the camera.
JOINTS = (
    (20, -620, -110), (0, -470, 0), (-170, -465, 10), (-370, -330, 0), (-520, -520, -60),
    (170, -465, -10), (330, -230, -40), (190, -60, -180), (-100, 20, 10), (-170, 410, -120),
    (-190, 800, 60), (100, 20, -10), (210, 400, 30), (330, 760, 160), (-15, -655, -100),
    (50, -655, -100), (-60, -640, -10), (85, -640, -10),
)  # fmt: skip
CAPSULES = (  # joints, radii (mm), RGB; joint 18 is the middle of the head, 19 that of the hips
    (18, 18, 105, 105, (226, 180, 150)), (1, 18, 52, 50, (226, 180, 150)),
    (2, 5, 75, 75, (66, 98, 150)), (1, 19, 120, 130, (66, 98, 150)),
    (2, 8, 80, 90, (66, 98, 150)), (5, 11, 80, 90, (66, 98, 150)),
    (8, 11, 110, 110, (58, 60, 72)),
    (2, 3, 62, 48, (66, 98, 150)), (3, 4, 46, 36, (226, 180, 150)),
    (5, 6, 62, 48, (66, 98, 150)), (6, 7, 46, 36, (226, 180, 150)),
    (8, 9, 92, 66, (58, 60, 72)), (9, 10, 66, 46, (58, 60, 72)),
    (11, 12, 92, 66, (58, 60, 72)), (12, 13, 66, 46, (58, 60, 72)),
)  # fmt: skip


def person() -> tuple[Picture, torch.Tensor]:
    """A shaded picture of 256x256, and the 18 joints in its pixels, [1, 18, 2]."""
    joints = torch.tensor(JOINTS, dtype=torch.float32)
    head = joints[[0, 16, 17]].mean(0) + torch.tensor([0.0, -20.0, 10.0])
    joints = torch.cat([joints, head[None], joints[[8, 11]].mean(0)[None]])
    joints = joints + torch.tensor([0.0, -50.0, DISTANCE])
    ends = [(joint, radius) for a, b, ra, rb, _ in CAPSULES for joint, radius in ((a, ra), (b, rb))]
    points = joints[[joint for joint, _ in ends]][None]
    radii = torch.tensor([[float(radius) for _, radius in ends]])
    edges = torch.arange(len(ends)).view(-1, 2)
    edges[0, 1] = edges[0, 0]  # the head is a sphere
    size = (SIDE, SIDE)
    _, part, normals = dgpose_ext.capsule_depth(
        points, edges, radii, CAMERA, size, return_normals=True
    )
    light = torch.tensor([-0.45, -0.6, -0.66])
    shade = (normals[0] * light[:, None, None]).sum(0).clamp(0, 1) * 0.75 + 0.25
    colors = torch.tensor([color for *_, color in CAPSULES], dtype=torch.float32)
    wall = torch.tensor([176.0, 186.0, 192.0])
    body = colors[part[0].clamp(min=0).long()] * shade[..., None]
    picture = torch.where(part[0, ..., None] >= 0, body, wall).byte().numpy()
    fx, fy, cx, cy = CAMERA
    x, y, z = joints[:18].T
    return picture, torch.stack([fx * x / z + cx, fy * y / z + cy], -1)[None]


def row(*panels: tuple[Picture, str]) -> Picture:
    """Pictures of one height side by side, each under its title."""
    gap = np.full((panels[0][0].shape[0] + 32, 8, 3), PAGE, np.uint8)
    parts = [part for picture, text in panels for part in (titled(picture, text), gap)]
    return np.hstack(parts[:-1])


def save(name: str, picture: Picture, *, palette: bool = False, folder: Path = OUT) -> None:
    """Writes folder/name.png; a palette makes it a third as large, and smooth shades steps."""
    path = folder / f"{name}.png"
    image = Image.fromarray(picture)
    if palette:
        image = image.quantize(256, dither=Image.Dither.NONE)
    image.save(path, optimize=True)
    print(f"wrote {path}, {path.stat().st_size // 1024} KB")


def decoding() -> Picture:
    """The middle of a noisy map, and where each method puts its joint."""
    truth, size, zoom, first = torch.tensor([[[7.37, 6.72]]]), (14, 16), 72, 4
    generator = torch.Generator().manual_seed(5)
    maps = dgpose_ext.gaussian_heatmap(truth, size, 2.0)
    maps = (maps + 0.03 * torch.rand(maps.shape, generator=generator)).clamp(max=1)
    grey = maps[0, 0, first : first + 6, first : first + 8].numpy().repeat(zoom, 0).repeat(zoom, 1)
    picture = np.clip(grey[..., None] * np.array([185.0, 185, 195]), 0, 255).astype(np.uint8)
    side = np.full((picture.shape[0], 260, 3), PAGE, np.uint8)
    marks = [("true position", truth[0, 0], (255, 255, 255))]
    for method, color in (
        ("argmax", (230, 85, 60)), ("quarter", (245, 170, 40)), ("dark", (90, 200, 70)),
        ("softargmax", (70, 150, 240)),
    ):  # fmt: skip
        coords, _ = dgpose_ext.decode_heatmap(maps, method, blur_kernel=11, beta=25.0)
        marks.append((method, coords[0, 0], color))
    for line, (name, (x, y), color) in enumerate(marks):
        at = round((float(x) - first + 0.5) * zoom), round((float(y) - first + 0.5) * zoom)
        cv2.drawMarker(picture, at, (20, 20, 20), cv2.MARKER_CROSS, 18, 5, cv2.LINE_AA)
        cv2.drawMarker(picture, at, color, cv2.MARKER_CROSS, 16, 2, cv2.LINE_AA)
        cv2.line(side, (14, 34 + 34 * line), (38, 34 + 34 * line), color, 4, cv2.LINE_AA)
        error = float((torch.stack([x, y]) - truth[0, 0]).norm())
        text = f"{name}  ({x:.2f}, {y:.2f})" + (f"  {error:.2f} px" if line else "")
        write_text(side, text, (48, 38 + 34 * line), 0.42)
    return np.hstack([picture, side])


def edits(picture: Picture, pose_px: torch.Tensor) -> Picture:
    """Edited poses [14, 2] over the pose that they were made of."""
    wrist = pose_px[BODY14.joints.index("left_wrist")]
    there = wrist + torch.tensor([25.0, -85.0])
    panels = [(picture.copy(), "the pose", pose_px)]
    for text, edited in (
        ("scale_height, 0.8", scale_height(pose_px, 0.8)),
        ('scale_limb, "legs", 0.7', scale_limb(pose_px, "legs", 0.7)),
        ('scale_limb, "arms", 1.4', scale_limb(pose_px, "arms", 1.4)),
        ('drag_joint, "left_wrist"', drag_joint(pose_px, "left_wrist", there)),
    ):
        panel: Picture = np.full_like(picture, 24)
        draw_skeleton(panel, pose_px.numpy(), BODY14, color=(96, 100, 110), thickness=1)
        panels.append((panel, text, edited))
    cv2.drawMarker(
        panels[-1][0], there.round().int().tolist(), (255, 255, 255), cv2.MARKER_CROSS, 16, 2
    )
    for panel, _, pose in panels:
        draw_skeleton(panel, pose.numpy(), BODY14, thickness=3)
    return row(*((panel, text) for panel, text, _ in panels))


def main() -> None:
    """Writes all figures."""
    torch.set_num_threads(1)
    OUT.mkdir(parents=True, exist_ok=True)
    picture, points = person()
    size, black = (SIDE, SIDE), np.zeros_like(picture)
    joints, edges = OPENPOSE18.joint_colors, OPENPOSE18.edge_colors

    maps = dgpose_ext.gaussian_heatmap(points, size, 4.0)[0].numpy()
    wide = dgpose_ext.gaussian_heatmap(points, size, 8.0, cutoff=1.0)[0].numpy()
    save("gaussian_heatmap", row(
        (maps_over(picture, maps, joints), "sigma 4"),
        (maps_over(black, maps, joints), "the 18 maps alone"),
        (maps_over(black, wide, joints), "sigma 8, cutoff 1"),
    ))  # fmt: skip

    maps = dgpose_ext.limb_heatmap(points, OPENPOSE18.edges, size, 4.0)[0].numpy()
    wide = dgpose_ext.limb_heatmap(points, OPENPOSE18.edges, size, 9.0)[0].numpy()
    save("limb_heatmap", row(
        (maps_over(picture, maps, edges), "sigma 4"),
        (maps_over(black, maps, edges), "the 17 maps alone"),
        (maps_over(black, wide, edges), "sigma 9"),
    ))  # fmt: skip

    maps = dgpose_ext.disk_heatmap(points, size, 4)[0].numpy()
    save("disk_heatmap", row(
        (maps_over(picture, maps, joints, smooth=False), "radius 4"),
        (maps_over(black, maps, joints, smooth=False), "the 18 maps alone"),
    ))  # fmt: skip

    thin, mask = (
        dgpose_ext.body_mask(points, DPIG_LIMBS, size, radius)[0, 0].numpy() > 0
        for radius in (4, 8)
    )
    white = [(255, 255, 255)]
    save("body_mask", row(
        (maps_over(black, thin[None].astype(np.float32), white, strength=1), "radius 4"),
        (maps_over(black, mask[None].astype(np.float32), white, strength=1), "radius 8"),
        (np.where(mask[..., None], picture, 0).astype(np.uint8), "foreground"),
        (np.where(mask[..., None], 0, picture).astype(np.uint8), "background"),
    ))  # fmt: skip

    save("decode_heatmap", decoding())

    boxes, present = dpig_part_boxes(points, size)
    framed = picture.repeat(2, 0).repeat(2, 1)
    draw_skeleton(framed, (points[0].numpy() + 0.5) * 2 - 0.5, OPENPOSE18)
    for name, box in zip(DPIG_PART_NAMES, boxes[0], strict=True):
        x1, y1, x2, y2 = ((box + 0.5) * 2 - 0.5).round().int().tolist()
        cv2.rectangle(framed, (x1, y1), (x2, y2), PART_COLORS[name], 2)
    save("part_boxes", framed)

    features = torch.from_numpy(picture).permute(2, 0, 1)[None].float()
    crops = dgpose_ext.crop_and_resize(features, boxes, (64, 64))[0]
    pieces = crops.round().clamp(0, 255).byte().permute(0, 2, 3, 1).numpy()
    save("crop_and_resize", parts_picture(
        picture, points[0].numpy(), np.ones(18, bool), boxes[0].numpy(), present[0].numpy(),
        pieces, "DPIG's seven parts, 64x64 each",
    ), palette=True)  # fmt: skip

    save("dgpose_edits", edits(picture, points[0, : len(BODY14)]), folder=SYSTEMS)


if __name__ == "__main__":
    main()
