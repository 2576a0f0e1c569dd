"""Images that commands are given: files, folders, boxes, and names for what is made of them."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain, count
from pathlib import Path

from dgpose.data.image_files import IMAGE_SUFFIXES

__all__ = ["free_name", "image_files", "parse_box"]


def image_files(paths: list[Path]) -> Iterator[Path]:
    """The images, folder by folder in the order of their names, without hidden ones.

    Raises:
        FileNotFoundError: no such file.
        ValueError: a folder without images.
    """
    for path in paths:
        if not path.is_dir():
            if not path.is_file():
                raise FileNotFoundError(f"{path}: no such file")
            yield path
            continue
        inside = sorted(
            file
            for file in path.iterdir()
            if file.suffix.lower() in IMAGE_SUFFIXES and not file.name.startswith(".")
        )
        if not inside:
            raise ValueError(f"{path}: must hold images ({', '.join(IMAGE_SUFFIXES)}), got none")
        yield from inside


def parse_box(text: str | None) -> tuple[float, float, float, float] | None:
    """The option --box; None where it is not given.

    Raises:
        ValueError: it is not four numbers.
    """
    if text is None:
        return None
    try:
        x1, y1, x2, y2 = (float(word) for word in text.split(","))
    except ValueError:
        raise ValueError(f"--box must be x1,y1,x2,y2 in pixels, got {text!r}") from None
    return x1, y1, x2, y2


def free_name(stem: str, taken: set[str]) -> str:
    """The image's name, with a number where an earlier picture has it; added to `taken`."""
    names = chain([stem], (f"{stem}_{number}" for number in count(2)))
    name = next(name for name in names if name not in taken)
    taken.add(name)
    return name
