"""Pools of person images: checks, rows, files, and rendered people."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from dgpose.data.person_pool import PersonPool, rendered_people
from dgpose.data.person_sources import read_people
from dgpose.data.pose_pool import PosePool
from dgpose.data.synthetic_people import SyntheticPeople
from dgpose.skeletons import BODY14
from dgpose_ext.tensor_file import write_tensor_file


def fields(count: int = 5) -> dict[str, Any]:
    generator = torch.Generator().manual_seed(1)
    known = torch.rand(count, 18, generator=generator) < 0.8
    return {
        "images": torch.randint(0, 256, (count, 3, 24, 16), dtype=torch.uint8, generator=generator),
        "keypoints_px": torch.rand(count, 18, 2, generator=generator) * 16 * known[..., None],
        "known": known,
        "visible": known & (torch.rand(count, 18, generator=generator) < 0.8),
        "identity": torch.arange(count) % 2,
        "masks": torch.rand(count, 1, 24, 16, generator=generator) < 0.5,
        "names": tuple(f"im{row}" for row in range(count)),
        "source": "noise",
    }


def same(a: PersonPool, b: PersonPool) -> bool:
    tensors = ("images", "keypoints_px", "known", "visible", "identity", "masks")
    for name in tensors:
        x, y = getattr(a, name), getattr(b, name)
        if (x is None) != (y is None) or (x is not None and not torch.equal(x, y)):
            return False
    return (a.names, a.source) == (b.names, b.source)


def test_file_gives_the_pool_back(tmp_path: Path) -> None:
    few = {name: fields()[name] for name in ("images", "keypoints_px", "known", "visible")}
    for written in (PersonPool(**fields()), PersonPool(**few)):
        written.save(tmp_path / "pool.safetensors")
        assert same(PersonPool.load(tmp_path / "pool.safetensors"), written)
    with pytest.raises(ValueError, match="must be a pose_pool file"):
        PosePool.load(tmp_path / "pool.safetensors")


def test_refuses_files_of_something_else(tmp_path: Path) -> None:
    path = tmp_path / "pool.safetensors"
    for tensors, described in (
        ({"images": fields()["images"]}, {"source": ""}),
        ({"faces": fields()["images"]}, {}),
        ({name: fields()[name] for name in ("images", "keypoints_px", "known", "visible")},
         {"names": [[1]] * 5}),
    ):  # fmt: skip
        write_tensor_file(path, tensors, kind="person_pool", version=1, metadata=described)
        with pytest.raises(ValueError, match="does not hold a person pool"):
            PersonPool.load(path)


def test_subset_takes_names_along() -> None:
    whole = PersonPool(**fields())
    part = whole.subset(torch.tensor([3, 1]))
    assert torch.equal(part.images, whole.images[[3, 1]])
    assert part.masks is not None
    assert part.names == ("im3", "im1")
    masked = whole.subset(torch.tensor([True, False, False, False, True]))
    assert masked.names == ("im0", "im4")
    assert masked.size == (24, 16)


def test_body_is_the_first_14() -> None:
    whole = PersonPool(**fields())
    points, known = whole.body
    assert points.shape == (5, len(BODY14), 2)
    assert torch.equal(known, whole.known[:, :14])


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"images": torch.zeros(5, 24, 16)}, ValueError, "images must have shape"),
        ({"images": torch.zeros(5, 3, 24, 16)}, TypeError, "images must be uint8"),
        ({"keypoints_px": torch.zeros(5, 14, 2)}, ValueError, r"shape \[N, 18, 2\] with N = 5"),
        ({"keypoints_px": torch.full((5, 18, 2), torch.inf)}, ValueError, "must be finite"),
        ({"keypoints_px": torch.ones(5, 18, 2)}, ValueError, "must be 0 where not known"),
        ({"known": torch.zeros(5, 18)}, TypeError, "known must be bool"),
        ({"visible": torch.ones(5, 18, dtype=torch.bool)}, ValueError, "known joints alone"),
        ({"identity": torch.zeros(4, dtype=torch.int64)}, ValueError, "identity must have shape"),
        ({"masks": torch.ones(5, 1, 16, 16) > 0}, ValueError, r"H = 24, W = 16"),
        ({"names": ("a",) * 5}, ValueError, "names must be 5 different ones"),
    ],
)
def test_refuses_what_does_not_fit(
    changes: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        PersonPool(**(fields() | changes))


def test_rendered_people(tmp_path: Path) -> None:
    people = SyntheticPeople(3, poses="kinematic", size=32)
    pool = rendered_people(people, 3)
    batch = people.batch(range(3))
    assert torch.equal(pool.images.float(), (batch.image * 255).round())
    assert torch.equal(pool.keypoints_px, batch.keypoints_px)
    assert bool(pool.known.all())
    assert torch.equal(pool.visible, batch.keypoint_visible)
    assert not bool(pool.visible.all())
    assert pool.identity is not None
    assert torch.equal(pool.identity, batch.identity)
    assert pool.masks is not None
    assert torch.equal(pool.masks, batch.mask)
    named = read_people("rendered", split="train", size=32, count=3, seed=3)
    assert same(named, PersonPool(**{**vars(pool), "source": named.source}))
    with pytest.raises(ValueError, match="count must be at least 1, got 0"):
        rendered_people(people, 0)
    pool.save(tmp_path / "people.safetensors")
    read = read_people(str(tmp_path / "people.safetensors"), size=32, count=2)
    assert read.names == ("person0000000", "person0000002")
    with pytest.raises(ValueError, match=r"must have 64x64 pixels, as the model's, got 32x32"):
        read_people(str(tmp_path / "people.safetensors"))
