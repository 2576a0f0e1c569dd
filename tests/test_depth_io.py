"""Reading depth: every format in the layout it has in the wild, and every way it can be broken."""

import io
import os
import resource
import struct
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dgpose.data.cameras import CAMERAS, Camera
from dgpose.data.depth_io import DepthFormatError, open_source, read_depth

DEPTH = np.arange(500, 500 + 6 * 8, dtype=np.uint16).reshape(6, 8)
MSRA_HEADER = struct.pack("<6I", 320, 240, 10, 20, 14, 23)
MSRA_BYTES = MSRA_HEADER + np.arange(12, dtype="<f4").tobytes()


def png_bytes(picture):
    return cv2.imencode(".png", picture)[1].tobytes()


def png_from_chunks(bits, color_type, pixels, width=8, height=6):
    def chunk(kind, data):
        crc = struct.pack(">I", zlib.crc32(kind + data))
        return struct.pack(">I", len(data)) + kind + data + crc

    header = struct.pack(">IIBBBBB", width, height, bits, color_type, 0, 0, 0)
    body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(pixels)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


def nyu_packed(depth_mm):
    blue, green = depth_mm & 255, depth_mm >> 8
    return np.dstack([blue, green, np.zeros_like(blue)]).astype(np.uint8)


@pytest.fixture
def write(tmp_path):
    def write_file(name, data):
        path = tmp_path / name
        path.write_bytes(data)
        return path

    return write_file


# Formats


def test_16_bit_png_is_millimetres(write):
    frame = read_depth(write("a.png", png_bytes(DEPTH)))
    assert (frame.name, frame.camera, frame.depth.dtype) == ("a", None, np.uint16)
    np.testing.assert_array_equal(frame.depth, DEPTH)


def test_nyu_packed_png_loses_its_background_value(write):
    depth = np.full((480, 640), 2001, np.uint16)
    depth[100:200, 50:60] = 784
    frame = read_depth(write("depth_1_0000001.png", png_bytes(nyu_packed(depth))))
    assert frame.camera == CAMERAS["nyu"]
    assert frame.depth.dtype == np.uint16
    np.testing.assert_array_equal(frame.depth, np.where(depth == 2001, 0, depth))


def test_nyu_packed_png_of_another_size_implies_no_camera(write):
    frame = read_depth(write("a.png", png_bytes(nyu_packed(DEPTH))))
    assert frame.camera is None
    np.testing.assert_array_equal(frame.depth, DEPTH)


def test_msra_bin_is_placed_in_its_frame(write):
    frame = read_depth(write("000009_depth.bin", MSRA_BYTES))
    assert (frame.depth.shape, frame.depth.dtype) == ((240, 320), np.float32)
    assert frame.camera == CAMERAS["msra"]
    np.testing.assert_array_equal(frame.depth[20:23, 10:14], np.arange(12).reshape(3, 4))
    assert np.count_nonzero(frame.depth) == 11


@pytest.mark.parametrize("kind", ["npy", "npz"])
@pytest.mark.parametrize("dtype", [np.uint16, np.float16, np.float32, np.float64])
def test_arrays(tmp_path, kind, dtype):
    path = tmp_path / f"a.{kind}"
    if kind == "npy":
        np.save(path, DEPTH.astype(dtype))
    else:
        np.savez(path, depth=DEPTH.astype(dtype))
    frame = read_depth(path)
    assert frame.depth.dtype == (np.uint16 if dtype == np.uint16 else np.float32)
    np.testing.assert_array_equal(frame.depth, DEPTH.astype(dtype).astype(np.float32))


def test_metres_become_millimetres_and_missing_depth_stays_missing(tmp_path):
    np.save(tmp_path / "a.npy", np.array([[0.5, np.nan], [np.inf, 0.0]]))
    frame = read_depth(tmp_path / "a.npy", unit="m")
    np.testing.assert_array_equal(frame.depth, np.float32([[500, np.nan], [np.inf, 0]]))


def test_float64_beyond_float32_is_missing_depth(tmp_path):
    np.save(tmp_path / "a.npy", np.array([[1e300, 700.0]]))
    np.testing.assert_array_equal(read_depth(tmp_path / "a.npy").depth, np.float32([[np.inf, 700]]))


def test_npz_camera(tmp_path):
    np.savez(tmp_path / "a.npz", depth=DEPTH, camera=[1.0, 2.0, 3.0, 4.0])
    assert read_depth(tmp_path / "a.npz").camera == Camera(1, 2, 3, 4)
    np.savez(tmp_path / "b.npz", depth=DEPTH, camera=[0.0, 0, 0, 0])
    with pytest.raises(DepthFormatError, match=r"b\.npz: camera must have fx > 0"):
        read_depth(tmp_path / "b.npz")


def test_frames_do_not_share_memory_with_the_file(tmp_path):
    np.save(tmp_path / "a.npy", DEPTH)
    frame = read_depth(tmp_path / "a.npy")
    frame.depth[0, 0] = 1
    assert np.load(tmp_path / "a.npy")[0, 0] == DEPTH[0, 0]


# Sources


def test_video_is_read_frame_by_frame(tmp_path):
    video = np.stack([DEPTH + i for i in range(12)])
    np.savez_compressed(tmp_path / "clip.npz", depth=video)
    items = open_source(tmp_path / "clip.npz")
    assert [item.name for item in items[:2]] == ["clip_00", "clip_01"]
    for index in (11, 3):
        np.testing.assert_array_equal(items[index].load().depth, video[index])
    with pytest.raises(DepthFormatError, match="holds 12 frames, one is expected"):
        read_depth(tmp_path / "clip.npz")


def test_folder_in_numeric_order_and_a_bad_file_does_not_end_it(tmp_path, write):
    write("f10.png", png_bytes(DEPTH + 10))
    write("f2.png", png_bytes(DEPTH)[:60])
    write("f9.png", png_bytes(DEPTH + 9))
    write("f1.npz", b"PK\x03\x04 damaged")
    write("joint.txt", b"not depth")
    items = open_source(tmp_path)
    assert [item.name for item in items] == ["f1", "f2", "f9", "f10"]
    with pytest.raises(DepthFormatError, match=r"f1\.npz: not a readable array file"):
        items[0].load()
    with pytest.raises(DepthFormatError, match=r"f2\.png: the PNG is truncated"):
        items[1].load()
    assert [item.load().depth[0, 0] for item in items[2:]] == [509, 510]


def test_glob_and_list_of_sources(tmp_path, write):
    for name in ("depth_1_2.png", "depth_1_10.png", "rgb_1_2.png"):
        write(name, png_bytes(DEPTH))
    pattern = str(tmp_path / "depth_1_*.png")
    assert [item.name for item in open_source(pattern)] == ["depth_1_2", "depth_1_10"]
    both = open_source([tmp_path / "rgb_1_2.png", pattern])
    assert [item.name for item in both] == ["rgb_1_2", "depth_1_2", "depth_1_10"]


def test_names_are_unique_over_folders(tmp_path):
    for folder in ("a", "b", "c"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "x.png").write_bytes(png_bytes(DEPTH))
    items = open_source([tmp_path / "a", tmp_path / "b", tmp_path / "c"])
    assert [item.name for item in items] == ["x", "x_2", "x_3"]


@pytest.mark.parametrize("missing", ["nowhere.png", "no_*.png", "empty"])
def test_nothing_there_is_an_error_at_once(tmp_path, missing):
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match=r"source must be or contain .*, got"):
        open_source(str(tmp_path / missing))


def test_unit_is_checked(write, tmp_path):
    path = write("a.png", png_bytes(DEPTH))
    with pytest.raises(ValueError, match="unit must be one of mm, m, got 'cm'"):
        read_depth(path, unit="cm")
    with pytest.raises(ValueError, match="unit must be one of mm, m, got 'cm'"):
        open_source(path, unit="cm")
    with pytest.raises(DepthFormatError, match=r"a\.png: \.png files are in millimetres"):
        read_depth(path, unit="m")
    np.save(tmp_path / "a.npy", DEPTH)
    with pytest.raises(DepthFormatError, match="uint16 depth is in millimetres, got unit 'm'"):
        read_depth(tmp_path / "a.npy", unit="m")


# Damage


@pytest.mark.parametrize("name", ["a.png", "a.bin", "a.npy", "a.npz"])
def test_empty_file(write, name):
    with pytest.raises(DepthFormatError, match=f"{name}: the file is empty"):
        read_depth(write(name, b""))


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (png_bytes(DEPTH)[:-12], "truncated after"),
        (png_bytes(DEPTH)[:-30], "the PNG is truncated"),
        (png_bytes(DEPTH)[:20], "truncated"),
        (b"\xff\xd8\xff\xe0 a jpeg", "not a PNG"),
        (png_bytes(DEPTH)[:40] + b"?" + png_bytes(DEPTH)[41:], "damaged"),
        (png_from_chunks(16, 0, b"\0" * 50), "picture data are damaged or incomplete"),
        (png_from_chunks(16, 0, b"", width=0), "must be 1 to 8192 pixels wide and high, got 0x6"),
        (png_from_chunks(16, 0, b"", width=10**6), "got 1000000x6"),
        (png_bytes(DEPTH.astype(np.uint8)), "got 8-bit grey"),
        (png_bytes(np.dstack([DEPTH] * 3)), "got 16-bit RGB"),
        (png_bytes(np.full((6, 8, 4), 9, np.uint8)), "got 8-bit RGBA"),
        (png_bytes(np.full((6, 8, 3), 9, np.uint8)), "a colour picture, not depth"),
    ],
)
def test_png_that_is_not_depth(write, data, message):
    with pytest.raises(DepthFormatError, match=rf"x\.png: .*{message}"):
        read_depth(write("x.png", data))


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (MSRA_BYTES[:10], "begins with 24 bytes of header, got 10"),
        (MSRA_BYTES[:-1], "a box of 4x3 needs 72 bytes, got 71"),
        (MSRA_BYTES + b"\0", "a box of 4x3 needs 72 bytes, got 73"),
        (struct.pack("<6I", 320, 240, 14, 20, 10, 23), "is not inside the 320x240 image"),
        (struct.pack("<6I", 320, 240, 0, 0, 321, 1), "is not inside the 320x240 image"),
        (struct.pack("<6I", 2**32 - 1, 240, 0, 0, 1, 1), "must be 1 to 8192 pixels"),
    ],
)
def test_bin_that_is_damaged(write, data, message):
    with pytest.raises(DepthFormatError, match=rf"x\.bin: .*{message}"):
        read_depth(write("x.bin", data))


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (DEPTH.astype(np.uint8), "must be uint16 .* or floating point, got uint8"),
        (DEPTH.astype(np.int32), "must be uint16 .* or floating point, got int32"),
        (np.zeros((2, 3, 4, 5), np.uint16), r"must have shape .* got \[2, 3, 4, 5\]"),
        (np.zeros((0, 4, 5), np.uint16), r"without empty dimensions, got \[0, 4, 5\]"),
        (np.array([[None]]), "must be uint16 .* or floating point, got object"),
    ],
)
@pytest.mark.parametrize("kind", ["npy", "npz"])
def test_array_that_is_not_depth(tmp_path, kind, array, message):
    path = tmp_path / f"x.{kind}"
    if kind == "npy":
        np.save(path, array, allow_pickle=True)
    else:
        np.savez(path, depth=array)
    with pytest.raises(DepthFormatError, match=rf"x\.{kind}: .*{message}"):
        read_depth(path)


def test_npz_without_depth(tmp_path):
    np.savez(tmp_path / "x.npz", image=DEPTH)
    with pytest.raises(DepthFormatError, match=r"needs the key 'depth', got \['image'\]"):
        read_depth(tmp_path / "x.npz")


def test_unknown_ending(write):
    with pytest.raises(DepthFormatError, match=r"depth files end in .*, got '\.jpg'"):
        read_depth(write("x.jpg", b"x"))


def array_bytes(save, *args, **kwargs):
    buffer = io.BytesIO()
    save(buffer, *args, **kwargs)
    return buffer.getvalue()


SAMPLES = {
    ".png": [png_bytes(DEPTH), png_bytes(nyu_packed(DEPTH))],
    ".bin": [MSRA_BYTES],
    ".npy": [array_bytes(np.save, DEPTH), array_bytes(np.save, np.stack([DEPTH] * 2))],
    ".npz": [array_bytes(np.savez, depth=DEPTH), array_bytes(np.savez_compressed, depth=DEPTH)],
}


@st.composite
def damaged_files(draw):
    """Any bytes; or a good file with bytes changed, cut off, added; or a PNG of wrong content."""
    suffix = draw(st.sampled_from(sorted(SAMPLES)))
    kind = draw(st.sampled_from(["any bytes", "damaged", "wrong content"]))
    if kind == "any bytes":
        return suffix, draw(st.binary())
    if kind == "wrong content":
        sizes = st.integers(0, 9)
        bits = draw(st.sampled_from([1, 2, 4, 8, 16, 77]))
        pixels = draw(st.binary(max_size=200))
        color_type = draw(st.integers(0, 7))
        return ".png", png_from_chunks(bits, color_type, pixels, draw(sizes), draw(sizes))
    data = bytearray(draw(st.sampled_from(SAMPLES[suffix])))
    for _ in range(draw(st.integers(0, 3))):
        data[draw(st.integers(0, len(data) - 1))] = draw(st.integers(0, 255))
    kept = len(data) - draw(st.sampled_from([0, 0, 1, 12, 30, 100]))
    return suffix, bytes(data[: max(kept, 0)]) + draw(st.binary(max_size=4))


def load(item):
    try:
        return item.load()
    except DepthFormatError as error:
        return error


@settings(
    max_examples=400, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(damaged_files())
def test_any_bytes_give_a_frame_or_a_clear_error(tmp_path, suffix_and_data):
    suffix, data = suffix_and_data
    path = tmp_path / f"fuzz{suffix}"
    path.write_bytes(data)
    for item in open_source(path):
        result = load(item)
        if isinstance(result, DepthFormatError):
            assert str(path) in str(result)
        else:
            assert result.depth.ndim == 2
            assert result.depth.dtype in (np.uint16, np.float32)


# Real files


def test_real_files(data_dir):
    hand = data_dir / "hand"
    kinect = open_source(hand / "kinect2_real")
    assert len(kinect) == 60
    frame = kinect[0].load()
    assert (frame.depth.shape, frame.depth.dtype) == ((424, 512), np.uint16)
    nyu = read_depth(hand / "nyu" / "depth_real" / "test_depth_1_0000001.png")
    assert nyu.camera == CAMERAS["nyu"]
    assert nyu.depth.max() == 1996  # nothing is left of the background's 2001
    msra = read_depth(hand / "msra" / "depth_real" / "P0_1_000009_depth.bin")
    rows, columns = np.nonzero(msra.depth)
    assert (columns.min(), columns.max(), rows.min(), rows.max()) == (134, 203, 57, 192)


def test_the_8_bit_crops_are_not_taken_for_depth(data_dir):
    folder = data_dir / "hand" / "nyu" / "depth_real"
    with pytest.raises(DepthFormatError, match="not depth"):
        read_depth(folder / "crop300_test_index_0.png")


def test_real_nyu_frames_and_crops_agree(data_dir):
    """Row 0 is there as a frame and as a crop: the crop's law gives every one of its pixels."""
    from dgpose.data import nyu

    frames = nyu.load_real_frames(data_dir)
    assert [frame.row for frame in frames] == [0, 772, 1150]
    full = frames[0]
    columns, rows = nyu.crop_window(full.given_center)
    shown = full.depth[np.ix_(rows, columns)].astype(float)
    shown[(rows < 0)[:, None] | (columns < 0)[None]] = 0
    grey = np.round(((shown - full.given_center[2]) / 150).clip(-1, 1) * 127.5 + 127.5)
    grey[shown == 0] = 255
    path = data_dir / "hand" / "nyu" / "depth_real" / "crop300_test_index_0.png"
    np.testing.assert_array_equal(grey, cv2.imread(str(path), cv2.IMREAD_GRAYSCALE))


def test_real_nyu_crops_show_the_hand_under_its_joints(data_dir):
    from dgpose.data import nyu
    from dgpose.skeletons import NYU_SCORED14

    for frame in nyu.load_real_frames(data_dir):
        u, v, d = frame.uvd[list(NYU_SCORED14)].T
        surface = frame.depth[v.round().astype(int), u.round().astype(int)]
        behind = d - surface  # a joint lies some millimetres behind the skin in front of it
        assert 0 < np.median(behind[surface > 0]) < 25
        assert (surface > 0).mean() > 0.7


def test_nyu_poses(data_dir):
    from dgpose.data.cameras import unproject
    from dgpose.data.nyu import load_poses

    poses = load_poses(data_dir)
    assert poses.xyz_mm.shape == poses.uvd.shape == (7707, 36, 3)
    np.testing.assert_allclose(unproject(poses.uvd, CAMERAS["nyu"]), poses.xyz_mm, atol=0.01)
    assert set(poses.actor[poses.row < 2440]) == {0}
    assert set(poses.actor[poses.row >= 2440]) == {1}


def test_thousands_of_array_files_keep_no_file_open(tmp_path: Path) -> None:
    for index in range(80):
        np.save(tmp_path / f"{index:03d}.npy", np.full((2, 3), index, np.uint16))
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    in_use = len(os.listdir("/proc/self/fd"))
    resource.setrlimit(resource.RLIMIT_NOFILE, (in_use + 40, hard))
    try:
        values = [item.load().depth[0, 0] for item in open_source(str(tmp_path))]
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert values == list(range(80))
