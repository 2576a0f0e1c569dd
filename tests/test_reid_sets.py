"""Queries and galleries: Market-1501's files and rendered people; pairs of photographs."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from photo_set_files import write_deepfashion, write_market

from dgpose.data.deepfashion import image_key
from dgpose.data.market1501 import open_market1501_ranking
from dgpose.data.person_photos import PhotoSetError
from dgpose.data.photo_pairs import photo_pairs
from dgpose.data.reid_sets import market_reid_set, rendered_reid_people, rendered_reid_set

SMALL = (32, 16)


def test_query_and_gallery_of_market1501(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="must hold query with"):
        open_market1501_ranking(tmp_path)
    write_market(tmp_path)
    found = market_reid_set(tmp_path, size=SMALL)
    assert found.query.identity is not None
    assert found.gallery.identity is not None
    assert (found.query.identity.tolist(), found.query_cameras.tolist()) == ([1], [1])
    gallery = dict(zip(found.gallery.identity.tolist(), found.gallery.names, strict=True))
    assert {who: name[:22] for who, name in gallery.items()} == {
        -1: "bounding_box_test/-1_c", 0: "bounding_box_test/0000", 1: "bounding_box_test/0001",
    }  # fmt: skip
    assert found.gallery_cameras.tolist() == [2, 2, 2]
    assert found.query.known.all()
    assert found.gallery.images.shape == (3, 3, *SMALL)
    (tmp_path / "market-annotation-test.csv").unlink()
    assert not market_reid_set(tmp_path, size=SMALL).gallery.known.any()
    (tmp_path / "query" / "nobody.jpg").write_bytes(b"")
    with pytest.raises(PhotoSetError, match="must be named PPPP_cCsS_"):
        open_market1501_ranking(tmp_path)


def test_rendered_query_and_gallery() -> None:
    chosen = {"persons": 4, "distractors": 2, "cameras": 3, "images": 3, "size": SMALL}
    found = rendered_reid_set(**chosen)  # type: ignore[arg-type]
    assert found.query.identity is not None
    assert found.gallery.identity is not None
    asked = list(zip(found.query.identity.tolist(), found.query_cameras.tolist(), strict=True))
    assert sorted(asked) == [(who, camera) for who in (1, 2, 3, 4) for camera in (1, 2, 3)]
    ids, counts = found.gallery.identity.unique(return_counts=True)
    assert dict(zip(ids.tolist(), counts.tolist(), strict=True)) == {
        0: 12, 1: 6, 2: 6, 3: 6, 4: 6,
    }  # fmt: skip
    again = rendered_reid_set(**chosen)  # type: ignore[arg-type]
    assert torch.equal(found.gallery.images, again.gallery.images)
    other = rendered_reid_set(**chosen, seed=1)  # type: ignore[arg-type]
    assert not torch.equal(found.gallery.images, other.gallery.images)
    # Nobody stands twice in one pose.
    assert len(found.gallery.keypoints_px.flatten(1).unique(dim=0)) == len(found.gallery)


@pytest.mark.parametrize("change", [{"persons": 0}, {"cameras": 1}, {"images": 1}])
def test_errors_of_the_rendered_set(change: dict[str, int]) -> None:
    name = next(iter(change))
    with pytest.raises(ValueError, match=rf"{name} must be at least \d, got {change[name]}"):
        rendered_reid_set(**change)  # type: ignore[arg-type]


def test_people_to_learn_from() -> None:
    pool = rendered_reid_people(persons=5, count=40, size=SMALL)
    assert pool.identity is not None
    assert len(pool.identity.unique()) == 5
    assert "5 persons" in pool.source


@pytest.mark.parametrize("form", ["raw", "patn"])
def test_pairs_of_deepfashion(tmp_path: Path, form: str) -> None:
    names = write_deepfashion(tmp_path, form=form)
    (tmp_path / "fasion-pairs-train.csv").rename(tmp_path / "fasion-resize-pairs-test.csv")
    source, target = photo_pairs("deepfashion", tmp_path, "test", size=(32, 32))
    # Of eight listed pairs two are of the test part.
    assert len(source) == len(target) == 2
    assert source.identity is not None
    assert target.identity is not None
    assert source.identity.tolist() == target.identity.tolist() == [4, 8]
    assert not torch.equal(source.keypoints_px, target.keypoints_px)
    assert image_key(names[0]) is not None
    assert len(photo_pairs("deepfashion", tmp_path, "test", size=(32, 32), count=1).source) == 1


def test_pairs_of_market1501(tmp_path: Path) -> None:
    write_market(tmp_path)
    with pytest.raises(FileNotFoundError, match="must hold market-pairs-test"):
        photo_pairs("market", tmp_path, "test", size=SMALL)
    one, other = "0001_c1s1_000451_03.jpg", "0001_c2s1_000451_03.jpg"
    listed = tmp_path / "market-pairs-test.csv"
    listed.write_text(f"from,to\n{one},{other}\n{other},{one}\n{one},0009_c1s1_000451_03.jpg\n")
    source, target = photo_pairs("market", tmp_path, "test", size=SMALL)
    assert torch.equal(source.images[0], target.images[1])
    assert torch.equal(source.images[1], target.images[0])
    listed.write_text("from,to\na.jpg,b.jpg\n")
    with pytest.raises(PhotoSetError, match="none of them is there"):
        photo_pairs("market", tmp_path, "test", size=SMALL)
    with pytest.raises(ValueError, match="pairs must be of market or deepfashion, got 'lsp'"):
        photo_pairs("lsp", tmp_path, "test", size=SMALL)
