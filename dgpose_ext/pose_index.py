"""PoseIndex: exact retrieval from millions of embeddings, with or without their poses.

The search and its certificate: csrc/scoring/search.h, screen.h and docs/ops/pose_index.md.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from dgpose_ext import _loader
from dgpose_ext._index_file import FILE_VERSION, read_index_file, write_index_file
from dgpose_ext._validate import require_dtype, require_integer, require_shape, require_tensor

__all__ = ["FILE_VERSION", "IndexStats", "PoseIndex"]

Array = npt.NDArray[Any]
StorageName = Literal["float32", "bfloat16", "int8"]

_STORAGES: tuple[StorageName, ...] = ("float32", "bfloat16", "int8")  # as in csrc/scoring/screen.h
_FLOATS = (torch.float32, torch.float64, torch.float16, torch.bfloat16)
_SAMPLE_ROWS, _SAMPLE_QUERIES = 16384, 32
# An exact score costs as much as ten float32 rows read in order, and among millions of rows about
# twice the sample's share survives.
_SURVIVOR_READS = 20
_MAX_INT8_DIM = 65536  # csrc/scoring/screen.h


class IndexStats(NamedTuple):
    """What the searches of an index did so far."""

    searches: int
    queries: int
    survivors: int  #: rows that got an exact score, over all queries
    roots: int  #: pairs whose joint distances were evaluated (`most_violated`)
    seconds: float

    @property
    def survivors_per_query(self) -> float:
        """Mean number of rows that the screen could not rule out."""
        return self.survivors / max(self.queries, 1)


def _rows(name: str, value: object, notation: str, **known: int) -> Array:
    """A tensor or array as a contiguous float32 array, checked."""
    if isinstance(value, np.ndarray):
        if not value.flags.writeable or min(value.strides, default=0) < 0:
            value = value.copy()  # torch takes no such view
        value = torch.from_numpy(value)
    tensor = value
    tensor = require_tensor(name, tensor)
    require_dtype(name, tensor, _FLOATS)
    require_shape(name, tensor, notation, **known)
    array: Array = tensor.detach().to("cpu", torch.float32).contiguous().numpy()
    return array


def _ids(name: str, value: object, **known: int) -> Array:
    """Ids as a contiguous int64 array."""
    if isinstance(value, Tensor):
        value = value.detach().cpu().numpy()
    array = np.asarray(value)
    if array.size == 0:
        array = array.astype(np.int64)
    if array.dtype.kind not in "iu":
        raise TypeError(f"{name} must be integers, got {array.dtype}")
    if array.ndim != 1 or ("N" in known and len(array) != known["N"]):
        where = f" with N = {known['N']}" if "N" in known else ""
        raise ValueError(f"{name} must have shape [N]{where}, got {list(array.shape)}")
    return np.ascontiguousarray(array, dtype=np.int64)


class PoseIndex:
    """Candidate embeddings, searched by inner product: exact, at the speed of low precision.

    A result is the defined ranking: by float32(sum of float64 products), descending, ties by the
    order in which rows were added. It does not depend on `storage`, the number of threads, the
    split of a batch, or the machine. Searches from several threads may run at once.

    Args:
        embeddings: [N, D], finite; a torch tensor or NumPy array of any float dtype, kept as
            float32. N may be 0.
        poses: [N, J, 3] in mm, for `search_mean_pose` and `most_violated`.
        ids: [N] non-negative integers, each once; None: 0 .. N-1.
        storage: of the codes that searches read first: "int8" (5 bytes a value in all, with the
            float32 row), "bfloat16" (6), "float32" (4), or "auto", which takes what costs the
            least on a sample of the rows.
        sample_queries: [B, D] of the kind that will be asked, for "auto", where they are of
            another kind than the rows, images among poses for example; None: some of the rows.
        metadata: JSON-serialisable description of the rows, which the file of `save` keeps: what
            embedded them, for example. The index itself reads nothing of it.

    Raises:
        TypeError, ValueError: a dtype or shape does not fit; a row that is not finite (its number
            is named); an id twice; metadata that JSON cannot hold.
        RuntimeError: the compiled core is missing.
    """

    def __init__(
        self,
        embeddings: Tensor | Array,
        *,
        poses: Tensor | Array | None = None,
        ids: Tensor | Array | Sequence[int] | None = None,
        storage: Literal["auto"] | StorageName = "auto",
        sample_queries: Tensor | Array | None = None,
        metadata: Mapping[str, Any] | None = None,
    ) -> None:
        self._metadata = json.dumps(dict(metadata or {}))
        if storage not in ("auto", *_STORAGES):
            raise ValueError(
                f"storage must be one of auto, {', '.join(_STORAGES)}, got {storage!r}"
            )
        rows = _rows("embeddings", embeddings, "[N, D]")
        count, dim = (int(n) for n in rows.shape)
        if dim == 0:
            raise ValueError("embeddings must have at least one column, got [N, 0]")
        pose_rows = None if poses is None else _rows("poses", poses, "[N, J, 3]", N=count)
        joints = 0 if pose_rows is None else int(pose_rows.shape[1])
        if pose_rows is not None and joints == 0:
            raise ValueError("poses must have at least one joint, got [N, 0, 3]")
        if storage == "auto":
            asked = None
            if sample_queries is not None:
                asked = _rows("sample_queries", sample_queries, "[B, D]", D=dim)
            storage = _best_storage(rows, asked)
        if storage == "int8" and dim > _MAX_INT8_DIM:
            raise ValueError(f"storage int8 takes at most {_MAX_INT8_DIM} columns, got {dim}")
        self._storage: StorageName = storage
        self._dim, self._joints = dim, joints
        self._file_bytes = 0  # of a file that was read into memory
        self._core = _core().PoseIndexCore(_STORAGES.index(storage), dim, joints)
        self._core.add(rows, pose_rows, None if ids is None else _ids("ids", ids, N=count))

    def __len__(self) -> int:
        return int(self._core.count())

    def __repr__(self) -> str:
        poses = f", J={self._joints}" if self._joints else ""
        return f"PoseIndex(N={len(self)}, D={self._dim}{poses}, storage={self._storage!r})"

    @property
    def storage(self) -> str:
        """Of the codes: "int8", "bfloat16" or "float32"."""
        return self._storage

    @property
    def dim(self) -> int:
        """D, the length of an embedding."""
        return self._dim

    @property
    def joints(self) -> int:
        """J, the joints of a pose; 0 without poses."""
        return self._joints

    @property
    def metadata(self) -> dict[str, Any]:
        """The description of the rows: a copy; assign another one to change it."""
        metadata: dict[str, Any] = json.loads(self._metadata)
        return metadata

    @metadata.setter
    def metadata(self, value: Mapping[str, Any]) -> None:
        self._metadata = json.dumps(dict(value))

    @property
    def memory_bytes(self) -> int:
        """Memory of this process that the index holds; mapped files do not count."""
        return int(self._core.memory_bytes()) + self._file_bytes

    @property
    def stats(self) -> IndexStats:
        """Counts over all searches so far."""
        values = self._core.stats()
        return IndexStats(
            int(values["searches"]),
            int(values["queries"]),
            int(values["survivors"]),
            int(values["roots"]),
            values["seconds"],
        )

    def search(
        self,
        queries: Tensor | Array,
        k: int,
        *,
        filter: Tensor | Array | Sequence[int] | None = None,
    ) -> tuple[Tensor, Tensor]:
        """The k best rows of every query.

        Args:
            queries: [B, D], finite.
            k: at least 1; there is no upper limit.
            filter: only these rows: a bool mask [N] over the rows in their order, or a list of ids.

        Returns:
            (scores [B, k] float32, ids [B, k] int64) on the device of `queries` (the CPU for
            arrays), by rank; -inf and -1 where fewer than k rows are allowed.
        """
        scores, ids, _ = self._search(queries, k, filter)
        return _like(queries, scores), _like(queries, ids)

    def search_mean_pose(
        self,
        queries: Tensor | Array,
        k: int,
        *,
        filter: Tensor | Array | Sequence[int] | None = None,
    ) -> Tensor:
        """The mean of the k best rows' poses, [B, J, 3] in mm: the paper's Avg(A) with A = k.

        Of fewer than k allowed rows, the mean of those; NaN where there is none.
        """
        self._require_poses("search_mean_pose")
        return _like(queries, self._search(queries, k, filter, mean_poses=True)[2])

    def most_violated(
        self,
        queries: Tensor | Array,
        targets: Tensor | Array,
        *,
        margin_weight: float = 1.0,
        filter: Tensor | Array | Sequence[int] | None = None,
    ) -> tuple[Tensor, Tensor]:
        """The row with the largest score + margin_weight * MPJPE(pose, target), for every query.

        Args:
            queries: [B, D]. targets: [B, J, 3] in mm.
            margin_weight: not negative.

        Returns:
            (values [B] float32, ids [B] int64); -inf and -1 in an empty index.
        """
        self._require_poses("most_violated")
        if not 0 <= margin_weight < float("inf"):
            raise ValueError(f"margin_weight must be finite and not negative, got {margin_weight}")
        values, ids, _ = self._search(
            queries, 1, filter, targets=targets, margin_weight=margin_weight
        )
        return _like(queries, values[:, 0]), _like(queries, ids[:, 0])

    def add(
        self,
        embeddings: Tensor | Array,
        *,
        poses: Tensor | Array | None = None,
        ids: Tensor | Array | Sequence[int] | None = None,
    ) -> None:
        """Appends rows; all of them, or none where an error is raised.

        Args:
            embeddings: [M, D]; poses: [M, J, 3], needed exactly where the index has poses.
            ids: [M]; None: they count up from the largest that there ever was.
        """
        rows = _rows("embeddings", embeddings, "[M, D]", D=self._dim)
        if (poses is None) != (self._joints == 0):
            wanted = (
                "must be given: this index has" if self._joints else "must be None: this has no"
            )
            raise ValueError(f"poses {wanted} poses")
        pose_rows = (
            None
            if poses is None
            else _rows("poses", poses, "[M, J, 3]", M=len(rows), J=self._joints)
        )
        self._core.add(rows, pose_rows, None if ids is None else _ids("ids", ids, N=len(rows)))

    def remove(self, ids: Tensor | Array | Sequence[int]) -> None:
        """Removes the rows with these ids; all of them, or none where one is unknown or twice."""
        self._core.remove(_ids("ids", ids))

    def ids(self) -> Tensor:
        """The ids of the rows in their order, [N] int64."""
        found: list[Array] = []
        self._core.with_arrays(lambda arrays: found.append(arrays["ids"].copy()))
        return torch.from_numpy(found[0])

    def poses(self, ids: Tensor | Array | Sequence[int]) -> Tensor:
        """The poses of the rows with these ids, [M, J, 3] in mm; ValueError for an unknown id."""
        self._require_poses("poses")
        return torch.from_numpy(self._core.poses(_ids("ids", ids)))

    def save(self, path: str | Path) -> None:
        """Writes one file (dgpose_ext/_index_file.py), whole or not at all."""
        header: dict[str, Any] = {"storage": self._storage, "dim": self._dim}
        header["joints"] = self._joints
        if self.metadata:
            header["metadata"] = self.metadata
        self._core.with_arrays(lambda arrays: write_index_file(path, header, arrays))

    @classmethod
    def load(cls, path: str | Path, mmap: bool = True, *, verify: bool | None = None) -> PoseIndex:
        """Opens a file of `save`.

        Args:
            mmap: leave the arrays in the file and read what a search touches; changing the index
                copies them into memory and never touches the file.
            verify: compare the checksums of all arrays, which reads the whole file; None: only
                without mmap. The header's checksum and the file's length are always compared.

        Raises:
            FileNotFoundError: there is no such file.
            ValueError: not an index file, cut short, damaged, or of another version.
        """
        header, arrays = read_index_file(path, mmap, (not mmap) if verify is None else verify)
        index = cls.__new__(cls)
        index._storage = header["storage"]
        index._dim, index._joints = header["dim"], header["joints"]
        index._metadata = json.dumps(header["metadata"])
        index._file_bytes = 0 if mmap else sum(array.nbytes for array in arrays.values())
        index._core = _core().PoseIndexCore.from_arrays(
            _STORAGES.index(index._storage), index._dim, index._joints, arrays["rows"],
            arrays.get("poses"), arrays["ids"], arrays.get("mean"), arrays.get("panels"),
            arrays.get("bounds"),
        )  # fmt: skip
        return index

    def arrays(self) -> dict[str, Array]:
        """Copies of "embeddings" [N, D], "ids" [N] and, where there are some, "poses" [N, J, 3]."""
        found: dict[str, Array] = {}

        def copy(arrays: dict[str, Array]) -> None:
            found["embeddings"] = arrays["rows"].copy()
            found["ids"] = arrays["ids"].copy()
            if "poses" in arrays:
                found["poses"] = arrays["poses"].copy()

        self._core.with_arrays(copy)
        return found

    def to_faiss(self) -> Any:
        """A faiss IndexFlatIP of the rows, in an IndexIDMap where ids are not 0 .. N-1.

        Poses stay behind. Needs faiss: `pip install 'dgpose-ext[faiss]'`.
        """
        from dgpose_ext import index_interchange as interchange

        return interchange.to_faiss(self)

    @classmethod
    def from_faiss(
        cls,
        index: Any,
        *,
        poses: Tensor | Array | None = None,
        storage: Literal["auto"] | StorageName = "auto",
    ) -> PoseIndex:
        """The rows of a faiss IndexFlatIP, or of an IndexIDMap of one with its ids.

        Raises:
            TypeError: of another kind: it has not the rows, or another measure.
            ValueError: the ids or rows do not fit a PoseIndex.
        """
        from dgpose_ext import index_interchange as interchange

        return interchange.from_faiss(index, poses=poses, storage=storage)

    def to_parquet(self, path: str | Path) -> None:
        """Writes id int64, embedding float32 [D] and pose float32 [3 J] a row, atomically.

        Needs pyarrow: `pip install 'dgpose-ext[parquet]'`.
        """
        from dgpose_ext import index_interchange as interchange

        interchange.write_parquet(self, path)

    @classmethod
    def from_parquet(
        cls, path: str | Path, *, storage: Literal["auto"] | StorageName = "auto"
    ) -> PoseIndex:
        """Reads such a file, or one of other origin with a column `embedding` of equal lists.

        Columns `id` and `pose` (3 J numbers) are used where they are there. Read piece by piece;
        "auto" judges the first.

        Raises:
            FileNotFoundError: there is no such file.
            ValueError: no Parquet file, damaged, or without such columns.
        """
        from dgpose_ext import index_interchange as interchange

        return interchange.build_index(interchange.open_parquet(path), storage)

    def to_npz(self, path: str | Path) -> None:
        """Writes embeddings [N, D], ids [N] and, where there are some, poses [N, J, 3]."""
        from dgpose_ext import index_interchange as interchange

        interchange.write_npz(self, path)

    @classmethod
    def from_npz(
        cls, path: str | Path, *, storage: Literal["auto"] | StorageName = "auto"
    ) -> PoseIndex:
        """Reads such a file; ids and poses may be missing. Pickled arrays are refused.

        Read piece by piece; "auto" judges the first.

        Raises:
            FileNotFoundError: there is no such file.
            ValueError: no .npz file, damaged, or its arrays do not fit together.
        """
        from dgpose_ext import index_interchange as interchange

        return interchange.build_index(interchange.open_npz(path), storage)

    def _search(
        self,
        queries: Tensor | Array,
        k: int,
        filter: Tensor | Array | Sequence[int] | None,
        *,
        targets: Tensor | Array | None = None,
        margin_weight: float = 1.0,
        mean_poses: bool = False,
    ) -> tuple[Array, Array, Array]:
        require_integer("k", k)
        if k < 1:
            raise ValueError(f"k must be at least 1, got {k}")
        rows = _rows("queries", queries, "[B, D]", D=self._dim)
        if not np.isfinite(rows).all():
            row = int(np.flatnonzero(~np.isfinite(rows).all(axis=1))[0])
            raise ValueError(f"queries must be finite, got NaN or Inf in row {row}")
        target_rows = None
        if targets is not None:
            target_rows = _rows("targets", targets, "[B, J, 3]", B=len(rows), J=self._joints)
            if not np.isfinite(target_rows).all():
                raise ValueError("targets must be finite")
        scores, ids, means = self._core.search(
            rows, k, *_filter(filter), target_rows, margin_weight, mean_poses
        )
        return scores, ids, means

    def _require_poses(self, method: str) -> None:
        if not self._joints:
            raise ValueError(f"{method} needs an index with poses: PoseIndex(..., poses=[N, J, 3])")


def _filter(
    filter: Tensor | Array | Sequence[int] | None,
) -> tuple[Array | None, int, Array | None]:
    """(mask as one bit a row in 64-bit words, its length, ids), as PoseIndexCore.search takes them.

    The core compares them with its rows under its lock: another thread may be changing the index.
    """
    if filter is None:
        return None, 0, None
    values = filter.detach().cpu().numpy() if isinstance(filter, Tensor) else np.asarray(filter)
    if values.dtype != np.bool_:
        return None, 0, _ids("filter", values)
    if values.ndim != 1:
        raise ValueError(f"filter must be a mask of shape [N], got {list(values.shape)}")
    packed = np.packbits(values, bitorder="little")
    words = np.zeros((len(values) + 63) // 64 * 8, dtype=np.uint8)
    words[: len(packed)] = packed
    return words.view("<u8").astype(np.uint64, copy=False), len(values), None


def _core() -> Any:
    if _loader.core is None:
        raise RuntimeError(f"PoseIndex needs the compiled core. {_loader.why_no_core()}")
    return _loader.core


def _like(queries: Tensor | Array, array: Array) -> Tensor:
    """The array as a tensor on the device of the queries."""
    tensor = torch.from_numpy(np.ascontiguousarray(array))
    return tensor.to(queries.device) if isinstance(queries, Tensor) else tensor


def _best_storage(rows: Array, queries: Array | None = None) -> StorageName:
    """The storage whose search reads the least a row, judged on a sample.

    Queries are rows of the sample, unless given; k is 1/400 of it (500 of 200,000). Deterministic.
    """
    count, dim = rows.shape
    if count < 4096:  # nothing to gain
        return "float32"
    sample = np.ascontiguousarray(rows[:: max(1, count // _SAMPLE_ROWS)][:_SAMPLE_ROWS])
    if not np.isfinite(sample).all():
        return "float32"  # add() refuses the rows and knows their numbers
    some = sample if queries is None or not len(queries) else queries
    some = some[:: max(1, len(some) // _SAMPLE_QUERIES)][:_SAMPLE_QUERIES]
    best: tuple[float, StorageName] = (4.0 * dim, "float32")
    coded: tuple[tuple[StorageName, int], ...] = (("bfloat16", 2), ("int8", 1))
    for storage, code_bytes in coded:
        if storage == "int8" and dim > _MAX_INT8_DIM:
            continue
        index = PoseIndex(sample, storage=storage)
        index.search(some, max(1, len(sample) // 400))
        surviving = index.stats.survivors_per_query / len(sample)
        read = code_bytes * dim + surviving * _SURVIVOR_READS * 4 * dim
        best = min(best, (read, storage))
    return best[1]
