"""Loaders of NYU, ICVL and MSRA15, on small files in their layouts and on the shared real ones."""

from __future__ import annotations

import gzip
import struct
from pathlib import Path

import cv2
import numpy as np
import pytest

from dgpose.data.cameras import project, unproject
from dgpose.data.hand_datasets import (
    MSRA_GESTURES,
    MSRA_SUBJECTS,
    IcvlHands,
    MsraHands,
    NyuHands,
    open_hand_set,
    read_centers,
)

scipy_io = pytest.importorskip("scipy.io")


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


def hands_mm(rng: np.random.Generator, *shape: int) -> np.ndarray:
    joints = rng.normal(0, 50, (*shape, 3))
    joints[..., 2] += 600
    return joints.astype(np.float32)


@pytest.fixture
def nyu(tmp_path: Path, rng: np.random.Generator) -> Path:
    folder = tmp_path / "nyu_hand_dataset_v2" / "dataset" / "test"
    folder.mkdir(parents=True)
    xyz = hands_mm(rng, 3, 2441, 36)
    uvd = np.stack([project(view, NyuHands.camera) for view in xyz]).astype(np.float32)
    scipy_io.savemat(folder / "joint_data.mat", {"joint_xyz": xyz, "joint_uvd": uvd})
    depth = np.full((480, 640), 2001, np.uint16)
    depth[10, 20] = 0x0312
    packed = np.stack((depth & 255, depth >> 8, np.zeros_like(depth)), -1).astype(np.uint8)
    cv2.imwrite(str(folder / "depth_2_0002441.png"), packed)  # OpenCV writes B, G, R
    return tmp_path


def test_nyu(nyu: Path) -> None:
    hands = NyuHands(nyu, "test", view=2)
    assert len(hands) == 2441
    sample = hands[2440]
    assert sample.name == "test/depth_2_0002441.png"
    assert (sample.subject, sample.cube_mm) == (1, 261.0)
    assert sample.depth.shape == (480, 640)
    assert sample.depth[10, 20] == 0x0312
    assert sample.depth[0, 0] == 0
    np.testing.assert_allclose(project(sample.joints_mm, sample.camera), sample.uvd, rtol=1e-5)
    assert len(hands.missing()) == 2440
    with pytest.raises(FileNotFoundError, match=r"depth_2_0000001\.png"):
        hands[0]


def test_nyu_refuses_other_files(nyu: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"train.joint_data\.mat"):
        NyuHands(nyu, "train")
    path = nyu / "nyu_hand_dataset_v2/dataset/test/joint_data.mat"
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(ValueError, match=r"not NYU's joint_data\.mat"):
        NyuHands(nyu, "test")
    scipy_io.savemat(path, {"joint_xyz": np.zeros((3, 4)), "joint_uvd": np.zeros((3, 4))})
    with pytest.raises(ValueError, match=r"joint_uvd must have shape \[3, N, 36, 3\]"):
        NyuHands(nyu, "test")


def write_icvl(root: Path, rng: np.random.Generator) -> np.ndarray:
    uvd = np.stack((rng.uniform(0, 320, 16), rng.uniform(0, 240, 16), rng.uniform(300, 500, 16)))
    uvd = uvd.T.round(3)
    (root / "Training/Depth/201403121135").mkdir(parents=True)
    depth = np.full((240, 320), 32001, np.uint16)
    depth[5, 7] = 412
    cv2.imwrite(str(root / "Training/Depth/201403121135/image_0000.png"), depth)
    numbers = " ".join(map(str, uvd.ravel()))
    (root / "Training/labels.txt").write_text(f"201403121135/image_0000.png {numbers}\n\n")
    return uvd


def test_icvl(tmp_path: Path, rng: np.random.Generator) -> None:
    uvd = write_icvl(tmp_path, rng)
    hands = IcvlHands(tmp_path, centers=np.array([[160, 120, 400]], np.float32))
    assert len(hands) == 1
    sample = hands[0]
    np.testing.assert_allclose(sample.uvd, uvd, rtol=1e-6)
    np.testing.assert_allclose(project(sample.joints_mm, sample.camera), uvd, rtol=1e-5)
    assert sample.center == (160, 120, 400)
    lost = IcvlHands(tmp_path, centers=np.full((1, 3), np.nan, np.float32))
    assert lost[0].center is None
    assert sample.cube_mm == 250
    assert sample.depth[5, 7] == 412
    assert sample.depth[0, 0] == 0
    assert hands.missing() == []


def test_icvl_names_the_line_that_is_wrong(tmp_path: Path, rng: np.random.Generator) -> None:
    write_icvl(tmp_path, rng)
    path = tmp_path / "Training/labels.txt"
    path.write_text(path.read_text() + "a.png 1 2 3\n")
    with pytest.raises(ValueError, match=r"labels\.txt, line 3: must hold 48 finite numbers"):
        IcvlHands(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"test_seq_1\.txt"):
        IcvlHands(tmp_path, "test")


def test_icvl_reads_the_real_labels(tmp_path: Path, data_dir: Path) -> None:
    (tmp_path / "Testing").mkdir()
    for name in ("test_seq_1.txt", "test_seq_2.txt"):
        packed = data_dir / "hand" / "icvl" / "labels" / f"{name}.gz"
        (tmp_path / "Testing" / name).write_bytes(gzip.decompress(packed.read_bytes()))
    assert len(IcvlHands(tmp_path, "test")) == 702 + 894


def write_msra(root: Path, rng: np.random.Generator, subject: int = 3) -> np.ndarray:
    """121 frames of gesture T and none of the others; one image."""
    joints = hands_mm(rng, 121, 21)
    for gesture in MSRA_GESTURES:
        folder = root / f"P{subject}" / gesture
        folder.mkdir(parents=True)
        frames = joints * (1, 1, -1) if gesture == "T" else joints[:0]
        lines = [" ".join(map(str, frame.ravel())) for frame in frames]
        (folder / "joint.txt").write_text("\n".join([str(len(lines)), *lines]) + "\n")
    box = np.arange(6, dtype=np.float32).reshape(2, 3) + 500
    header = struct.pack("<6I", 320, 240, 100, 50, 103, 52)
    (root / f"P{subject}/T/000119_depth.bin").write_bytes(header + box.tobytes())
    return joints


def test_msra(tmp_path: Path, rng: np.random.Generator) -> None:
    joints = write_msra(tmp_path, rng)
    hands = MsraHands(tmp_path, [3])
    assert len(hands) == 120  # frame 120 of P3/T has a wrong label
    assert len(MsraHands(tmp_path, [3], faulty=True)) == 121
    sample = hands[119]
    np.testing.assert_allclose(sample.joints_mm, joints[119], rtol=1e-5)
    assert (sample.subject, sample.cube_mm) == (3, 220)
    assert sample.depth.shape == (240, 320)
    assert sample.depth[51, 102] == 505
    with pytest.raises(ValueError, match="subjects must be 0 to 8"):
        MsraHands(tmp_path, [9])
    path = tmp_path / "P3/T/joint.txt"
    path.write_text(path.read_text().replace("121\n", "122\n", 1))
    with pytest.raises(ValueError, match="as many frames as its first line says"):
        MsraHands(tmp_path, [3])


def numbered_centers(count: int) -> np.ndarray:
    """Centres in the middle of the image, at as many mm as their row."""
    numbers = np.arange(count, dtype=np.float32)
    return np.stack((np.full_like(numbers, 160), np.full_like(numbers, 120), numbers), axis=1)


def test_centers_in_millimetres_are_refused(
    tmp_path: Path, rng: np.random.Generator, data_dir: Path
) -> None:
    labels = data_dir / "hand" / "icvl" / "labels"
    (tmp_path / "Testing").mkdir()
    for name in ("test_seq_1.txt", "test_seq_2.txt", "icvl_test_center_ren.txt"):
        text = gzip.decompress((labels / f"{name}.gz").read_bytes())
        (tmp_path / "Testing" / name).write_bytes(text)
    centers = read_centers(tmp_path / "Testing" / "icvl_test_center_ren.txt")
    assert len(IcvlHands(tmp_path, "test", centers=centers)) == 1596
    in_mm = unproject(centers, IcvlHands.camera)
    with pytest.raises(ValueError, match=r"of 1596 outside of the image: x, y, z in mm must be"):
        IcvlHands(tmp_path, "test", centers=in_mm)


def test_msra_centers_count_the_faulty_frames(tmp_path: Path, rng: np.random.Generator) -> None:
    """Frame 120 of P3/T is dropped; the centre of the frame after it is not the dropped one's."""
    write_msra(tmp_path, rng)
    path = tmp_path / "P3/T/joint.txt"
    lines = path.read_text().splitlines()[1:]
    path.write_text("\n".join(["122", *lines, lines[-1]]) + "\n")
    centers = numbered_centers(122)
    hands = MsraHands(tmp_path, [3], centers=centers)
    assert len(hands) == 121
    (tmp_path / "P3/T/000121_depth.bin").write_bytes(
        (tmp_path / "P3/T/000119_depth.bin").read_bytes()
    )
    assert hands[119].center == (160, 120, 119)
    assert hands[120].center == (160, 120, 121)
    assert hands[120].name == "P3/T/000121_depth.bin"
    with pytest.raises(ValueError, match=r"centers must have shape \[122, 3\], .* got \[121, 3\]"):
        MsraHands(tmp_path, [3], centers=centers[:121])


def test_open_hand_set(nyu: Path, tmp_path: Path, rng: np.random.Generator) -> None:
    assert isinstance(open_hand_set("nyu", nyu, "test"), NyuHands)
    for subject in MSRA_SUBJECTS:
        write_msra(tmp_path, rng, subject)
    centers = numbered_centers(9 * 121)
    train, test = (
        open_hand_set("msra", tmp_path, split, left_out=[3, 8], centers=centers)
        for split in ("train", "test")
    )
    assert (len(train), len(test)) == (7 * 121, 2 * 121)  # the test part keeps faulty frames
    assert test.names[:1] == ["P3/T/000000_depth.bin"]
    assert test[119].center == (160, 120, 3 * 121 + 119)
    assert test[121 + 119].center == (160, 120, 8 * 121 + 119)
    assert train[119].center == (160, 120, 119)
    assert len(open_hand_set("msra", tmp_path)) == 9 * 121 - 1
    for name, left_out, message in (
        ("bighand", (), "name must be one of nyu, icvl, msra, got 'bighand'"),
        ("msra", (), "the test part of msra is the subjects that are left out: name some"),
        ("msra", (9,), r"subjects must be 0 to 8, got \[9\]"),
        ("nyu", (1,), "subjects are MSRA's, and nyu is split by its own files"),
    ):
        with pytest.raises(ValueError, match=message):
            open_hand_set(name, tmp_path, "test", left_out=left_out)


def test_msra_real_frame(tmp_path: Path, rng: np.random.Generator, data_dir: Path) -> None:
    write_msra(tmp_path, rng)
    real = data_dir / "hand" / "msra" / "depth_real" / "P0_1_000009_depth.bin"
    (tmp_path / "P3/T/000009_depth.bin").write_bytes(real.read_bytes())
    depth = MsraHands(tmp_path, [3])[9].depth
    assert depth.shape == (240, 320)
    assert 200 < np.median(depth[depth > 0]) < 1000


def test_centers(tmp_path: Path, rng: np.random.Generator) -> None:
    path = tmp_path / "centers.txt"
    path.write_text("1 2 300\ninvalid\n")
    np.testing.assert_array_equal(read_centers(path), [[1, 2, 300], [np.nan] * 3])
    write_icvl(tmp_path, rng)
    with pytest.raises(ValueError, match=r"centers must have shape \[1, 3\]"):
        IcvlHands(tmp_path, centers=read_centers(path))
    path.write_text("1 2\n")
    with pytest.raises(ValueError, match="line 1: must be three numbers"):
        read_centers(path)
