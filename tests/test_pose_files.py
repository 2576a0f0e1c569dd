"""Poses from files of every kind, and what is said about unsuitable ones."""

from __future__ import annotations

import contextlib
import io
import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dgpose.data.keypoint_files import SKELETONS, KeypointFormatError
from dgpose.data.pose_files import PoseFile, read_pose_file
from dgpose.skeletons import BODY14, COCO17, OPENPOSE18, Skeleton, to_openpose18


def points(skeleton: Skeleton, poses: int = 1, seed: int = 0) -> npt.NDArray[np.float64]:
    return np.random.default_rng(seed).uniform(5, 90, (poses, len(skeleton), 2)).round(3)


def expected(xy: npt.NDArray[np.float64], skeleton: Skeleton) -> tuple[Any, Any]:
    single = xy.astype(np.float32)
    if skeleton is OPENPOSE18:
        return single, np.ones(xy.shape[:2], bool)
    return to_openpose18(single, skeleton)


def same(read: PoseFile, xy: npt.NDArray[np.float64], skeleton: Skeleton) -> None:
    want, known = expected(xy, skeleton)
    assert read.keypoints_px.dtype == np.float32
    assert read.keypoints_px.shape == (len(xy), 18, 2)
    np.testing.assert_array_equal(read.known, known)
    np.testing.assert_allclose(read.keypoints_px, want, rtol=1e-6)
    assert len(read.sizes) == len(read.images) == len(xy)


def message(path: Path, *arguments: Any) -> str:
    with pytest.raises(KeypointFormatError) as caught:
        read_pose_file(path, *arguments)
    return str(caught.value).removeprefix(f"{path}: ")


every_order = pytest.mark.parametrize("skeleton", SKELETONS.values(), ids=lambda s: s.name)


@every_order
def test_arrays_in_every_order(tmp_path: Path, skeleton: Skeleton) -> None:
    xy = points(skeleton, 2)
    np.save(tmp_path / "poses.npy", xy)
    np.savez(tmp_path / "poses.npz", keypoints_px=xy, size=[100, 80])
    for name in ("poses.npy", "poses.npz"):
        same(read_pose_file(tmp_path / name, skeleton.name), xy, skeleton)
        if len(skeleton) in (14, 17):
            said = message(tmp_path / name)
            assert f"{len(skeleton)} joints may be" in said
            assert f"{skeleton.name}" in said
            assert said.endswith("name their order (--skeleton)")
        else:
            same(read_pose_file(tmp_path / name), xy, skeleton)
    assert read_pose_file(tmp_path / "poses.npz", skeleton.name).sizes == ((100, 80),) * 2
    np.save(tmp_path / "one.npy", xy[0])
    same(read_pose_file(tmp_path / "one.npy", skeleton.name), xy[:1], skeleton)


def test_missing_joints_of_arrays(tmp_path: Path) -> None:
    xy = points(OPENPOSE18)
    xy[0, 3] = -1
    xy[0, 4] = np.nan, 7
    xy[0, 5] = -1, 20  # outside the image, and there
    np.save(tmp_path / "a.npy", xy)
    read = read_pose_file(tmp_path / "a.npy")
    assert np.flatnonzero(~read.known[0]).tolist() == [3, 4]
    assert (read.keypoints_px[0, [3, 4]] == 0).all()
    assert read.keypoints_px[0, 5].tolist() == [-1, 20]
    scored = np.concatenate([points(OPENPOSE18), np.ones((1, 18, 1))], axis=2)
    scored[0, 7, 2] = 0
    np.save(tmp_path / "b.npy", scored[0])
    assert np.flatnonzero(~read_pose_file(tmp_path / "b.npy").known[0]).tolist() == [7]
    known = np.ones(18, bool)
    known[9] = False
    np.savez(tmp_path / "c.npz", xy=scored[0, :, :2], known=known)
    assert np.flatnonzero(~read_pose_file(tmp_path / "c.npz").known[0]).tolist() == [9]


@pytest.mark.parametrize("order", [OPENPOSE18, BODY14])
def test_own_json(tmp_path: Path, order: Skeleton) -> None:
    xy = points(order, 2)
    listed: list[Any] = [pose.tolist() for pose in xy]
    listed[1][2] = None
    known = [True] * len(order)
    known[4] = False
    document = {
        "poses": [
            {"image": "a.jpg", "size": [128, 64], "keypoints_px": listed[0]},
            {"keypoints_px": listed[1], "known": known, "confidence": 0.3},
        ]
    }
    path = tmp_path / "poses.json"
    path.write_text(json.dumps(document))
    read = read_pose_file(path)
    assert read.images == ("a.jpg", "")
    assert read.sizes == ((128, 64), None)
    absent = [14, 15, 16, 17] if order is BODY14 else []
    assert np.flatnonzero(~read.known[0]).tolist() == absent
    assert np.flatnonzero(~read.known[1]).tolist() == [2, 4, *absent]
    np.testing.assert_allclose(read.keypoints_px[0, : len(order)], xy[0], rtol=1e-6)


def test_own_json_names_its_order(tmp_path: Path) -> None:
    xy = points(COCO17)
    record = {"keypoints_px": xy[0].tolist(), "skeleton": "coco17"}
    path = tmp_path / "p.json"
    path.write_text(json.dumps({"poses": [record]}))
    same(read_pose_file(path), xy, COCO17)
    same(read_pose_file(path, "h36m17"), xy, SKELETONS["h36m17"])
    path.write_text(json.dumps({"poses": [{"keypoints_px": xy[0].tolist()}]}))
    assert message(path) == (
        "poses[0]: the number of joints must be 18 (openpose18), 14 (body14), got 17"
    )


def test_coco_results(tmp_path: Path) -> None:
    xy = points(COCO17, 2)
    rows = np.concatenate([xy, np.full((2, 17, 1), 0.7)], axis=2)
    results = [{"image_id": 3, "keypoints": pose.ravel().tolist(), "score": 1} for pose in rows]
    path = tmp_path / "results.json"
    path.write_text(json.dumps(results))
    same(read_pose_file(path), xy, COCO17)


def test_what_keypoint_files_hold(tmp_path: Path, data_dir: Path) -> None:
    lsp = read_pose_file(data_dir / "body/lsp_extended/lspet_crops128.npz")
    assert lsp.keypoints_px.shape == (2200, 18, 2)
    assert lsp.images[0] == "im00002.jpg"
    text = data_dir / "body/keypoints18/csv/market-annotation-head200.csv"
    assert read_pose_file(text).known.shape == (200, 18)
    body25 = points(SKELETONS["body_25"])
    rows = np.concatenate([body25, np.ones((1, 25, 1))], axis=2)
    document = {"people": [{"pose_keypoints_2d": rows.ravel().tolist()}]}
    (tmp_path / "a_keypoints.json").write_text(json.dumps(document))
    for path in (tmp_path, tmp_path / "a_keypoints.json"):
        read = read_pose_file(path)
        same(read, body25, SKELETONS["body_25"])
        assert read.images == ("a",)


def test_csv(tmp_path: Path) -> None:
    path = tmp_path / "pose.csv"
    path.write_text("joint,x,y\r\nnose,10.5,20\r\nneck, 11 ,30\r\n\r\n")
    read = read_pose_file(path)
    assert np.flatnonzero(read.known[0]).tolist() == [0, 1]
    assert read.keypoints_px[0, :2].tolist() == [[10.5, 20], [11, 30]]
    path.write_text("pose,joint,x,y\nb,nose,1,20\na,nose,2,30\nb,neck,3,40\n", encoding="utf-8-sig")
    read = read_pose_file(path)
    assert read.keypoints_px[:, 0, 0].tolist() == [1, 2]
    assert read.known.sum(axis=1).tolist() == [2, 1]


BAD_CSV = [
    ("nose,1\n", "2: must have 3 fields, got 2"),
    ("tail,1,2\n", "2: joint must be one of openpose18, such as nose, got 'tail'"),
    ("nose,1,x\n", "2: x and y must be numbers, got '1' and 'x'"),
    ("nose,1,2\nnose,1,2\n", "3: nose must come once a pose"),
    ("nose,1e9,2\n", "pose 0: coordinates must be pixels, got 1e+09"),
    ("", "must hold at least one pose, got none"),
]


@pytest.mark.parametrize(("lines", "said"), BAD_CSV)
def test_broken_csv(tmp_path: Path, lines: str, said: str) -> None:
    path = tmp_path / "pose.csv"
    path.write_text(f"joint,x,y\n{lines}")
    assert message(path).removeprefix(f"{path}:") == said


def record(**change: Any) -> dict[str, Any]:
    return {"keypoints_px": points(OPENPOSE18)[0].tolist()} | change


BAD_JSON: list[tuple[Any, str]] = [
    ({"poses": []}, "must hold at least one pose, got none"),
    ({"poses": 3}, '"poses" must be a list, got 3'),
    ({"poses": [3]}, 'poses[0]: must have "keypoints_px", a list of J x [x, y]'),
    ({"poses": [record(keypoints_px=[])]}, 'poses[0]: must have "keypoints_px"'),
    ({"poses": [record(keypoints_px=[[1]] * 18)]}, "poses[0]: joint 0 must be [x, y] or null"),
    ({"poses": [record(keypoints_px=[["1", 2]] * 18)]}, "poses[0]: coordinates must be numbers"),
    ({"poses": [record(keypoints_px=[[True, 2]] * 18)]}, "poses[0]: coordinates must be numbers"),
    ({"poses": [record(keypoints_px=[[10**400, 2]] * 18)]}, "poses[0]: coordinates must be pixels"),
    ({"poses": [record(keypoints_px=[[1e7, 2]] * 18)]}, "poses[0]: coordinates must be pixels, "),
    (
        {"poses": [record(keypoints_px=[[0.5, 0.2]] * 18)]},
        "pose 0: coordinates must be pixels, got",
    ),
    ({"poses": [record(known=[True])]}, 'poses[0]: "known" must be 18 times true or false'),
    ({"poses": [record(size=[0, 5])]}, "poses[0]: size must be [height, width], got [0, 5]"),
    ({"poses": [record(size="big")]}, "poses[0]: size must be [height, width], got 'big'"),
    ({"poses": [record(skeleton="x")]}, 'poses[0]: "skeleton" must be one of openpose18, coco17'),
    ({"poses": [record(skeleton=[])]}, 'poses[0]: "skeleton" must be one of'),
    ({"poses": [record(image=3)]}, 'poses[0]: "image" must be text, got 3'),
    ([{"keypoints": [1, 2]}], '[0]: must have "keypoints", a list of J x (x, y, score)'),
    ([{"keypoints": [1.0] * 30}], "[0]: coco17 must have 17 joints, got 10"),
    ([3], '[0]: must have "keypoints"'),
    ([], "must hold at least one pose, got none"),
    ({"a": 1}, 'the JSON must have "images" and "annotations" (COCO) or "people" (OpenPose)'),
]


@pytest.mark.parametrize(("document", "said"), BAD_JSON)
def test_broken_json(tmp_path: Path, document: Any, said: str) -> None:
    path = tmp_path / "p.json"
    path.write_text(json.dumps(document))
    assert message(path).startswith(said)


def declared(people: int) -> bytes:
    """A .npy that says to hold so many people, and ends there."""
    stream = io.BytesIO()
    header = {"descr": "<f8", "fortran_order": False, "shape": (people, 18, 2)}
    np.lib.format.write_array_header_1_0(stream, header)
    return stream.getvalue()


def test_broken_arrays(tmp_path: Path) -> None:
    path = tmp_path / "p.npy"
    for array, said in (
        (np.zeros(4), "poses must be numbers of shape [J, 2], [J, 3], [P, J, 2] or [P, J, 3], got"),
        (np.full((18, 2), "a"), "poses must be numbers"),
        (np.full((18, 2), 1e9), "pose 0: coordinates must be pixels, got 1e+09"),
        (np.full((18, 2), np.inf), "pose 0: coordinates must be pixels, got inf"),
        (np.full((7, 2), 5.0), "pose 0: the number of joints must be 18 (openpose18), 17 (coco17)"),
        (np.full((1, 33, 2), 0.4), "pose 0: coordinates must be pixels, got numbers up to 0.4"),
        (np.zeros((0, 18, 2)), "must hold at least one pose, got none"),
    ):
        np.save(path, array)
        assert message(path).startswith(said), said
    path.write_bytes(path.read_bytes()[:40])
    assert message(path).startswith("the .npy file is damaged")
    for people in (10**14, 10**20):
        path.write_bytes(declared(people))
        assert message(path).startswith("the .npy file is damaged")
    path = tmp_path / "p.npz"
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("poses.npy", declared(10**14))
    assert message(path).startswith("poses is damaged")
    for arrays, said in (
        (
            {"a": np.zeros((18, 2))},
            "must have an array keypoints_px, keypoints, xy or poses, got",
        ),
        ({"poses": np.ones((18, 2)), "known": np.ones(17)}, "known must have shape [18], got [17]"),
        ({"poses": np.ones((18, 2)), "size": np.ones(2)}, "size must be [height, width], got [1.0"),
    ):
        np.savez(path, **arrays)
        assert message(path).startswith(said), said
    objects = np.empty(1, object)
    objects[0] = print
    np.savez(path, poses=objects)
    assert "must hold arrays alone" in message(path)
    whole = path.read_bytes()
    for cut in (3, 60, len(whole) // 2):
        path.write_bytes(whole[:cut])
        assert message(path).startswith("the .npz file is damaged")
    with pytest.raises(ValueError, match=r"^skeleton must be one of openpose18, .*got 'coco'$"):
        read_pose_file(path, "coco")


KEYS = [
    *("poses", "keypoints_px", "known", "size", "skeleton", "image"),
    *("people", "pose_keypoints_2d"),
    *("images", "annotations", "keypoints", "categories", "id", "image_id"),
]


@pytest.mark.parametrize(
    "content",
    [
        b"[" * 100_000,
        b'{"poses": ' + b"[" * 100_000,
        b"name:keypoints_y:keypoints_x\na.jpg: " + b"[" * 100_000 + b": []\n",
        b"joint,x,y\nnose," + b"9" * 5000 + b",1\n",
        b'{"poses": [{"keypoints_px": [[' + b"9" * 5000 + b", 1]]}]}",
    ],
)
def test_deep_and_long_files(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "deep"
    path.write_bytes(content)
    with pytest.raises(KeypointFormatError):
        read_pose_file(path)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(
                [
                    "poses",
                    "keypoints_px",
                    "known",
                    "size",
                    "people",
                    "pose_keypoints_2d",
                    "images",
                    "annotations",
                    "keypoints",
                    "categories",
                    "id",
                    "image_id",
                    "skeleton",
                    "image",
                ]
            ),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)


@settings(max_examples=300, deadline=None)
@given(json_values, st.sampled_from([None, "coco17", "body14"]))
def test_any_json_is_poses_or_a_format_error(
    tmp_path_factory: pytest.TempPathFactory, document: Any, order: str | None
) -> None:
    path = tmp_path_factory.getbasetemp() / "fuzz.json"
    path.write_text(json.dumps(document))
    with contextlib.suppress(KeypointFormatError):
        assert len(read_pose_file(path, order).known) > 0


@settings(max_examples=300, deadline=None)
@given(
    st.one_of(
        st.binary(max_size=60),
        st.text(max_size=60).map(lambda text: f"joint,x,y\n{text}".encode("utf-8", "ignore")),
        st.text("nose,neck0123456789.e-\n\"'", max_size=60).map(
            lambda text: f"pose,joint,x,y\n{text}".encode()
        ),
        st.text('[]{}:,"-0123456789e.poseskynult_2d', max_size=60).map(str.encode),
        st.binary(max_size=80).map(b"\x93NUMPY".__add__),
        st.binary(max_size=80).map(b"PK\x03\x04".__add__),
    )
)
def test_any_bytes_are_poses_or_a_format_error(
    tmp_path_factory: pytest.TempPathFactory, content: bytes
) -> None:
    path = tmp_path_factory.getbasetemp() / "fuzz.bin"
    path.write_bytes(content)
    with contextlib.suppress(KeypointFormatError):
        assert len(read_pose_file(path).known) > 0


def test_hidden_joints(tmp_path: Path) -> None:
    """A joint may be known and hidden; where nobody says so, all that are known are visible."""
    points = [[float(10 + joint), 20.0] for joint in range(14)]
    hidden = [joint != 3 for joint in range(14)]
    path = tmp_path / "poses.json"
    path.write_text(json.dumps({"poses": [{"keypoints_px": points, "visible": hidden},
                                          {"keypoints_px": points}]}))  # fmt: skip
    read = read_pose_file(path)
    assert read.known[:, :14].all()
    assert read.visible[0].tolist() == [*hidden, *[False] * 4]
    np.testing.assert_array_equal(read.visible[1], read.known[1])
    path.write_text(json.dumps({"poses": [{"keypoints_px": points, "visible": [True]}]}))
    with pytest.raises(KeypointFormatError, match='"visible" must be 14 times true or false'):
        read_pose_file(path)
