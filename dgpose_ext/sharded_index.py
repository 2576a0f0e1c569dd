"""One PoseIndex over the processes of torch.distributed, each with rows of its own."""

from __future__ import annotations

import struct
import time
import zlib
from collections.abc import Callable, Sequence
from datetime import timedelta
from itertools import pairwise
from typing import Any, Literal, TypeVar

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor

from dgpose_ext.pose_index import Array, PoseIndex, StorageName, _like, _rows

__all__ = ["ShardedPoseIndex"]

T = TypeVar("T")

_GATHER_BYTES = 1 << 26  # that one collective brings to a rank
_FAILED, _FINE = 0, 1


class ShardedPoseIndex:
    """The rows of all ranks of a process group, searched as one PoseIndex.

    Every result is the one of a single index with the rows of rank 0, 1, 2, ... one after another,
    to the bit and on every rank. All methods but `shard` and the constructor's checks of its own
    arguments are collective: every rank calls them, alike and in the same order, from one thread. A
    search sends k (score, id) pairs a query and rank, `search_mean_pose` k poses a query as well.

    What is wrong with the input of one rank raises an error on all. A rank that dies or does not
    call within `timeout` raises RuntimeError on the others, and the index is of no more use.

    Args:
        shard: the rows of this rank, maybe none; D and J are those of all ranks, `storage` may
            differ. Ids are unique over all ranks (`build` counts them). Rows may be added and
            removed through `shard` between searches; their ids are then not checked again.
        group: of processes, gloo on the CPU or NCCL on GPUs; None: the default one.
        timeout: seconds that a rank waits for the others; more than the longest search takes.

    Raises:
        RuntimeError: torch.distributed is not initialised, or a rank does not answer.
        ValueError: D or J differ, or an id is on two ranks.
    """

    def __init__(
        self,
        shard: PoseIndex,
        *,
        group: dist.ProcessGroup | None = None,
        timeout: float = 300.0,
    ) -> None:
        self._open(shard, _Ranks(group, timeout))

    @classmethod
    def build(
        cls,
        embeddings: Tensor | Array,
        *,
        poses: Tensor | Array | None = None,
        storage: Literal["auto"] | StorageName = "auto",
        group: dist.ProcessGroup | None = None,
        timeout: float = 300.0,
    ) -> ShardedPoseIndex:
        """An index of this rank's rows, with ids that count up over the ranks.

        Args:
            embeddings: [N_r, D] of this rank; N_r may be 0. poses: [N_r, J, 3] in mm.
            storage, group, timeout: of PoseIndex and of the constructor.
        """
        ranks = _Ranks(group, timeout)
        counts = ranks.agree("ShardedPoseIndex.build", lambda: (None, [len(embeddings)]))[1]
        first = sum(count for (count,) in counts[: ranks.rank])

        def build_own() -> tuple[PoseIndex, list[int]]:
            ids = np.arange(first, first + len(embeddings))
            return PoseIndex(embeddings, poses=poses, ids=ids, storage=storage), []

        index = cls.__new__(cls)
        index._open(ranks.agree("ShardedPoseIndex.build", build_own)[0], ranks)
        return index

    def _open(self, shard: PoseIndex, ranks: _Ranks) -> None:
        self.shard, self._ranks = shard, ranks
        facts = ranks.agree("ShardedPoseIndex", lambda: (None, [shard.dim, shard.joints]))[1]
        for rank, (dim, joints) in enumerate(facts):
            if (dim, joints) != tuple(facts[0]):
                raise ValueError(
                    f"shards must have one D and J, got D={dim}, J={joints} on rank {rank} and "
                    f"D={facts[0][0]}, J={facts[0][1]} on rank 0"
                )
        self._require_own_ids()

    def __len__(self) -> int:
        """The rows of all ranks. Collective."""
        return sum(n for (n,) in self._ranks.agree("len", lambda: (None, [len(self.shard)]))[1])

    def search(
        self,
        queries: Tensor | Array,
        k: int,
        *,
        filter: Tensor | Array | Sequence[int] | None = None,
    ) -> tuple[Tensor, Tensor]:
        """The k best rows of every query among those of all ranks.

        Args:
            queries: [B, D], the same on every rank.
            k: at least 1, the same on every rank.
            filter: of the rows of this rank: a bool mask, or a list of its ids.

        Returns:
            (scores [B, k] float32, ids [B, k] int64), as `PoseIndex.search`.
        """
        scores, ids = self._search("search", queries, k, filter)[:2]
        return _like(queries, scores.numpy()), _like(queries, ids.numpy())

    def search_mean_pose(
        self,
        queries: Tensor | Array,
        k: int,
        *,
        filter: Tensor | Array | Sequence[int] | None = None,
    ) -> Tensor:
        """The mean of the k best rows' poses, [B, J, 3] in mm, as `PoseIndex.search_mean_pose`."""
        _, ids, owners = self._search("search_mean_pose", queries, k, filter, poses_needed=True)
        count = (ids >= 0).sum(dim=1)
        places = max([1, *count.tolist()])
        sums = torch.zeros(len(ids), self.shard.joints, 3, dtype=torch.float64)
        step = max(1, _GATHER_BYTES // (places * self.shard.joints * 12))
        for begin in range(0, len(ids), step):
            part = (slice(begin, begin + step), slice(places))

            def own_poses(part: tuple[slice, slice] = part) -> tuple[Tensor, list[int]]:
                own = owners[part] == self._ranks.rank
                poses = torch.zeros(*own.shape, self.shard.joints, 3)
                poses[own] = self.shard.poses(ids[part][own])
                return poses, []

            poses = self._ranks.agree("search_mean_pose", own_poses)[0]
            # One rank gives each pose, the others zeros: their sum is exact.
            poses = self._ranks.total(poses, "search_mean_pose")
            for place in range(places):  # in the order of PoseIndex: the same bits
                sums[part[0]] += poses[:, place]
        return _like(queries, (sums / count[:, None, None]).float().numpy())

    def most_violated(
        self,
        queries: Tensor | Array,
        targets: Tensor | Array,
        *,
        margin_weight: float = 1.0,
        filter: Tensor | Array | Sequence[int] | None = None,
    ) -> tuple[Tensor, Tensor]:
        """The row with the largest score + margin_weight * MPJPE(pose, target), for every query.

        Arguments, the same on every rank, and results: as `PoseIndex.most_violated`.
        """
        values, ids, _ = self._search(
            "most_violated", queries, 1, filter, targets=targets, margin_weight=margin_weight
        )
        return _like(queries, values[:, 0].numpy()), _like(queries, ids[:, 0].numpy())

    def _search(
        self,
        method: str,
        queries: Tensor | Array,
        k: int,
        filter: Tensor | Array | Sequence[int] | None,
        *,
        targets: Tensor | Array | None = None,
        margin_weight: float = 1.0,
        poses_needed: bool = False,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """(scores [B, k], ids [B, k], the rank of each or -1), on the CPU."""

        def search_own() -> tuple[tuple[Tensor, Tensor], list[int]]:
            if poses_needed:
                self.shard._require_poses(method)
            if targets is None:
                scores, ids = self.shard.search(queries, k, filter=filter)
            else:
                values, best = self.shard.most_violated(
                    queries, targets, margin_weight=margin_weight, filter=filter
                )
                scores, ids = values[:, None], best[:, None]
            checksum = zlib.crc32(
                _rows("queries", queries, "[B, D]").data, zlib.crc32(method.encode())
            )
            if targets is not None:
                checksum = zlib.crc32(_rows("targets", targets, "[B, J, 3]").data, checksum)
                checksum = zlib.crc32(struct.pack("<d", margin_weight), checksum)
            return (scores.cpu(), ids.cpu()), [len(scores), k, checksum, len(self.shard)]

        (scores, ids), facts = self._ranks.agree(method, search_own)
        for rank, (*call, _) in enumerate(facts):
            if call != facts[0][:-1]:
                raise ValueError(
                    f"{method} must be called alike on every rank: queries, k (and targets, "
                    f"margin_weight) of rank {rank} differ from those of rank 0 "
                    f"(B={call[0]}, k={call[1]} and B={facts[0][0]}, k={facts[0][1]})"
                )
        # No shard finds more than all its rows.
        width = min(k, max(rows for *_, rows in facts))
        batch, ranks = len(scores), self._ranks.size
        found = torch.full((batch, k), -torch.inf), torch.full((batch, k), -1)
        owners = torch.full((batch, k), -1)
        step = max(1, _GATHER_BYTES // max(1, 12 * width * ranks))
        for begin in range(0, batch if width else 0, step):
            part = slice(begin, begin + step)
            pairs = [t[part, :width].contiguous() for t in (scores, ids)]
            all_scores, all_ids = (self._ranks.gather(pair, method) for pair in pairs)
            order = _ranking(all_scores, all_ids)[:, :k]
            kept = order.shape[1]
            found[0][part, :kept] = all_scores.gather(1, order)
            found[1][part, :kept] = all_ids.gather(1, order)
            owners[part, :kept] = order // width
        owners[found[1] < 0] = -1
        return *found, owners

    def _require_own_ids(self) -> None:
        """ValueError, on every rank, where two have the same id."""
        ids = self.shard.ids().sort().values
        span = [int(ids[0]), int(ids[-1])] if len(ids) else [0, -1]
        facts = self._ranks.agree("ShardedPoseIndex", lambda: (None, [len(ids), *span]))[1]
        spans = sorted((low, high) for count, low, high in facts if count)
        if all(before[1] < after[0] for before, after in pairwise(spans)):
            return
        longest = max(count for count, *_ in facts)
        step = min(longest, _GATHER_BYTES // (8 * self._ranks.size))
        twice: list[int] = []
        for begin in range(0, longest, step):
            sent = torch.full((1, step), -1)
            own = ids[begin : begin + step]
            sent[0, : len(own)] = own
            others = self._ranks.gather(sent, "ShardedPoseIndex").view(self._ranks.size, step)
            others[self._ranks.rank] = -1
            at = torch.searchsorted(ids, others).clamp(max=max(len(ids) - 1, 0))
            if len(ids) and not twice:
                twice = others[ids[at] == others][:1].tolist()
        found = self._ranks.agree("ShardedPoseIndex", lambda: (None, [*twice, -1][:1]))[1]
        for rank, (known,) in enumerate(found):
            if known >= 0:
                raise ValueError(
                    f"ids must be unique over all ranks, got {known} on rank {rank} and another: "
                    "give PoseIndex ids=, or use ShardedPoseIndex.build, which counts them"
                )


def _ranking(scores: Tensor, ids: Tensor) -> Tensor:
    """The order of each line: by score, descending, NaN after all, then what is missing (id -1).

    Equal scores stay as they stand, which is by rank and, within one, by row.
    """
    order = scores.nan_to_num(nan=-torch.inf, posinf=torch.inf, neginf=-torch.inf).sort(
        dim=1, descending=True, stable=True
    )[1]
    kind = scores.isnan().byte() + 2 * (ids < 0).byte()
    return order.gather(1, kind.gather(1, order).sort(dim=1, stable=True)[1])


class _Ranks:
    """The processes of a group: exchanges that end in bounded time, with errors for users."""

    def __init__(self, group: dist.ProcessGroup | None, timeout: float) -> None:
        if not (dist.is_available() and dist.is_initialized()):
            raise RuntimeError(
                "ShardedPoseIndex needs torch.distributed: call "
                "torch.distributed.init_process_group and start with torchrun"
            )
        if not timeout > 0:
            raise ValueError(f"timeout must be positive, got {timeout}")
        self.rank, self.size = dist.get_rank(group), dist.get_world_size(group)
        self._seconds, self._broken = timeout, ""
        on_gpu = dist.get_backend(group) == "nccl"
        self._device = torch.device("cpu")
        if on_gpu:
            self._device = torch.device("cuda", torch.cuda.current_device())
        # A group of its own: with this timeout, and apart from what the caller's group is used for.
        self._group = self._guarded(
            "ShardedPoseIndex",
            lambda: dist.new_group(
                dist.get_process_group_ranks(group),
                timeout=timedelta(seconds=timeout),
                backend="nccl" if on_gpu else "gloo",
                use_local_synchronization=True,
            ),
        )

    def agree(
        self, method: str, work: Callable[[], tuple[T, list[int]]]
    ) -> tuple[T, list[list[int]]]:
        """work() on every rank: its result, and the integers of all ranks (as many on each).

        Where it raises on one rank, that one raises this error, the others say so: none waits.
        """
        problem: Exception | None = None
        outcome: tuple[T, list[int]] | None = None
        if self._broken:
            raise RuntimeError(self._broken)
        try:
            outcome = work()
        except Exception as error:
            problem = error
        sent = torch.zeros(1, 8, dtype=torch.int64)
        if outcome is not None:
            sent[0, : 2 + len(outcome[1])] = torch.tensor([_FINE, len(outcome[1]), *outcome[1]])
        answers = self.gather(sent, method).view(self.size, 8).tolist()
        if problem is not None:
            raise problem
        failed = [str(rank) for rank, answer in enumerate(answers) if answer[0] == _FAILED]
        if failed:
            raise RuntimeError(f"{method} failed on rank {', '.join(failed)}: see the error there")
        assert outcome is not None
        if any(answer[1] != len(outcome[1]) for answer in answers):
            raise ValueError(f"{method} must be called on every rank, got another call on one")
        return outcome[0], [answer[2 : 2 + answer[1]] for answer in answers]

    def gather(self, tensor: Tensor, method: str) -> Tensor:
        """[b, w] of every rank as [b, ranks * w] on the CPU, by rank."""
        sent = tensor.to(self._device)
        parts = [torch.empty_like(sent) for _ in range(self.size)]
        self._finish(method, lambda: dist.all_gather(parts, sent, group=self._group, async_op=True))
        return torch.cat(parts, dim=1).cpu()

    def total(self, tensor: Tensor, method: str) -> Tensor:
        """The sum over all ranks, on the CPU."""
        summed = tensor.to(self._device)
        self._finish(method, lambda: dist.all_reduce(summed, group=self._group, async_op=True))
        return summed.cpu()

    def _finish(self, method: str, start: Callable[[], Any]) -> None:
        def run() -> None:
            work = start()
            if self._device.type == "cuda":  # where wait() waits for nothing
                deadline = time.monotonic() + self._seconds
                while not work.is_completed():
                    if time.monotonic() > deadline:
                        raise RuntimeError("timed out")
                    time.sleep(2e-5)
            work.wait()

        self._guarded(method, run)

    def _guarded(self, method: str, exchange: Callable[[], T]) -> T:
        """exchange(), which talks to other ranks."""
        if self._broken:
            raise RuntimeError(self._broken)
        try:
            return exchange()
        except RuntimeError as error:  # what torch.distributed raises is of this kind
            self._broken = (
                f"{method}: a rank has died, or did not call within {self._seconds:g} s. This "
                "index is of no more use: look for the first error among the ranks, then start all "
                "again (torchrun --max-restarts does)"
            )
            raise RuntimeError(self._broken) from error
