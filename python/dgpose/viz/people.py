"""Contact sheets of rendered people."""

from __future__ import annotations

import cv2
import numpy as np

from dgpose.data.body_capsules import BODY_PARTS
from dgpose.data.synthetic_people import PeopleBatch
from dgpose.skeletons import BODY_COLORS, H36M17
from dgpose.viz.drawing import BODY_LEGEND, PAGE, Picture, draw_skeleton, page_of_tiles

__all__ = ["PART_COLORS", "people_sheet"]


def _part_color(name: str) -> tuple[int, int, int]:
    side, _, limb = name.partition("_")
    if side in ("right", "left"):
        group = f"{side}_{'leg' if limb in ('thigh', 'shank', 'foot') else 'arm'}"
        shade = {"upper_arm": 1.0, "forearm": 0.8, "thigh": 1.0, "shank": 0.8}.get(limb, 0.6)
    else:
        group = "head" if name in ("neck", "head", "hair", "hat") else "torso"
        shade = {"neck": 0.6, "hair": 0.8, "hat": 0.45, "skirt": 0.75, "bag": 0.5}.get(name, 1.0)
    red, green, blue = (round(shade * value) for value in BODY_COLORS[group])
    return red, green, blue


PART_COLORS: dict[str, tuple[int, int, int]] = {name: _part_color(name) for name in BODY_PARTS}
"""RGB colour of each body part: that of its limb, darker toward the end."""


def people_sheet(
    batch: PeopleBatch,
    title: str,
    *,
    skeleton: bool = False,
    parts: bool = False,
    mask: bool = False,
    zoom: int | None = None,
) -> Picture:
    """Images in rows, below each what else is asked for, and its identity / outfit.

    Args:
        batch: of rendered people.
        title: headline.
        skeleton: the image again with the joints that are visible.
        parts: the part map.
        mask: the mask.
        zoom: pixels for one of the image; None: such that images are about 192 pixels high.

    Returns:
        RGB picture.

    Raises:
        ValueError: an empty batch.
    """
    height, width = batch.image.shape[2:]
    factor = max(1, round(192 / height)) if zoom is None else zoom
    lookup = np.array([*PART_COLORS.values(), PAGE], np.uint8)  # -1 is the last
    tiles = []
    for b in range(len(batch.image)):
        image = np.rint(255 * batch.image[b].permute(1, 2, 0).numpy()).astype(np.uint8)
        large = _enlarged(image, factor, cv2.INTER_CUBIC)
        rows = [large]
        if skeleton:
            drawn = large.copy()
            points = (batch.joints_px[b].numpy() + 0.5) * factor - 0.5
            seen = batch.visible[b].numpy()[:, None]
            draw_skeleton(drawn, np.where(seen, points, np.nan), H36M17, thickness=factor)
            rows.append(drawn)
        if parts:
            rows.append(_enlarged(lookup[batch.parts[b].numpy()], factor, cv2.INTER_NEAREST))
        if mask:
            grey = 255 * batch.mask[b, 0].numpy().astype(np.uint8)
            rows.append(_enlarged(np.repeat(grey[..., None], 3, 2), factor, cv2.INTER_NEAREST))
        caption = f"{int(batch.identity[b])} / {int(batch.outfit[b])}"
        tiles.append((np.vstack(rows), caption))
    columns = min(len(batch.image), max(1, 1700 // (width * factor + 8)))
    return page_of_tiles(tiles, title, BODY_LEGEND if skeleton or parts else (), columns=columns)


def _enlarged(picture: Picture, factor: int, how: int) -> Picture:
    size = picture.shape[1] * factor, picture.shape[0] * factor
    enlarged: Picture = np.asarray(cv2.resize(picture, size, interpolation=how), np.uint8)
    return enlarged
