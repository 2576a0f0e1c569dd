"""PoseIndex to and from faiss, Parquet and NumPy: nothing lost, foreign files refused."""

from __future__ import annotations

import errno
import io
import os
import pickle
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from dgpose_ext import PoseIndex, _loader, index_interchange

if _loader.core is None:
    pytest.skip(_loader.why_no_core(), allow_module_level=True)

N, D, J = 700, 19, 5


def numbers(*shape: int, seed: int) -> np.ndarray[Any, np.dtype[np.float32]]:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


ROWS, POSES, QUERIES = numbers(N, D, seed=0), numbers(N, J, 3, seed=1) * 200, numbers(6, D, seed=2)
ROWS[300:310] = ROWS[7]  # ties, to the row that was added first
IDS = np.random.default_rng(3).permutation(10**6)[:N]


@pytest.fixture
def index() -> PoseIndex:
    """Removed rows, ids in no order, poses."""
    index = PoseIndex(ROWS, poses=POSES, ids=IDS, storage="int8")
    index.remove(IDS[[3, 5]])
    return index


@pytest.fixture(autouse=True)
def _small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(index_interchange, "_LEAST_CHUNK_ROWS", 64)
    monkeypatch.setattr(index_interchange, "_CHUNK_BYTES", 4000)


def assert_same(got: PoseIndex, want: PoseIndex, poses: bool = True) -> None:
    for name, array in want.arrays().items():
        if name != "poses" or poses:
            assert np.array_equal(got.arrays()[name], array), name
    for mine, theirs in zip(got.search(QUERIES, 50), want.search(QUERIES, 50), strict=True):
        assert torch.equal(mine, theirs)
    if poses:
        assert torch.equal(got.search_mean_pose(QUERIES, 50), want.search_mean_pose(QUERIES, 50))


@pytest.mark.parametrize("storage", ["float32", "bfloat16", "int8"])
@pytest.mark.parametrize("kind", ["npz", "parquet"])
def test_files_keep_everything(kind: str, storage: Any, index: PoseIndex, tmp_path: Path) -> None:
    if kind == "parquet":
        pytest.importorskip("pyarrow")
    path = tmp_path / f"poses.{kind}"
    getattr(index, f"to_{kind}")(path)
    got = getattr(PoseIndex, f"from_{kind}")(path, storage=storage)
    assert got.storage == storage
    assert_same(got, index)
    bare = PoseIndex(ROWS, storage=storage)
    getattr(bare, f"to_{kind}")(path)
    got = getattr(PoseIndex, f"from_{kind}")(path)
    assert got.joints == 0
    assert_same(got, bare, poses=False)
    getattr(PoseIndex(np.zeros((0, D), np.float32)), f"to_{kind}")(path)
    assert len(getattr(PoseIndex, f"from_{kind}")(path)) == 0
    assert [file.name for file in tmp_path.iterdir()] == [path.name]


def test_others_read_what_is_written(index: PoseIndex, tmp_path: Path) -> None:
    index.to_npz(tmp_path / "poses.npz")
    with np.load(tmp_path / "poses.npz", allow_pickle=False) as archive:
        assert set(archive) == {"embeddings", "ids", "poses"}
        assert archive["poses"].shape == (N - 2, J, 3)
        assert np.array_equal(archive["ids"], index.ids())
    parquet = pytest.importorskip("pyarrow.parquet")
    index.to_parquet(tmp_path / "poses.parquet")
    table = parquet.read_table(tmp_path / "poses.parquet")
    kinds = {field.name: str(field.type) for field in table.schema}
    assert kinds["id"] == "int64"
    assert kinds["embedding"].startswith("fixed_size_list<element: float")
    assert kinds["embedding"].endswith(f"[{D}]")
    assert kinds["pose"].endswith(f"[{3 * J}]")
    assert b'"D": 19, "J": 5' in table.schema.metadata[b"dgpose"]
    assert table["embedding"][0].as_py() == ROWS[0].tolist()


def test_reads_what_others_write(tmp_path: Path) -> None:
    want = PoseIndex(ROWS.astype(np.float16), poses=POSES)
    for save in (np.savez, np.savez_compressed):
        save(
            tmp_path / "other.npz",
            embeddings=np.asfortranarray(ROWS.astype(">f2")),
            poses=POSES.astype(np.float64),
        )
        assert_same(PoseIndex.from_npz(tmp_path / "other.npz"), want)
    np.save(tmp_path / "rows.npy", ROWS.astype(np.float16))
    np.save(tmp_path / "poses.npy", POSES)
    source = index_interchange.open_rows(tmp_path / "rows.npy", tmp_path / "poses.npy")
    assert (source.count, source.dim, source.joints) == (N, D, J)
    assert_same(index_interchange.build_index(source), want)
    seen = []

    def watch(chunks: Any, total: int) -> Any:
        for chunk in chunks:
            seen.append(len(chunk.embeddings))
            yield chunk

    index_interchange.build_index(source, "int8", watch)
    assert len(seen) == source.chunk_count == 11
    assert sum(seen) == N


def test_reads_parquet_of_others(tmp_path: Path) -> None:
    arrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    path = tmp_path / "other.parquet"
    columns = {
        "name": ["x"] * N,
        "embedding": list(ROWS.astype(np.float64)),  # variable lists of doubles
        "pose": list(POSES.reshape(N, -1)),
        "id": IDS.astype(np.int32),
    }
    parquet.write_table(arrow.table(columns), path, row_group_size=100)
    assert_same(PoseIndex.from_parquet(path), PoseIndex(ROWS, poses=POSES, ids=IDS))

    def refused(message: str, **changed: Any) -> None:
        table = {name: column for name, column in (columns | changed).items() if column is not None}
        parquet.write_table(arrow.table(table), path)
        with pytest.raises(ValueError, match=message):
            PoseIndex.from_parquet(path)

    refused("must have a column embedding, got name, pose, id", embedding=None)
    refused("column embedding must hold lists of floats, got int64", embedding=list(range(N)))
    refused("column embedding must hold no nulls", embedding=[ROWS[0]] * 9 + [None] * (N - 9))
    ragged = [ROWS[0]] * 9 + [ROWS[0, :4]] * (N - 9)
    refused("lists of embedding must be of one length, got 19 and 4", embedding=ragged)
    refused("poses of 3 J numbers, got 19 and 4", pose=list(POSES.reshape(N, -1)[:, :4]))
    refused("column id must be integers, got double", id=IDS.astype(float))
    bad = ROWS.copy()
    bad[613, 2] = np.nan
    refused("embeddings must be finite, got NaN or Inf in row 613", embedding=list(bad))
    refused("ids must be unique, got 4 twice", id=np.where(np.arange(N) > 690, 4, IDS))


def npz(**arrays: Any) -> bytes:
    file = io.BytesIO()
    np.savez(file, **arrays)
    return file.getvalue()


def bad_npz_files() -> dict[str, tuple[bytes, str]]:
    good = npz(embeddings=ROWS, ids=IDS, poses=POSES)
    flipped = bytearray(good)
    flipped[good.index(ROWS[400].tobytes()) + 3] ^= 1
    nan = ROWS.copy()
    nan[500, 0] = np.inf
    short = io.BytesIO()
    with zipfile.ZipFile(short, "w") as archive:
        array = io.BytesIO()
        np.save(array, ROWS)
        archive.writestr("embeddings.npy", array.getvalue()[:-100])
    objects = np.array(["x", None], dtype=object)
    return {
        "text": (b"hello", "not an .npz file that can be read whole"),
        "a pickle": (pickle.dumps(ROWS), "not an .npz file that can be read whole"),
        "cut short": (good[: len(good) // 2], "not an .npz file that can be read whole"),
        "a flipped bit": (bytes(flipped), "Bad CRC-32"),
        "a short member": (short.getvalue(), "embeddings is cut short"),
        "objects": (npz(embeddings=objects), r"holds Python objects \(pickle\)"),
        "no embeddings": (npz(rows=ROWS), r"must hold an array embeddings \[N, D\]"),
        "one axis": (npz(embeddings=ROWS[0]), r"must have shape \[N, D\], got \[19\]"),
        "no columns": (npz(embeddings=ROWS[:, :0]), r"shape \[N, D\], got \[700, 0\]"),
        "integers": (npz(embeddings=IDS[:, None]), "must be float16, float32 or float64, got int"),
        "few poses": (
            npz(embeddings=ROWS, poses=POSES[:3]),
            r"poses must have shape \[N, J, 3\] with N = 700, got \[3, 5, 3\]",
        ),
        "float ids": (npz(embeddings=ROWS, ids=IDS * 1.0), "ids must be integers, got float64"),
        "infinity": (npz(embeddings=nan), "embeddings must be finite, got NaN or Inf in row 500"),
        "an id twice": (npz(embeddings=ROWS, ids=IDS * 0), "ids must be unique, got 0 twice"),
    }


@pytest.mark.parametrize("name", list(bad_npz_files()))
def test_bad_npz_files(name: str, tmp_path: Path) -> None:
    content, message = bad_npz_files()[name]
    path = tmp_path / "bad.npz"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=message) as error:
        PoseIndex.from_npz(path)
    assert str(error.value).startswith(str(path))


def test_bad_npy_files(tmp_path: Path) -> None:
    path = tmp_path / "bad.npy"
    np.save(path, ROWS)
    good = path.read_bytes()
    for content, message in (
        (pickle.dumps(ROWS), "not an .npy file that can be read whole"),
        (b"", "not an .npy file that can be read whole"),
        (good[:-1], "cut short"),
        (good[:6] + b"\x09" + good[7:], r"of .npy version 9.0"),
    ):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=message):
            index_interchange.build_index(index_interchange.open_rows(path))
    with pytest.raises(FileNotFoundError, match="no such file"):
        index_interchange.open_rows(tmp_path / "none.npy")
    with pytest.raises(ValueError, match=r"must be an .npy, .npz or .parquet file"):
        index_interchange.open_rows(tmp_path / "rows.csv")
    np.save(path, ROWS)
    np.save(tmp_path / "poses.npy", POSES[:4])
    with pytest.raises(ValueError, match=r"poses must have shape \[N, J, 3\] with N = 700"):
        index_interchange.open_rows(path, tmp_path / "poses.npy")


def test_bad_parquet_files(index: PoseIndex, tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    path = tmp_path / "bad.parquet"
    index.to_parquet(path)
    good = path.read_bytes()
    flipped = bytearray(good)
    flipped[good.index(ROWS[400, :4].tobytes()) + 3] ^= 1 if ROWS[400, 0] else 0
    for content in (b"", b"hello", good[: len(good) // 2], good[:-2], bytes(flipped)):
        path.write_bytes(content)
        with pytest.raises(ValueError, match="not a Parquet file that can be read whole"):
            PoseIndex.from_parquet(path)
    with pytest.raises(FileNotFoundError, match="no such file"):
        PoseIndex.from_parquet(tmp_path / "none.parquet")


@pytest.mark.parametrize("kind", ["npz", "parquet"])
def test_a_failed_export_leaves_the_old_file(
    kind: str, index: PoseIndex, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if kind == "parquet":
        pytest.importorskip("pyarrow")
    path = tmp_path / f"poses.{kind}"
    path.write_bytes(b"old")

    def full_disk(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full_disk)
    with pytest.raises(OSError, match="No space left on device"):
        getattr(index, f"to_{kind}")(path)
    assert path.read_bytes() == b"old"
    assert [file.name for file in tmp_path.iterdir()] == [path.name]
    assert len(index.search(QUERIES, 1)[0]) == 6  # the index is not left locked


def test_adding_after_reading_counts_on(tmp_path: Path) -> None:
    PoseIndex(ROWS[:100], ids=np.arange(100) * 2).to_npz(tmp_path / "rows.npz")
    index = PoseIndex.from_npz(tmp_path / "rows.npz")
    index.add(ROWS[100:])
    assert index.ids()[-1] == 198 + 600


def test_poses_of_ids(index: PoseIndex) -> None:
    got = index.poses(IDS[[9, 2, 9]])
    assert np.array_equal(got, POSES[[9, 2, 9]])
    assert index.poses([]).shape == (0, J, 3)
    with pytest.raises(ValueError, match=f"id {IDS[3]} is not in the index"):
        index.poses(IDS[[2, 3]])
    with pytest.raises(ValueError, match="poses needs an index with poses"):
        PoseIndex(ROWS).poses([0])


# ---- faiss ----


def test_faiss_and_back(index: PoseIndex) -> None:
    faiss = pytest.importorskip("faiss")
    mapped = index.to_faiss()
    assert isinstance(mapped, faiss.IndexIDMap)
    _, ids = mapped.search(QUERIES, 20)
    want = index.search(QUERIES, 20)[1].numpy()
    assert all(set(a) == set(b) for a, b in zip(ids[:, :5], want[:, :5], strict=True))
    poses = index.arrays()["poses"]
    assert_same(PoseIndex.from_faiss(mapped, poses=poses, storage="bfloat16"), index)
    plain = PoseIndex(ROWS)
    flat = plain.to_faiss()
    assert type(flat) is faiss.IndexFlatIP
    assert_same(PoseIndex.from_faiss(flat), plain, poses=False)
    assert_same(PoseIndex.from_faiss(faiss.index_factory(D, "Flat", 0)), PoseIndex(ROWS[:0]), False)
    both = faiss.IndexIDMap2(faiss.IndexFlatIP(D))
    both.add_with_ids(ROWS, IDS)
    assert_same(PoseIndex.from_faiss(both), PoseIndex(ROWS, ids=IDS), poses=False)


def test_other_faiss_indexes_are_refused() -> None:
    faiss = pytest.importorskip("faiss")
    cases: list[tuple[Callable[[], Any], str]] = [
        (lambda: faiss.IndexFlatL2(D), "got IndexFlatL2: its measure is no inner product"),
        (lambda: faiss.IndexHNSWFlat(D, 8), "got IndexHNSWFlat, which has not the float32 rows"),
        (lambda: faiss.index_factory(D, "IDMap,SQ8", 0), "got IndexScalarQuantizer"),
        (lambda: "poses.faiss", "got str"),
    ]
    for make, message in cases:
        with pytest.raises(TypeError, match=message):
            PoseIndex.from_faiss(make())
    twice = faiss.IndexIDMap(faiss.IndexFlatIP(D))
    twice.add_with_ids(ROWS[:2], np.array([4, 4]))
    with pytest.raises(ValueError, match="ids must be unique, got 4 twice"):
        PoseIndex.from_faiss(twice)


@pytest.mark.parametrize(
    ("call", "package", "extra"),
    [
        ("PoseIndex(torch.ones(2, 3)).to_faiss()", "faiss", "faiss"),
        ("PoseIndex.from_faiss(None)", "faiss", "faiss"),
        ("PoseIndex(torch.ones(2, 3)).to_parquet('x.parquet')", "pyarrow", "parquet"),
    ],
)
def test_missing_packages_are_named(
    call: str, package: str, extra: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [n for n in sys.modules if n.partition(".")[0] == package]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, package, None)
    message = rf"needs {package}, which is not installed: pip install 'dgpose-ext\[{extra}\]'"
    with pytest.raises(ModuleNotFoundError, match=message):
        eval(call, {"PoseIndex": PoseIndex, "torch": torch})


def test_importing_needs_neither_package() -> None:
    code = (
        "import sys; sys.modules['faiss'] = sys.modules['pyarrow'] = None;"
        "import dgpose_ext.index_interchange"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
