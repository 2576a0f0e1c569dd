"""Loaders of photographs of people, on tiny sets in the layouts of the real ones."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from human36m_files import write_mmpose, write_videopose3d
from photo_set_files import (
    draw,
    standing,
    write_chictopia,
    write_deepfashion,
    write_lsp,
    write_market,
)
from typer.testing import CliRunner

from dgpose.cli.app import app
from dgpose.data.deepfashion import image_key
from dgpose.data.image_files import ImageFiles, ImageFormatError, read_image
from dgpose.data.keypoint_annotations import read_pairs
from dgpose.data.lsp import lsp_part, open_lsp
from dgpose.data.person_photos import PersonPhotos, PhotoSetError
from dgpose.data.person_sources import PERSON_SPLITS, PHOTO_SETS, open_photos, read_people
from dgpose.data.pickled_arrays import PickleFormatError


def all_parts(name: str, folder: Path) -> list[PersonPhotos]:
    return [open_photos(name, folder, split) for split in PERSON_SPLITS]


@pytest.mark.parametrize("extended", [False, True])
def test_lsp(tmp_path: Path, extended: bool) -> None:
    joints = write_lsp(tmp_path, 120, extended=extended)
    name = "lspe" if extended else "lsp"
    parts = all_parts(name, tmp_path)
    numbers = [int(text[2:].split(".")[0]) for part in parts for text in part.names]
    assert sorted(numbers) == list(range(1, 121))
    train = parts[0]
    row = train.names.index(f"im{3:0{5 if extended else 4}d}.jpg")
    expected = joints[2, 0, :2] - 1  # right ankle; MATLAB counts from 1
    np.testing.assert_allclose(train.keypoints_px[row, 10], expected, rtol=1e-6)
    np.testing.assert_allclose(
        train.keypoints_px[row, 0], joints[2, 12:, :2].mean(axis=0) - 1, rtol=1e-6
    )
    assert train.known[row].tolist() == [True] * 14 + [False] * 4
    first = train.names.index(f"im{1:0{5 if extended else 4}d}.jpg")
    assert train.known[first, 10] == (not extended)
    pool = train.pool(32)
    assert pool.images.shape == (len(train), 3, 32, 32)
    # All joints within the crop, and as far apart as the margin says.
    seen = pool.keypoints_px[pool.known]
    assert 0 <= float(seen.min()) < float(seen.max()) < 31
    spread = (seen.amax(0) - seen.amin(0)).max()
    assert 32 / 1.35 < float(spread) < 32 / 1.1


def test_lspe_parts_of_the_shared_crops(data_dir: Path) -> None:
    counts = {split: len(open_lsp(data_dir, "lspe", split)) for split in PERSON_SPLITS}
    assert counts == {"train": 1897, "val": 100, "test": 200}
    photos = open_lsp(data_dir, "lspe", "test")
    assert not photos.missing()
    pool = photos.pool(64)
    assert pool.names == photos.names
    assert bool(pool.body[1].all())
    assert bool(((pool.body[0] >= 0) & (pool.body[0] <= 63)).all())


def test_no_photograph_is_learned_and_tested() -> None:
    for test, again in ((1195, 2494), (3615, 2127), (4160, 598)):
        assert lsp_part("lspe", test) == "test"
        assert lsp_part("lspe", again) is None


def test_lsp_parts() -> None:
    parts = [lsp_part("lsp", number) for number in range(1, 2001)]
    assert [parts.count(part) for part in PERSON_SPLITS] == [900, 100, 1000]
    assert parts[999] == "train"
    assert set(parts[1000:]) == {"test"}


def test_broken_lsp(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"must hold joints.mat and images/im00001.jpg"):
        open_lsp(tmp_path, "lspe", "train")
    (tmp_path / "images").mkdir()
    (tmp_path / "joints.mat").write_bytes(b"nonsense")
    with pytest.raises(PhotoSetError, match="not the joints of lsp"):
        open_lsp(tmp_path, "lsp", "train")
    from scipy.io import savemat

    savemat(tmp_path / "joints.mat", {"joints": np.zeros((14, 2, 5))})
    with pytest.raises(PhotoSetError, match=r"\[3, 14, N\] or \[14, 3, N\], got \[14, 2, 5\]"):
        open_lsp(tmp_path, "lsp", "train")


@pytest.mark.parametrize("form", ["mmpose", "videopose3d"])
def test_human36m(tmp_path: Path, form: str) -> None:
    write_mmpose(tmp_path / "a", frames=2)
    folder = tmp_path / "a"
    if form == "videopose3d":
        folder = tmp_path / "b"
        write_videopose3d(folder, frames=2)
        (folder / "images").symlink_to(tmp_path / "a" / "images")
    photos = open_photos("h36m", folder, "test", every=1)
    assert not photos.missing()
    assert photos.identity is not None
    assert set(photos.identity.tolist()) == {9, 11}
    assert photos.known[:, :14].all()
    pool = photos.pool(48)
    assert bool(((pool.body[0] >= 0) & (pool.body[0] <= 47)).all())
    # S8 is held out, and not in these files.
    assert len(open_photos("h36m", folder, "train", every=1)) > 0
    with pytest.raises(ValueError, match="must hold at least one image"):
        open_photos("h36m", folder, "val", every=1).pool(48)


@pytest.mark.parametrize("form", ["raw", "patn"])
def test_deepfashion(tmp_path: Path, form: str) -> None:
    write_deepfashion(tmp_path, form=form)
    train, val, test = all_parts("deepfashion", tmp_path)
    assert [len(part) for part in (train, val, test)] == [10, 2, 4]
    assert val.identity is not None
    assert set(val.identity.tolist()) == {7}
    assert not train.missing()
    assert train.known.sum(axis=1).tolist() == [17] * 10
    # The head is where the picture has it: on a line that was drawn.
    for row in range(len(train)):
        x, y = np.rint(train.keypoints_px[row, 1]).astype(int)
        assert train.image(row)[y, x].min() > 200
    pool = test.pool(64)
    assert bool(((pool.keypoints_px >= 0) & (pool.keypoints_px <= 63)).all())
    if form == "patn":
        assert test.image(0).shape == (256, 176, 3)
        assert pool.images[:, :, :, :10].max() == 0  # black beside the 176 columns
        assert test.pool((256, 176)).size == (256, 176)
        resized = test.pool((128, 88)).keypoints_px[0, 1]
        np.testing.assert_allclose(resized, (test.keypoints_px[0, 1] + 0.5) / 2 - 0.5)


def test_keypoints_of_the_other_width_are_moved(tmp_path: Path) -> None:
    """256-wide keypoints beside 176-wide images, and the other way round."""
    write_deepfashion(tmp_path / "raw", form="raw")
    write_deepfashion(tmp_path / "patn", form="patn")
    for part in ("train", "test"):
        a = tmp_path / "raw" / f"fasion-annotation-{part}.csv"
        b = tmp_path / "patn" / f"fasion-resize-annotation-{part}.csv"
        a.rename(tmp_path / "patn" / a.name)
        b.rename(tmp_path / "raw" / b.name)
    for folder in ("raw", "patn"):
        photos = open_photos("deepfashion", tmp_path / folder, "test")
        assert len(photos) == 4
        for row in range(len(photos)):
            x, y = np.rint(photos.keypoints_px[row, 1]).astype(int)
            assert photos.image(row)[y, x].min() > 200


def test_names_of_deepfashion() -> None:
    names = (
        "Img/img/WOMEN/Tees_Tanks/id_00000316/06_2_side.jpg",
        "img/WOMEN/Tees_Tanks/id_00000316/06_2_side.jpg",
        "fashionWOMENTees_Tanksid0000031606_2side.jpg",
        "train/fasionWOMENTeesTanksid0000031606_2side.jpg",
        "fasionWOMENTeesTanksid0000031606_2side.png",
        "fasionWOMENTeesTanksid0000031606_2side",
    )
    assert {image_key(name) for name in names} == {"WOMENTeesTanksid00000316062side"}
    assert image_key("fasionMENTeesTanksid0000031606_2side") == "MENTeesTanksid00000316062side"
    assert image_key("market/0002_c1s1_000451_03.jpg") is None


def test_names_of_real_deepfashion(data_dir: Path) -> None:
    names = np.load(data_dir / "body/keypoints18/fasion-annotation-test.npz")["names"]
    assert len({image_key(str(name)) for name in names} - {None}) == len(names)


def test_broken_deepfashion(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="In-shop Clothes Retrieval Benchmark"):
        open_photos("deepfashion", tmp_path / "none", "train")
    write_deepfashion(tmp_path, form="raw")
    listed = tmp_path / "Eval" / "list_eval_partition.txt"
    listed.write_text(listed.read_text() + "img/a.jpg id_1 gallery\n")
    with pytest.raises(PhotoSetError, match=r"partition.txt:19: must read image item train"):
        open_photos("deepfashion", tmp_path, "train")
    listed.unlink()
    image = min((tmp_path / "Img").rglob("*.jpg"))
    draw(image, (300, 200), standing(0, 1.0, (0, 0)))
    with pytest.raises(PhotoSetError, match="must have 256x256 or 176x256 pixels, got 200x300"):
        open_photos("deepfashion", tmp_path, "train")


def test_pairs(tmp_path: Path) -> None:
    names = write_deepfashion(tmp_path, form="raw")
    pairs = read_pairs(tmp_path / "fasion-pairs-train.csv")
    assert pairs[0] == (names[0], names[1])
    assert len(pairs) == 8
    (tmp_path / "p.csv").write_text("from,to\na,b,c\n")
    with pytest.raises(PhotoSetError, match=r"p.csv:2: must read from,to, got 'a,b,c'"):
        read_pairs(tmp_path / "p.csv")
    for content in (b"", b"a,b\n", b"\xff\xfe"):
        (tmp_path / "p.csv").write_bytes(content)
        with pytest.raises(PhotoSetError, match="header from,to"):
            read_pairs(tmp_path / "p.csv")


def test_market1501(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="must hold bounding_box_train"):
        open_photos("market", tmp_path, "train")
    write_market(tmp_path)
    train, val, test = all_parts("market", tmp_path)
    assert train.names == ("bounding_box_train/0002_c2s1_000451_03.jpg",)
    assert val.names == ("bounding_box_train/0007_c2s1_000451_03.jpg",)
    assert len(test) == 2  # neither the distractor nor junk
    assert test.identity is not None
    assert test.identity.tolist() == [1, 1]
    whole = test.pool((128, 64))
    assert torch.equal(whole.images[0], torch.from_numpy(test.image(0).transpose(2, 0, 1)))
    np.testing.assert_allclose(whole.keypoints_px, test.keypoints_px, atol=1e-5)


def test_chictopia(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="the archive was not seen"):
        open_photos("chictopia", tmp_path, "train")
    write_chictopia(tmp_path, {"train": 3, "val": 1, "test": 2})
    parts = all_parts("chictopia", tmp_path)
    assert [len(part) for part in parts] == [3, 1, 2]
    photos = parts[0]
    np.testing.assert_allclose(
        photos.keypoints_px[0, 2:14], standing(0, 2.0, (40, 20))[2:14], rtol=1e-6
    )
    assert photos.known[:, :14].all()
    pool = photos.pool(64)
    assert pool.masks is not None
    assert 0.1 < float(pool.masks.float().mean()) < 0.6
    folder = tmp_path / "generation/data/pose/extracted/train"
    moved = tmp_path / "generation/data/pose/input/train"
    moved.mkdir(parents=True)
    (folder / "00000_body.pkl").rename(moved / "00000_image.png_body.pkl")
    assert len(open_photos("chictopia", tmp_path, "train")) == 3
    (folder / "00002_bodysegments.png").unlink()
    assert open_photos("chictopia", tmp_path, "train").pool(64).masks is None


class Malice:
    def __reduce__(self) -> Any:
        return (exec, ("raise AssertionError('it ran')",))


def test_bodies_are_parsed_and_not_run(tmp_path: Path) -> None:
    write_chictopia(tmp_path, {"train": 1})
    body = next(tmp_path.rglob("*_body.pkl"))
    for content, error, message in (
        ({"j2d": Malice()}, PickleFormatError, "must hold arrays alone"),
        ({"j2d": np.zeros((14, 2))}, PhotoSetError, r"j2d of shape \[14, 2\] \(the archive was"),
        ({"j2d": np.full((25, 2), np.nan)}, PhotoSetError, "must hold j2d, finite numbers"),
        ({"pose": 3}, PhotoSetError, r"got \['pose'\]"),
        ([1], PhotoSetError, "got 'list'"),
    ):
        body.write_bytes(pickle.dumps(content, 0))
        with pytest.raises(error, match=message):
            open_photos("chictopia", tmp_path, "train")


def test_rows_and_missing_images(tmp_path: Path) -> None:
    write_chictopia(tmp_path, {"train": 3})
    photos = open_photos("chictopia", tmp_path, "train")
    (tmp_path / "generation/data/pose/extracted" / photos.names[1]).unlink()
    assert photos.missing() == [photos.names[1]]
    there = photos.with_images()
    assert there.names == (photos.names[0], photos.names[2])
    assert there.mask_names == (photos.mask_names[0], photos.mask_names[2])
    with pytest.raises(FileNotFoundError, match=photos.names[1]):
        photos.pool(32)
    done: list[tuple[int, int]] = []
    assert len(there.pool(32, progress=lambda *counts: done.append(counts))) == 2
    assert done == [(1, 2), (2, 2)]
    with pytest.raises(ValueError, match=r"size must be one edge .* got \(32, 16\)"):
        there.pool((32, 16))


def test_box_outside_the_photograph(tmp_path: Path) -> None:
    draw(tmp_path / "a.jpg", (20, 20), standing(0, 0.1, (0, 0)))
    points = np.zeros((1, 18, 2), np.float32)
    known = np.ones((1, 18), bool)
    boxes = np.array([[100.0, 100, 120, 120]])
    photos = PersonPhotos(ImageFiles(tmp_path), ("a.jpg",), points, known, "one", boxes)
    with pytest.raises(PhotoSetError, match=r"a.jpg: box must touch the image of 20x20"):
        photos.pool(16)


def test_enlarged_points_stay_on_their_pixels(tmp_path: Path) -> None:
    picture = np.zeros((10, 10, 3), np.uint8)
    picture[7, 2] = 255
    cv2.imwrite(str(tmp_path / "a.png"), picture)
    points = np.tile(np.array([2.0, 7.0], np.float32), (1, 18, 1))
    known = np.ones((1, 18), bool)
    photos = PersonPhotos(ImageFiles(tmp_path), ("a.png",), points, known, "one")
    for size in (30, (30, 40)):
        pool = photos.pool(size)
        grey = pool.images[0, 0].float()
        height, width = grey.shape
        x = float((grey.sum(0) * torch.arange(width)).sum() / grey.sum())
        y = float((grey.sum(1) * torch.arange(height)).sum() / grey.sum())
        assert pool.keypoints_px[0, 0].tolist() == pytest.approx([x, y], abs=0.01)


def test_sources_by_name(tmp_path: Path) -> None:
    write_lsp(tmp_path, 40, extended=False)
    pool = read_people("lsp", tmp_path, split="train", size=32, count=4)
    assert pool.names == ("im0001.jpg", "im0014.jpg", "im0027.jpg", "im0040.jpg")
    for name, arguments, message in (
        ("lsp", {}, "--data must name the folder of lsp"),
        ("faces", {}, "faces: no such file .people must be rendered, lsp, lspe"),
        ("lsp", {"data": tmp_path, "split": "all"}, "split must be one of train, val, test, got"),
        ("lsp", {"data": tmp_path, "split": "test"}, "must hold at least one image"),
        ("lsp", {"data": tmp_path, "count": 0}, "count must be at least 1, got 0"),
    ):
        with pytest.raises((ValueError, FileNotFoundError), match=message):
            read_people(name, **arguments)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=f"data set must be one of {', '.join(PHOTO_SETS)}"):
        open_photos("faces", tmp_path, "train")


@pytest.mark.parametrize("name", ["lsp", "lspe", "deepfashion", "chictopia", "market"])
def test_data_check(tmp_path: Path, name: str) -> None:
    folder = tmp_path / name

    def check(*more: str) -> Any:
        return CliRunner().invoke(app, ["data", "check", str(folder), "--dataset", name, *more])

    assert check().stderr == f"error: {folder}: no such folder\n"
    folder.mkdir()
    result = check()
    assert result.exit_code == 2
    assert result.stderr.startswith(f"error: {folder}: must hold ")
    if name in ("lsp", "lspe"):
        write_lsp(folder, 1010 if name == "lsp" else 120, extended=name == "lspe")
    elif name == "deepfashion":
        write_deepfashion(folder, form="raw")
    elif name == "chictopia":
        write_chictopia(folder, {"train": 2, "val": 1, "test": 1})
    else:
        write_market(folder)
    result = check("--out", str(tmp_path / "sheet.png"))
    assert result.exit_code == 0, result.output
    for text in ("train", "val", "test", "complete", "picture: "):
        assert text in result.output
    assert (tmp_path / "sheet.png").stat().st_size > 1000
    photos = open_photos(name, folder, "test")
    (photos.images.path / photos.names[0]).unlink()
    result = check()
    assert result.exit_code == 1
    if name != "chictopia":  # its images are the list of what is there
        assert "missing in test: " in result.output


def test_a_damaged_image_is_told_once(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """By our error, and not by a line of OpenCV's."""
    whole = cv2.imencode(".png", np.random.default_rng(0).integers(0, 255, (60, 60, 3), np.uint8))
    path = tmp_path / "cut.png"
    path.write_bytes(whole[1].tobytes()[:2000])
    with pytest.raises(ImageFormatError, match=r"cut\.png: the image cannot be decoded"):
        read_image(path)
    assert capfd.readouterr().err == ""
