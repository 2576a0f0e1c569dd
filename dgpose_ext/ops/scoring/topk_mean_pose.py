"""topk_mean_pose: the mean pose of the best candidates. Maths: csrc/scoring/topk_mean_pose.h."""

from __future__ import annotations

from torch import Tensor

from dgpose_ext import _backend, _fake
from dgpose_ext._validate import refuse_gradients
from dgpose_ext.ops.scoring._inputs import require_embeddings, require_k, require_poses, search_rows
from dgpose_ext.reference.scoring import topk_mean_pose as reference


def topk_mean_pose(
    queries: Tensor, candidates: Tensor, poses: Tensor, k: int, *, backend: str | None = None
) -> Tensor:
    """The mean of the k best candidates' poses: Avg(A) of the max-margin paper, A = k.

    The candidates are those of `inner_product_topk`; coordinates are summed in float64 by rank and
    rounded once, so the result is the same to the bit everywhere.

    Args:
        queries: [B, D]; candidates: [N, D]; k: as for `inner_product_topk`.
        poses: [N, J, 3], the pose of every candidate, in mm. float32, float16, bfloat16, or
            float64, which is rounded to float32.
        backend: "cpu", "cuda", "triton", "reference", or None for DGPOSE_BACKEND or the best.

    Returns:
        [B, J, 3] float32. With k > N it is the mean of all N, with N = 0 NaN.

    No gradients: arguments that require one are refused. Autocast changes nothing.

    Source: Li, Zhang, Chan, Maximum-Margin Structured Learning with Deep Networks for 3D Human
    Pose Estimation, ICCV 2015.

    Raises:
        TypeError: an argument is no tensor or has another dtype; k is no integer.
        ValueError: shapes or devices do not fit; k < 1; an argument requires a gradient.
    """
    require_embeddings(queries, candidates)
    require_poses(poses, queries, candidates)
    require_k(k)
    refuse_gradients("topk_mean_pose", queries=queries, candidates=candidates, poses=poses)
    chosen = _backend.choose(backend, queries.device, "topk_mean_pose")
    run = _backend.implementation(chosen, "topk_mean_pose", reference.topk_mean_pose)
    means: Tensor = run(queries.float(), search_rows(candidates, chosen), poses.float(), k)
    return means


@_fake.register("topk_mean_pose")
def _(queries: Tensor, candidates: Tensor, poses: Tensor, k: int) -> Tensor:
    return queries.new_empty((queries.shape[0], poses.shape[1], 3))
