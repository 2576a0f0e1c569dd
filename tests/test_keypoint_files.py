"""Keypoint files: every form, and what is said about broken ones."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dgpose.data.keypoint_files import KeypointFormatError, PersonKeypoints, read_keypoints
from dgpose.skeletons import BODY_25, COCO17, LSP14, OPENPOSE18, to_openpose18

HEADER = "name:keypoints_y:keypoints_x\n"
Y = [*range(10, 27), -1]
X = [*range(40, 57), 3]


def line(name: str = "a.jpg", y: list[int] = Y, x: list[int] = X) -> str:
    return f"{name}: {y}: {x}\n"


def message(path: Path, content: str | bytes | None = None, **options: Any) -> str:
    if content is not None:
        path.write_bytes(content.encode() if isinstance(content, str) else content)
    with pytest.raises(KeypointFormatError) as caught:
        read_keypoints(path, **options)
    text = str(caught.value)
    assert text.startswith(str(path.parent)), text
    return text.removeprefix(f"{path.parent}/").removeprefix(str(path.parent))


def person_18(person: PersonKeypoints) -> None:
    assert person.xy.shape == (18, 2)
    assert person.xy.dtype == np.float32
    assert person.visible.shape == (18,)
    assert person.visible.dtype == bool
    assert (person.xy[~person.visible] == 0).all()


def test_text_of_market_and_deepfashion(tmp_path: Path) -> None:
    path = tmp_path / "k.csv"
    path.write_bytes((HEADER + line() + "\n" + line("b: c.jpg")).replace("\n", "\r\n").encode())
    first, second = read_keypoints(path)
    assert (first.image, second.image) == ("a.jpg", "b: c.jpg")
    assert first.xy[:17].tolist() == [[x, y] for x, y in zip(X[:17], Y[:17], strict=True)]
    assert first.visible.tolist() == [True] * 17 + [False]
    person_18(first)
    assert len(read_keypoints(path, limit=1)) == 1
    assert len(read_keypoints(path, "openpose18")) == 2


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (HEADER, "k: must hold at least one person, got none"),
        ("", "k: must be a keypoint file: text that begins with 'name:keypoints_y:keypoints_x'"),
        (b"\xff\xfe\x00", "k: must be a keypoint file"),
        ("name,keypoints\n", "k: must be a keypoint file"),
        (HEADER + line() + "a.jpg\n", "k:3: must read 'name: [18 y]: [18 x]', got 'a.jpg'"),
        (HEADER + ": [1]: [2]\n", "k:2: must read"),
        (HEADER + line(y=Y[:17]), "k:2: keypoints_y must be 18 integers, got 17"),
        (HEADER + line(x=[*X, 5]), "k:2: keypoints_x must be 18 integers, got 19"),
        (HEADER + "a.jpg: [1, 2: [3]\n", "k:2: keypoints_y must be a list of integers, got"),
        (HEADER + f"a.jpg: {Y}: {[0.5] * 18}\n", "k:2: keypoints_x must be a list of integers"),
        (HEADER + f"a.jpg: {Y}: {{}}\n", "k:2: keypoints_x must be a list of integers, got ' {}'"),
        (HEADER + line(x=[*X[:17], 10**9]), "k:2: keypoints_x must be pixels, got 1000000000"),
    ],
)
def test_broken_text(tmp_path: Path, content: str | bytes, expected: str) -> None:
    assert message(tmp_path / "k", content).startswith(expected)


def test_text_has_one_skeleton(tmp_path: Path) -> None:
    got = message(tmp_path / "k", HEADER + line(), skeleton="coco17")
    assert got == "k: a file of this form has openpose18, not coco17"
    with pytest.raises(ValueError, match=r"^skeleton must be one of openpose18, .*got 'coco'$"):
        read_keypoints(tmp_path / "k", "coco")


def test_npz_of_names(tmp_path: Path) -> None:
    path = tmp_path / "k.npz"
    xy = np.stack([X, Y], 1)[None].astype(np.int16)
    np.savez(path, names=np.array(["a.jpg"]), xy=xy)
    (person,) = read_keypoints(path)
    person_18(person)
    assert person.visible.tolist() == [True] * 17 + [False]
    coco = np.random.default_rng(0).uniform(5, 60, (2, 17, 2)).astype(np.float32)
    coco[0, 5] = math.nan
    np.savez(path, names=np.array(["a.jpg", "b.jpg"]), xy=coco)
    people = read_keypoints(path, "coco17")
    want, seen = to_openpose18(coco, COCO17, np.isfinite(coco).all(-1))
    assert np.array_equal(people[0].visible, seen[0])
    assert np.array_equal(people[1].xy, want[1])
    assert not people[0].visible[1]  # the neck is the middle of both shoulders
    assert (
        message(path) == "k.npz: 17 joints may be coco17 or h36m17: name their order (--skeleton)"
    )


def test_npz_of_lsp(tmp_path: Path) -> None:
    xy = np.random.default_rng(0).uniform(5, 60, (2, 14, 2)).astype(np.float32)
    xy[0, 0] = -3, 70  # LSP labels joints outside the image
    np.savez(tmp_path / "k.npz", ids=np.array([2, 10000]), xy=xy)
    first, second = read_keypoints(tmp_path / "k.npz")
    assert (first.image, second.image) == ("im00002.jpg", "im10000.jpg")
    assert first.xy[OPENPOSE18.joints.index("right_ankle")].tolist() == [-3, 70]
    names = [joint for joint, seen in zip(OPENPOSE18.joints, first.visible, strict=True) if seen]
    assert set(names) == set(LSP14.joints) - {"head_top"} | {"nose"}


@pytest.mark.parametrize(
    ("arrays", "expected"),
    [
        ({"xy": np.zeros((1, 18, 2))}, "must have the arrays xy and names, or xy and ids, got xy"),
        ({"names": ["a"], "xy": np.zeros((1, 18, 3))}, "xy must have shape [N, J, 2] of numbers"),
        ({"names": ["a"], "xy": np.full((1, 18, 2), "x")}, "xy must have shape [N, J, 2] of num"),
        (
            {"names": ["a"], "xy": np.zeros((2, 18, 2))},
            "names must have shape [2] of text",
        ),
        ({"names": [3], "xy": np.zeros((1, 18, 2))}, "names must have shape [1] of text"),
        ({"ids": [0.5], "xy": np.zeros((1, 14, 2))}, "ids must have shape [1] of integers"),
        ({"ids": [1], "xy": np.zeros((1, 18, 2))}, "lsp14 must have 14 joints, got 18"),
        ({"names": ["a"], "xy": np.zeros((1, 7, 2))}, "the number of joints must be 18 (openpose"),
        ({"names": ["a"], "xy": np.full((1, 18, 2), 1e9)}, "xy must be pixels, got 1e+09"),
        ({"names": np.zeros(0, "U1"), "xy": np.zeros((0, 18, 2))}, "must hold at least one person"),
    ],
)
def test_broken_npz(tmp_path: Path, arrays: dict[str, Any], expected: str) -> None:
    np.savez(tmp_path / "k", **{name: np.asarray(value) for name, value in arrays.items()})
    assert message(tmp_path / "k.npz").startswith(f"k.npz: {expected}")


def test_npz_is_never_unpickled(tmp_path: Path) -> None:
    names = np.empty(1, object)
    names[0] = print
    np.savez(tmp_path / "k", names=names, xy=np.zeros((1, 18, 2)))
    assert "damaged: Object arrays cannot be loaded" in message(tmp_path / "k.npz")
    whole = (tmp_path / "k.npz").read_bytes()
    for cut in (3, 60, len(whole) // 2):
        assert message(tmp_path / "cut.npz", whole[:cut]).startswith("cut.npz: the .npz file")


def coco(**change: Any) -> dict[str, Any]:
    keypoints = [value for j in range(17) for value in (10 + j, 20.5 + j, 2)]
    annotation = {"id": 1, "image_id": 7, "keypoints": keypoints}
    nobody = {"id": 2, "image_id": 7, "keypoints": [0] * 51}
    image = {"id": 7, "file_name": "a.jpg", "height": 100, "width": 80}
    return {"images": [image], "annotations": [annotation, nobody], **change}


def test_coco(tmp_path: Path) -> None:
    document = coco(categories=[{"id": 1, "keypoints": list(COCO17.joints)}])
    document["annotations"][0]["keypoints"][3 * 9 + 2] = 0  # the left wrist
    (tmp_path / "k").write_text(json.dumps(document))
    (person,) = read_keypoints(tmp_path / "k")
    person_18(person)
    assert (person.image, person.size) == ("a.jpg", (100, 80))
    assert person.xy[0].tolist() == [10, 20.5]
    assert not person.visible[OPENPOSE18.joints.index("left_wrist")]
    assert person.visible.sum() == 17


def test_coco_form_with_other_joints(tmp_path: Path) -> None:
    """Human3.6M files in this form have 17 joints as well, and other ones."""
    other = coco(categories=[{"keypoints": ["root (pelvis)", "left_hip", "left_knee"]}])
    got = message(tmp_path / "k", json.dumps(other))
    assert got.startswith("k: the joints must be those of coco17, got root (pelvis), left_hip, ")
    assert len(read_keypoints(tmp_path / "k", "coco17")) == 1
    got = message(tmp_path / "k", json.dumps(other), skeleton="lsp14")
    assert got == "k: annotations[0]: lsp14 must have 14 joints, got 17"


@pytest.mark.parametrize(
    ("document", "expected"),
    [
        ("{", "the JSON is damaged"),
        ([], 'the JSON must have "images" and "annotations" (COCO) or "people" (OpenPose)'),
        ({"a": 1}, 'the JSON must have "images" and'),
        (coco(images={}), '"images" must be a list of objects'),
        (coco(images=[{"id": 1}]), 'images[0]: must have "id" and "file_name"'),
        (coco(images=[{"id": [], "file_name": "a"}]), "images[0]: an id must be a number or text"),
        (coco(annotations=[3]), '"annotations" must be a list of objects'),
        (coco(annotations=[{}]), 'annotations[0]: must have "keypoints"'),
        (
            coco(annotations=[{"image_id": 7, "keypoints": [1, 2]}]),
            "annotations[0]: keypoints must be a list of J x (x, y, v), got 2 values",
        ),
        (
            coco(annotations=[{"image_id": 7, "keypoints": ["1"] * 51}]),
            "annotations[0]: keypoints must be numbers, got '1'",
        ),
        (
            coco(annotations=[{"image_id": 7, "keypoints": [1] * 3 * 16}]),
            "annotations[0]: coco17 must have 17 joints, got 16",
        ),
        (
            coco(annotations=[{"image_id": 8, "keypoints": [1] * 51}]),
            "annotations[0]: image_id must be one of images, got 8",
        ),
        (
            coco(annotations=[{"image_id": 7, "keypoints": [1e30] * 51}]),
            "annotations[0]: keypoints must be pixels, got 1e+30",
        ),
        (
            coco(annotations=[{"image_id": 7, "keypoints": [10**400] * 51}]),
            "annotations[0]: keypoints must be pixels, got 1000",
        ),
        ({"people": 3}, '"people" must be a list'),
        ({"people": [{}]}, 'person 0: must have "pose_keypoints_2d"'),
        (
            {"people": [{"pose_keypoints_2d": [1] * 30}]},
            "person 0: the number of joints must be 25 (body_25), 18 (openpose18), got 10",
        ),
        ({"people": []}, "must hold at least one person, got none"),
    ],
)
def test_broken_json(tmp_path: Path, document: Any, expected: str) -> None:
    content = document if isinstance(document, str) else json.dumps(document)
    assert message(tmp_path / "k", content).startswith(f"k: {expected}")


def test_openpose(tmp_path: Path) -> None:
    rows = np.random.default_rng(0).uniform(5, 60, (25, 3)).round(3)
    rows[4] = 0  # OpenPose's form of missing
    body25 = {"people": [{"pose_keypoints_2d": rows.ravel().tolist()}] * 2}
    (tmp_path / "frame_000000000007_keypoints.json").write_text(json.dumps(body25))
    body18 = {"people": [{"pose_keypoints_2d": rows[:18].ravel().tolist()}]}
    (tmp_path / "frame_000000000008_keypoints.json").write_text(json.dumps(body18))
    first, second, third = read_keypoints(tmp_path)
    assert first.image == second.image == "frame_000000000007"
    want, seen = to_openpose18(rows[None, :, :2].astype(np.float32), BODY_25, rows[None, :, 2])
    assert np.array_equal(first.xy, want[0])
    assert np.array_equal(first.visible, seen[0])
    assert np.array_equal(third.xy[:4], rows[:4, :2].astype(np.float32))
    assert not third.visible[4]
    assert len(read_keypoints(tmp_path, limit=2)) == 2
    (tmp_path / "other.json").write_text("[]")
    assert "other.json: must be OpenPose's JSON, with" in message(tmp_path)
    (tmp_path / "empty").mkdir()
    assert "the folder must hold OpenPose's .json files" in message(tmp_path / "empty")


def test_real_files(data_dir: Path) -> None:
    folder = data_dir / "body"
    market = read_keypoints(folder / "keypoints18" / "market-annotation-train.npz")
    assert len(market) == 12936
    for name, npz in (("market", "train"), ("fasion", "test")):
        text = read_keypoints(folder / "keypoints18/csv" / f"{name}-annotation-head200.csv")
        arrays = read_keypoints(folder / "keypoints18" / f"{name}-annotation-{npz}.npz", limit=200)
        assert len(text) == len(arrays) == 200
        for a, b in zip(text, arrays, strict=True):
            assert a.image == b.image
            assert np.array_equal(a.xy, b.xy)
            assert np.array_equal(a.visible, b.visible)
    lsp = read_keypoints(folder / "lsp_extended" / "lspet_crops128.npz")
    assert len(lsp) == 2200
    assert all(person.visible.sum() == 14 for person in lsp)
    h36m = folder / "h36m_sample" / "h36m_coco.json"
    with pytest.raises(KeypointFormatError, match="got root"):
        read_keypoints(h36m)
