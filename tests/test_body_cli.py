"""`dgpose heatmap` and `dgpose crop`."""

from __future__ import annotations

import csv
import json
import zipfile
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from typer.testing import CliRunner

import dgpose_ext
from dgpose.cli.app import app
from dgpose.data.dpig_parts import dpig_part_boxes
from dgpose.data.image_files import ImageFiles, ImageFormatError
from dgpose.skeletons import DPIG_LIMBS, DPIG_PART_NAMES

# A person in 128x64 without a visible left arm (joints 5 to 7).
X = [32, 32, 22, 18, 17, -1, -1, -1, 26, 25, 26, 38, 39, 38, 30, 34, 28, 36]
Y = [14, 24, 25, 40, 55, -1, -1, -1, 58, 85, 112, 58, 85, 112, 12, 12, 13, 13]
VISIBLE = torch.tensor([x >= 0 for x in X])[None]
POINTS = torch.tensor([X, Y], dtype=torch.float32).T[None] * VISIBLE[..., None]
MARKET = (128, 64)


def image(size: tuple[int, int], seed: int = 0) -> np.ndarray:
    """A smooth picture, so that a resized one is not far from it."""
    noise = np.random.default_rng(seed).uniform(0, 255, (5, 4, 3)).astype(np.float32)
    return cv2.resize(noise, size[::-1], interpolation=cv2.INTER_LINEAR).astype(np.uint8)


def write(path: Path, picture: np.ndarray) -> None:
    assert cv2.imwrite(str(path), picture[..., ::-1])


def read(path: Path) -> np.ndarray:
    return np.asarray(cv2.imread(str(path)))[..., ::-1]


def keypoint_text(*names: str) -> str:
    return "name:keypoints_y:keypoints_x\n" + "".join(f"{name}: {Y}: {X}\n" for name in names)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """k.csv of two people, and images/ with the image of the first."""
    (tmp_path / "k.csv").write_text(keypoint_text("first.jpg", "second.jpg"))
    (tmp_path / "images").mkdir()
    write(tmp_path / "images" / "first.jpg", image(MARKET))
    return tmp_path


def run(*arguments: object, code: int = 0) -> Any:
    result = CliRunner().invoke(app, [*map(str, arguments)])
    assert result.exit_code == code, result.output
    assert "Traceback" not in result.output
    return result


def error_line(*arguments: object) -> str:
    lines: list[str] = [line for line in run(*arguments, code=2).stderr.splitlines() if line]
    assert lines[-1].startswith("error: "), lines
    return lines[-1].removeprefix("error: ")


def names(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*.*"))


def test_masks_without_images(folder: Path) -> None:
    out = folder / "out"
    arguments = ("heatmap", folder / "k.csv", "--kind", "mask", "--out", out)
    result = run(*arguments, "--preset", "market")
    assert "2 of 2 people drawn" in result.stdout
    assert names(out) == [
        *("masks/first.png", "masks/second.png"),
        *("pictures/first.png", "pictures/second.png", "sheet.png"),
    ]
    want = dgpose_ext.body_mask(POINTS, DPIG_LIMBS, MARKET, 7, visible=VISIBLE)[0, 0].numpy() > 0
    mask = read(out / "masks" / "first.png")
    assert np.array_equal(mask, np.where(want, 255, 0)[..., None].repeat(3, 2))
    picture = read(out / "pictures" / "first.png")
    assert picture.shape == (384, 192, 3)
    assert np.array_equal(picture.any(-1), want.repeat(3, 0).repeat(3, 1))
    run(*arguments, "--preset", "market", "--radius", 4, "--limit", 1)
    assert read(out / "masks" / "first.png").sum() < mask.sum()


@pytest.mark.parametrize("kind", ["gaussian", "limb", "disk", "mask"])
def test_maps_lie_over_the_image(folder: Path, kind: str) -> None:
    picture = image((400, 200))
    write(folder / "images" / "first.png", picture)  # as large as it is drawn
    (folder / "images" / "first.jpg").unlink()
    out = folder / "out"
    run(
        *("heatmap", folder / "k.csv", "--images", folder / "images", "--preset", "market"),
        *("--kind", kind, "--out", out),
    )
    drawn = read(out / "pictures" / "first.png").astype(int)
    assert drawn.shape == picture.shape
    moved = (np.abs(drawn - picture) > 1).any(-1)
    assert 0.01 < moved.mean() < 0.6
    neck = (24.5 / 128 * 400, 32.5 / 64 * 200)  # keypoints follow the image's size
    assert moved[round(neck[0]), round(neck[1])]
    assert not moved[-20:].any()
    black = read(out / "pictures" / "second.png")
    assert black.shape == (384, 192, 3)
    assert (black == 0).all(-1).any()


def test_sigma_and_size(folder: Path) -> None:
    shares = []
    for sigma in (1, 4):
        run(
            *("heatmap", folder / "k.csv", "--size", "512x256", "--preset", "market"),
            *("--sigma", sigma, "--out", folder / "out"),
        )
        picture = read(folder / "out" / "pictures" / "first.png")
        assert picture.shape == (512, 256, 3)
        shares.append(picture.any(-1).mean())
    assert shares[1] > 5 * shares[0]


def test_coco_says_the_size_and_people_share_an_image(tmp_path: Path) -> None:
    keypoints = [value for j in range(17) for value in (10 + 3 * j, 20 + 3 * j, 2)]
    people = [{"id": i, "image_id": 1, "keypoints": keypoints} for i in range(3)]
    record = {"id": 1, "file_name": "val/a.b.jpg", "height": 90, "width": 400}
    other = {"id": 2, "file_name": "a.b_2.jpg", "height": 90, "width": 400}
    people.append({"id": 9, "image_id": 2, "keypoints": keypoints})
    (tmp_path / "k.json").write_text(json.dumps({"images": [record, other], "annotations": people}))
    run("heatmap", tmp_path / "k.json", "--kind", "mask", "--out", tmp_path / "out")
    found = sorted(path.name for path in (tmp_path / "out" / "masks").iterdir())
    assert found == ["a.b.png", "a.b_2.png", "a.b_3.png", "a.b_4.png"]
    assert read(tmp_path / "out" / "masks" / "a.b.png").shape == (90, 400, 3)


def test_names_cannot_leave_the_folder(folder: Path) -> None:
    write(folder / "evil.jpg", image(MARKET))
    text = keypoint_text("../evil.jpg", f"{folder}/evil.jpg")
    (folder / "k.csv").write_text(text)
    out = folder / "a" / "out"
    run(
        *("heatmap", folder / "k.csv", "--images", folder / "images", "--preset", "market"),
        *("--out", out),
    )
    assert names(out) == ["pictures/evil.png", "pictures/evil_2.png", "sheet.png"]
    assert (read(out / "pictures" / "evil.png") == 0).all(-1).any()  # drawn on black


def test_crops_are_those_of_the_ops(folder: Path) -> None:
    out = folder / "out"
    arguments = ("crop", folder / "k.csv", "--images", folder / "images", "--out", out)
    result = run(*arguments, "--preset", "market")
    assert "no image second.jpg" in result.stderr
    assert "1 of 2 people cut" in result.stdout
    boxes, present = dpig_part_boxes(POINTS, MARKET, VISIBLE)
    assert present[0].tolist() == [True, True, True, False, True, True, True]
    shown = [name for name, there in zip(DPIG_PART_NAMES, present[0], strict=True) if there]
    assert names(out) == sorted(
        ["boxes.csv", "pictures/first.png", *(f"parts/first_{name}.png" for name in shown)]
    )
    with (out / "boxes.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["part"] for row in rows] == list(DPIG_PART_NAMES)
    assert [row["present"] for row in rows] == ["1", "1", "1", "0", "1", "1", "1"]
    got = [[float(row[k]) for k in ("x1", "y1", "x2", "y2")] for row in rows]
    assert got == boxes[0].tolist()
    features = torch.from_numpy(read(folder / "images" / "first.jpg").copy()).permute(2, 0, 1)
    crops = dgpose_ext.crop_and_resize(features[None].float(), boxes, (48, 48))
    piece = read(out / "parts" / "first_legs.png")
    assert np.array_equal(piece, crops[0, 2].round().byte().permute(1, 2, 0).numpy())
    overview = read(out / "pictures" / "first.png")
    assert (overview == 90).all(-1).sum() > 20000  # the absent part is grey
    run(*arguments, "--preset", "market", "--size", "20x30", "--limit", 1)
    assert read(out / "parts" / "first_legs.png").shape == (20, 30, 3)


def test_crops_of_an_image_of_another_size(folder: Path) -> None:
    """Boxes are those of the preset's size, scaled to the image."""
    write(folder / "images" / "first.jpg", image((256, 128)))
    out = folder / "out"
    run(
        *("crop", folder / "k.csv", "--images", folder / "images", "--out", out),
        *("--preset", "market", "--limit", 1),
    )
    with (out / "boxes.csv").open() as file:
        rows = list(csv.DictReader(file))
    boxes, _ = dpig_part_boxes(POINTS, MARKET, VISIBLE)
    got = [[float(row[k]) for k in ("x1", "y1", "x2", "y2")] for row in rows]
    np.testing.assert_allclose(got, (boxes[0] + 0.5) * 2 - 0.5, atol=1e-3)


def test_margins_follow_the_shape_without_a_preset(folder: Path) -> None:
    for size, preset, scale in ((MARKET, (128, 64), 1), ((128, 128), (256, 256), 2)):
        write(folder / "images" / "first.jpg", image(size))
        run(
            *("crop", folder / "k.csv", "--images", folder / "images", "--limit", 1),
            *("--out", folder / "out"),
        )
        points = (POINTS + 0.5) * scale - 0.5 if scale != 1 else POINTS
        boxes, _ = dpig_part_boxes(points, preset, VISIBLE)
        want = (boxes[0, 2] + 0.5) / scale - 0.5 if scale != 1 else boxes[0, 2]
        with (folder / "out" / "boxes.csv").open() as file:
            row = list(csv.DictReader(file))[2]
        got = [float(row[k]) for k in ("x1", "y1", "x2", "y2")]
        np.testing.assert_allclose(got, want, atol=1e-3)


def test_bad_images_are_told_and_the_rest_is_drawn(folder: Path) -> None:
    (folder / "images" / "second.jpg").write_bytes(b"\xff\xd8 no image")
    for command in ("heatmap", "crop"):
        result = run(
            *(command, folder / "k.csv", "--images", folder / "images", "--out", folder / "out"),
            *("--preset", "market"),
        )
        assert "bad image" in result.stderr
        assert "second.jpg: the image cannot be decoded" in result.stderr
        assert "1 of 2 people" in result.stdout
    (folder / "images" / "first.jpg").write_bytes(b"")
    for command in ("heatmap", "crop"):
        assert "images must hold at least one image" in error_line(
            *(command, folder / "k.csv", "--images", folder / "images", "--out", folder / "out")
        )


def test_errors_are_one_line(folder: Path) -> None:
    (folder / "bad.csv").write_text(keypoint_text("a.jpg").replace("[14,", "[14.5,"))
    out = ("--out", folder / "out")
    images = ("--images", folder / "images")
    keypoints = folder / "k.csv"
    coco = {
        "images": [{"id": 1, "file_name": "a.jpg", "height": 60000, "width": 9}],
        "annotations": [{"image_id": 1, "keypoints": [1] * 51}],
    }
    (folder / "large.json").write_text(json.dumps(coco))
    cases: list[tuple[tuple[object, ...], str]] = [
        (("heatmap", folder / "large.json", *out), "to be drawn on black, got 60000x9"),
        (
            ("heatmap", folder / "bad.csv", *out),
            "bad.csv:2: keypoints_y must be a list",
        ),
        (("heatmap", folder / "none.csv", *out), "none.csv: No such file or directory"),
        (("heatmap", folder / "images" / "first.jpg", *out), "must be a keypoint file"),
        (("heatmap", keypoints, *out), "the size of first.jpg must be known: give --size HxW"),
        (("heatmap", keypoints, *images, *out), "the size of second.jpg must be known"),
        (("heatmap", keypoints, *out, "--size", "12"), "size must be HxW with sides of 1 to 4096"),
        (("heatmap", keypoints, *out, "--size", "0x9"), "pixels, got '0x9'"),
        (("heatmap", keypoints, *out, "--size", "9x99999"), "pixels, got '9x99999'"),
        (
            ("heatmap", keypoints, *out, "--sigma", "-1"),
            "sigma must lie in (0, 4096] pixels",
        ),
        (("heatmap", keypoints, *out, "--radius", "nan"), "radius must lie in (0, 4096]"),
        (("heatmap", keypoints, *out, "--skeleton", "me"), "skeleton must be one of openpose18"),
        (("crop", keypoints, *out, "--images", folder / "no"), "no: No such file or directory"),
        (("crop", keypoints, *out, "--images", keypoints), "must be a folder or a .zip"),
        (("crop", keypoints, *out, *images, "--size", "ax4"), "size must be HxW"),
    ]
    for arguments, expected in cases:
        assert expected in error_line(*arguments)
    (folder / "file").write_text("")
    assert "file" in error_line(
        "heatmap", keypoints, "--preset", "market", "--out", folder / "file"
    )


def test_images_by_name(tmp_path: Path) -> None:
    for name in ("a.jpg", "fashionWOMENBlouses_Shirtsid1.jpg", "twice.jpg", "twice.png"):
        write(tmp_path / name, image(MARKET))
    (tmp_path / "sub").mkdir()
    write(tmp_path / "sub" / "b.jpg", image(MARKET))
    with zipfile.ZipFile(tmp_path / "z.zip", "w") as archive:
        for file in (*tmp_path.glob("*.jpg"), tmp_path / "sub" / "b.jpg"):
            archive.write(file, file.relative_to(tmp_path))
        archive.write(tmp_path / "twice.png", "twice.png")
    for files in (ImageFiles(tmp_path), ImageFiles(tmp_path / "z.zip")):
        for name in ("a.jpg", "a", "val/a.jpg", "fasionWOMENBlousesShirtsid1.jpg", "sub/b.jpg"):
            found = files.read(name)
            assert found is not None, name
            assert found.shape == (128, 64, 3)
        for name in ("b", "twice", "A.jpg", "z.zip", "sub", "", ".."):
            if name != "b" or files.path.is_dir():
                assert files.read(name) is None, name
    whole = (tmp_path / "z.zip").read_bytes()
    (tmp_path / "cut.zip").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ImageFormatError, match=r"cut\.zip: images must be a folder or a \.zip"):
        ImageFiles(tmp_path / "cut.zip")
    at = whole.find(b"\xff\xd8") + 200
    name = whole[30 : 30 + whole[26]].decode()  # of the first file
    (tmp_path / "bad.zip").write_bytes(whole[:at] + bytes(50) + whole[at + 50 :])
    with pytest.raises(ImageFormatError, match=r"bad\.zip"):
        ImageFiles(tmp_path / "bad.zip").read(name)


def test_real_photographs(data_dir: Path, tmp_path: Path) -> None:
    folder = data_dir / "body" / "lsp_extended"
    arguments = (folder / "lspet_crops128.npz", "--images", folder / "lspet_crops128.zip")
    run("heatmap", *arguments, "--limit", 3, "--out", tmp_path / "heatmap", "--kind", "limb")
    run("crop", *arguments, "--limit", 3, "--out", tmp_path / "crop")
    assert len(names(tmp_path / "heatmap")) == 4
    assert len(names(tmp_path / "crop")) == 1 + 3 + 3 * 7
