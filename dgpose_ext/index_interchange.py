"""A PoseIndex in the formats of others: faiss, Parquet, NumPy.

Files are read and written piece by piece, and written atomically; no pickle is read. What a user
calls are the methods of PoseIndex (`to_faiss`, `from_parquet`, ...); `open_rows` and `build_index`
serve who wants to see the progress.
"""

from __future__ import annotations

import json
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import IO, Any, Literal, NamedTuple, cast

import numpy as np
import numpy.typing as npt
from torch import Tensor

from dgpose_ext.pose_index import PoseIndex, StorageName, _best_storage
from dgpose_ext.tensor_file import atomic_file

__all__ = [
    "RowSource",
    "Rows",
    "build_index",
    "from_faiss",
    "open_npy",
    "open_npz",
    "open_parquet",
    "open_rows",
    "to_faiss",
    "write_npz",
    "write_parquet",
]

Array = npt.NDArray[Any]

_CHUNK_BYTES = 1 << 25
_LEAST_CHUNK_ROWS = 16384  # as many as storage="auto" looks at
_PARQUET_KEY = b"dgpose"


class Rows(NamedTuple):
    """Consecutive rows of a file."""

    embeddings: Array  #: [M, D] float32
    poses: Array | None  #: [M, J, 3] float32
    ids: Array | None  #: [M] int64


@dataclass(frozen=True)
class RowSource:
    """The rows of a file, which are read when `chunks` is walked through."""

    path: Path
    count: int  #: N
    dim: int  #: D
    joints: int  #: J; 0 without poses
    chunk_rows: int  #: of every chunk but the last
    chunks: Callable[[], Iterator[Rows]]

    @property
    def chunk_count(self) -> int:
        """How many pieces `chunks` yields."""
        return -(-self.count // self.chunk_rows)


def build_index(
    source: RowSource,
    storage: Literal["auto"] | StorageName = "auto",
    watch: Callable[[Iterator[Rows], int], Iterable[Rows]] = lambda chunks, total: chunks,
) -> PoseIndex:
    """An index of all rows of a file, which is read once and piece by piece.

    Args:
        source: of `open_rows`.
        storage: "auto" judges the first piece, of at least 16,384 rows.
        watch: sees the pieces go by, given them and their number: a progress bar.

    Raises:
        ValueError: a row is not finite (its number is named), an id is there twice; the file is
            damaged.
    """
    empty = np.zeros((0, source.dim), np.float32)
    poses = np.zeros((0, source.joints, 3), np.float32) if source.joints else None
    index = None
    done = 0
    for rows in watch(source.chunks(), source.chunk_count):
        for name, values in (("embeddings", rows.embeddings), ("poses", rows.poses)):
            if values is not None and not np.isfinite(values).all():
                bad = ~np.isfinite(values.reshape(len(values), -1)).all(axis=1)
                row = done + int(bad.argmax())
                raise ValueError(
                    f"{source.path}: {name} must be finite, got NaN or Inf in row {row}"
                )
        if index is None:
            chosen = _best_storage(rows.embeddings) if storage == "auto" else storage
            index = PoseIndex(empty, poses=poses, storage=chosen)
            index._core.reserve(source.count)
        try:
            index.add(rows.embeddings, poses=rows.poses, ids=rows.ids)
        except ValueError as error:
            raise ValueError(f"{source.path}: {error}") from None
        done += len(rows.embeddings)
    return PoseIndex(empty, poses=poses, storage=storage) if index is None else index


def open_rows(path: str | Path, poses: str | Path | None = None) -> RowSource:
    """The rows of an .npy, .npz or .parquet file, by its ending.

    Args:
        path: .npy holds embeddings [N, D]; .npz the arrays embeddings, and maybe ids and poses;
            .parquet the columns embedding, and maybe id and pose.
        poses: .npy of [N, J, 3], or .npz with an array poses, in the place of the file's own.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: of another format, or its contents do not fit; nothing but headers is looked at.
    """
    suffix = Path(path).suffix.lower()
    opener = {".npy": open_npy, ".npz": open_npz, ".parquet": open_parquet}.get(suffix)
    if opener is None:
        raise ValueError(f"{path}: must be an .npy, .npz or .parquet file")
    source = opener(path)
    return source if poses is None else _with_poses(source, Path(poses))


def _chunk_rows(dim: int) -> int:
    return max(_LEAST_CHUNK_ROWS, _CHUNK_BYTES // (4 * dim))


# ---- NumPy ----


class _ArrayStream:
    """An array in .npy format, read in pieces along its first axis."""

    def __init__(self, name: str, file: IO[bytes], size: int) -> None:
        self.name, self._file = name, file
        version = np.lib.format.read_magic(file)
        read_header = {
            (1, 0): np.lib.format.read_array_header_1_0,
            (2, 0): np.lib.format.read_array_header_2_0,
        }.get(version)
        if read_header is None:
            raise ValueError(f"of .npy version {version[0]}.{version[1]}, which is not read")
        self.shape, fortran, self.dtype = read_header(file)
        if self.dtype.hasobject:
            raise ValueError(f"{name} holds Python objects (pickle), which are never read")
        if file.tell() + int(np.prod(self.shape, dtype=object)) * self.dtype.itemsize > size:
            raise ValueError(f"{name} is cut short")
        self._whole: Array | None = None
        if fortran and len(self.shape) > 1:
            self._whole = self._values(int(np.prod(self.shape))).reshape(self.shape[::-1]).T
        self._at = 0

    def read(self, rows: int) -> Array:
        """The next rows; ValueError where the file ends before."""
        begin, self._at = self._at, self._at + rows
        if self._whole is not None:
            return self._whole[begin : self._at]
        row = int(np.prod(self.shape[1:], dtype=np.int64))
        values = self._values(rows * row).reshape(rows, *self.shape[1:])
        if self._at == self.shape[0]:
            self._file.read(1)  # a zip member compares its checksum at its end
        return values

    def _values(self, count: int) -> Array:
        values = np.empty(count, self.dtype)
        data, done = values.view(np.uint8).data, 0
        while done < len(data):
            step = self._file.readinto(data[done:])  # type: ignore[attr-defined]
            if not step:
                raise ValueError(f"{self.name} is cut short")
            done += step
        return values


def _require_file(path: str | Path) -> Path:
    if not Path(path).is_file():
        raise FileNotFoundError(f"{path}: no such file")
    return Path(path)


@contextmanager
def _array_streams(path: Path) -> Iterator[dict[str, _ArrayStream]]:
    """The arrays of an .npz by name, or the one of an .npy as ""; errors name the file."""
    with ExitStack() as stack:
        try:
            if path.suffix.lower() == ".npy":
                file = stack.enter_context(path.open("rb"))
                yield {"": _ArrayStream("the array", file, path.stat().st_size)}
                return
            archive = stack.enter_context(zipfile.ZipFile(path))
            streams = {}
            for info in archive.infolist():
                name = info.filename.removesuffix(".npy")
                if name in ("embeddings", "ids", "poses"):
                    member = stack.enter_context(archive.open(info))
                    streams[name] = _ArrayStream(name, member, info.file_size)
            yield streams
        except (ValueError, zipfile.BadZipFile, zlib.error, EOFError) as error:
            kind = "an" if path.suffix.lower() in (".npy", ".npz") else "a"
            raise ValueError(
                f"{path}: not {kind} {path.suffix} file that can be read whole ({error})"
            ) from error


def _check_arrays(path: Path, shapes: dict[str, tuple[tuple[int, ...], np.dtype[Any]]]) -> None:
    """ValueError unless shapes and dtypes are those of embeddings, poses and ids."""
    count = shapes["embeddings"][0][0] if shapes["embeddings"][0] else 0
    for name, notation, axes, kinds in (
        ("embeddings", "[N, D]", 2, "f"),
        ("poses", "[N, J, 3]", 3, "f"),
        ("ids", "[N]", 1, "iu"),
    ):
        if name not in shapes:
            continue
        shape, dtype = shapes[name]
        fits = len(shape) == axes and (name == "embeddings" or shape[0] == count)
        if not fits or 0 in shape[1:] or (name == "poses" and shape[2] != 3):
            where = "" if name == "embeddings" else f" with N = {count}"
            raise ValueError(f"{path}: {name} must have shape {notation}{where}, got {list(shape)}")
        if dtype.kind not in kinds or dtype.itemsize > 8:
            wanted = "integers" if kinds == "iu" else "float16, float32 or float64"
            raise ValueError(f"{path}: {name} must be {wanted}, got {dtype}")


def _read_rows(path: Path, count: int, step: int, names: dict[str, str]) -> Iterator[Rows]:
    """Pieces of the arrays `names` maps embeddings, poses and ids to."""
    with _array_streams(path) as streams:
        for begin in range(0, count, step):
            size = min(step, count - begin)
            found = {
                name: streams[key].read(size).astype("<i8" if name == "ids" else "<f4", copy=False)
                for name, key in names.items()
            }
            embeddings = found.get("embeddings", np.zeros((size, 0), np.float32))
            yield Rows(embeddings, found.get("poses"), found.get("ids"))


def _open_arrays(path: Path, names: dict[str, str]) -> RowSource:
    with _array_streams(path) as streams:
        names = {name: key for name, key in names.items() if key in streams}
        shapes = {name: (streams[key].shape, streams[key].dtype) for name, key in names.items()}
    if "embeddings" not in names:
        raise ValueError(f"{path}: must hold an array embeddings [N, D]")
    _check_arrays(path, shapes)
    count, dim = shapes["embeddings"][0]
    joints = shapes["poses"][0][1] if "poses" in shapes else 0
    step = _chunk_rows(dim)
    return RowSource(path, count, dim, joints, step, lambda: _read_rows(path, count, step, names))


def open_npy(path: str | Path) -> RowSource:
    """Embeddings [N, D] of an .npy file (see `open_rows`)."""
    return _open_arrays(_require_file(path), {"embeddings": ""})


def open_npz(path: str | Path) -> RowSource:
    """The arrays embeddings, ids and poses of an .npz file (see `open_rows`)."""
    return _open_arrays(_require_file(path), {n: n for n in ("embeddings", "poses", "ids")})


def _with_poses(source: RowSource, path: Path) -> RowSource:
    key = "" if _require_file(path).suffix.lower() == ".npy" else "poses"
    with _array_streams(path) as streams:
        if key not in streams:
            raise ValueError(f"{path}: must hold an array poses [N, J, 3]")
        shape, dtype = streams[key].shape, streams[key].dtype
    rows = ((source.count, source.dim), np.dtype(np.float32))
    _check_arrays(path, {"embeddings": rows, "poses": (shape, dtype)})

    def chunks() -> Iterator[Rows]:
        poses = _read_rows(path, source.count, source.chunk_rows, {"poses": key})
        for rows, beside in zip(source.chunks(), poses, strict=True):
            yield rows._replace(poses=beside.poses)

    return RowSource(source.path, source.count, source.dim, shape[1], source.chunk_rows, chunks)


def write_npz(index: PoseIndex, path: str | Path) -> None:
    """See `PoseIndex.to_npz`."""

    def write(arrays: dict[str, Array]) -> None:
        arrays = {"embeddings" if name == "rows" else name: a for name, a in arrays.items()}
        with atomic_file(Path(path)) as file, zipfile.ZipFile(file, "w") as archive:
            for name in ("embeddings", "ids", "poses"):
                if name not in arrays:
                    continue
                member = zipfile.ZipInfo(f"{name}.npy")
                with archive.open(member, "w", force_zip64=True) as stream:
                    header = np.lib.format.header_data_from_array_1_0(arrays[name])
                    np.lib.format.write_array_header_1_0(cast(Any, stream), header)
                    data = arrays[name].reshape(-1).view(np.uint8).data
                    for begin in range(0, len(data), _CHUNK_BYTES):
                        stream.write(data[begin : begin + _CHUNK_BYTES])

    index._core.with_arrays(write)


# ---- Parquet ----


def _package(name: str, extra: str, purpose: str) -> ModuleType:
    try:
        return import_module(name)
    except ModuleNotFoundError as error:
        package = name.partition(".")[0]
        raise ModuleNotFoundError(
            f"{purpose} needs {package}, which is not installed: pip install 'dgpose-ext[{extra}]'",
            name=error.name,
        ) from None


def _parquet() -> tuple[ModuleType, ModuleType]:
    purpose = "a Parquet file"
    parquet = _package("pyarrow.parquet", "parquet", purpose)
    return _package("pyarrow", "parquet", purpose), parquet


def write_parquet(index: PoseIndex, path: str | Path) -> None:
    """See `PoseIndex.to_parquet`."""
    arrow, parquet = _parquet()
    dim, joints = index.dim, index.joints
    widths = {"embedding": dim} | ({"pose": 3 * joints} if joints else {})
    fields = [arrow.field("id", arrow.int64(), nullable=False)]
    for name, width in widths.items():
        value = arrow.field("element", arrow.float32(), nullable=False)
        fields.append(arrow.field(name, arrow.list_(value, width), nullable=False))
    description = {"kind": "PoseIndex rows", "version": 1, "D": dim, "J": joints}
    schema = arrow.schema(fields, metadata={_PARQUET_KEY: json.dumps(description)})
    step = _chunk_rows(dim)

    def write(arrays: dict[str, Array]) -> None:
        values = {"embedding": arrays["rows"]}
        if joints:
            values["pose"] = arrays["poses"]
        with (
            atomic_file(Path(path)) as file,
            parquet.ParquetWriter(
                file, schema, use_dictionary=False, write_page_checksum=True
            ) as writer,
        ):
            for begin in range(0, len(arrays["ids"]), step):
                columns = [arrow.array(arrays["ids"][begin : begin + step])]
                for field in fields[1:]:
                    flat = arrow.array(values[field.name][begin : begin + step].reshape(-1))
                    columns.append(arrow.FixedSizeListArray.from_arrays(flat, type=field.type))
                writer.write_batch(arrow.record_batch(columns, schema=schema))

    index._core.with_arrays(write)


@contextmanager
def _readable(path: Path) -> Iterator[tuple[ModuleType, Any]]:
    """(pyarrow, the open file); what Arrow says of a bad one as a ValueError."""
    arrow, parquet = _parquet()
    try:
        with parquet.ParquetFile(path, page_checksum_verification=True, pre_buffer=False) as file:
            yield arrow, file
    except (arrow.ArrowException, OSError) as error:
        reason = str(error).strip().splitlines()[0]
        raise ValueError(f"{path}: not a Parquet file that can be read whole ({reason})") from error


def _width(arrow: ModuleType, path: Path, file: Any, name: str) -> int:
    """The length of the lists of a column; 0 where the file has no rows and does not say it."""
    kind = file.schema_arrow.field(name).type
    is_list = arrow.types.is_fixed_size_list(kind) or arrow.types.is_list(kind)
    if not (is_list or arrow.types.is_large_list(kind)) or not arrow.types.is_floating(
        kind.value_type
    ):
        raise ValueError(f"{path}: column {name} must hold lists of floats, got {kind}")
    if arrow.types.is_fixed_size_list(kind):
        return int(kind.list_size)
    for batch in file.iter_batches(batch_size=1, columns=[name]):
        return len(batch.column(0)[0])
    return 0


def _list_column(path: Path, name: str, column: Any, width: int) -> Array:
    """A column of lists as float32 [M, width]."""
    values = column.flatten()
    if column.null_count or values.null_count:
        raise ValueError(f"{path}: column {name} must hold no nulls")
    lengths = column.value_lengths().to_numpy(zero_copy_only=False)
    if (lengths != width).any():
        other = int(lengths[lengths != width][0])
        raise ValueError(f"{path}: lists of {name} must be of one length, got {width} and {other}")
    flat: Array = values.to_numpy(zero_copy_only=False).astype(np.float32)  # never Arrow's memory
    return flat.reshape(len(column), width)


def open_parquet(path: str | Path) -> RowSource:
    """The columns embedding, id and pose of a Parquet file (see `open_rows`)."""
    path = _require_file(path)
    with _readable(path) as (arrow, file):
        schema, count = file.schema_arrow, int(file.metadata.num_rows)
        if "embedding" not in schema.names:
            raise ValueError(
                f"{path}: must have a column embedding, got {', '.join(schema.names) or 'none'}"
            )
        dim = _width(arrow, path, file, "embedding")
        pose = _width(arrow, path, file, "pose") if "pose" in schema.names else 0
        if dim == 0 or pose % 3:
            raise ValueError(
                f"{path}: must have embeddings of D > 0 and poses of 3 J numbers, "
                f"got {dim} and {pose}"
            )
        if "id" in schema.names and not arrow.types.is_integer(schema.field("id").type):
            raise ValueError(f"{path}: column id must be integers, got {schema.field('id').type}")
        columns = [name for name in ("id", "embedding", "pose") if name in schema.names]
    step = _chunk_rows(dim)

    def chunks() -> Iterator[Rows]:
        with _readable(path) as (_, file):
            for batch in file.iter_batches(batch_size=step, columns=columns):
                found = dict(zip(batch.schema.names, batch.columns, strict=True))
                poses = ids = None
                if pose:
                    poses = _list_column(path, "pose", found["pose"], pose).reshape(
                        -1, pose // 3, 3
                    )
                if "id" in found:
                    if found["id"].null_count:
                        raise ValueError(f"{path}: column id must hold no nulls")
                    ids = found["id"].to_numpy(zero_copy_only=False).astype(np.int64)
                yield Rows(_list_column(path, "embedding", found["embedding"], dim), poses, ids)

    return RowSource(path, count, dim, pose // 3, step, chunks)


# ---- faiss ----


def to_faiss(index: PoseIndex) -> Any:
    """See `PoseIndex.to_faiss`."""
    faiss = _package("faiss", "faiss", "to_faiss")
    flat = faiss.IndexFlatIP(index.dim)
    made: list[Any] = []

    def fill(arrays: dict[str, Array]) -> None:
        rows, ids = arrays["rows"], arrays["ids"]
        if np.array_equal(ids, np.arange(len(ids))):
            flat.add(rows)
            made.append(flat)
        else:
            made.append(faiss.IndexIDMap(flat))
            made[0].add_with_ids(rows, ids)

    index._core.with_arrays(fill)
    return made[0]


def from_faiss(
    index: Any,
    *,
    poses: Tensor | Array | None = None,
    storage: Literal["auto"] | StorageName = "auto",
) -> PoseIndex:
    """See `PoseIndex.from_faiss`."""
    faiss = _package("faiss", "faiss", "from_faiss")
    wanted = "index must be a faiss IndexFlatIP, or an IndexIDMap of one"
    if not isinstance(index, faiss.Index):
        raise TypeError(f"{wanted}, got {type(index).__name__}")
    flat, ids = faiss.downcast_index(index), None
    if isinstance(flat, faiss.IndexIDMap):
        ids = faiss.vector_to_array(flat.id_map)
        flat = faiss.downcast_index(flat.index)
    if not isinstance(flat, faiss.IndexFlat):
        raise TypeError(
            f"{wanted}, got {type(flat).__name__}, which has not the float32 rows: "
            "build PoseIndex from the embeddings"
        )
    if flat.metric_type != faiss.METRIC_INNER_PRODUCT:
        raise TypeError(f"{wanted}, got {type(flat).__name__}: its measure is no inner product")
    shape = (flat.ntotal, flat.d)
    rows = np.zeros(shape, np.float32)
    if flat.ntotal:
        rows = faiss.rev_swig_ptr(flat.get_xb(), flat.ntotal * flat.d).reshape(shape)
    return PoseIndex(rows, poses=poses, ids=ids, storage=storage)
