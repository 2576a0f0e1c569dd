"""PoseRetriever: 3D body poses of person crops, found among candidates by max-margin scores."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from dgpose.data.person_crops import box_with_margin, person_crop, require_box, whole_image
from dgpose.data.pose_candidates import require_millimetres
from dgpose.models.max_margin import MaxMarginModel, load_model
from dgpose_ext import PoseIndex

__all__ = ["LOW_CONFIDENCE", "PoseEstimate", "PoseRetriever"]

Storage = Literal["auto", "int8", "bfloat16", "float32"]

LOW_CONFIDENCE = 0.05
"""Below it lie 5 % of the images that are of the calibration images' kind, and more of others."""

_KIND = "max_margin"
_BEST = 20
_FEWEST_CALIBRATION = 20
_IMAGES_AT_ONCE = 64
_POSES_AT_ONCE = 4096
_SHARES = np.linspace(0, 1, 101)


@dataclass(frozen=True, eq=False)
class PoseEstimate:
    """What was found for B images; poses are root-relative, mm, x right, y DOWN, z forward.

    None of the last four fields knows the truth. What they are worth depends on the model:
    `dgpose pose eval` prints their rank correlation with the error.

    Attributes:
        pose_mm: [B, J, 3], the mean of the k best candidates: the paper's Avg(k).
        best_mm: [B, J, 3], the best candidate: the paper's Max.
        rows: [B, k] int64, ids of the candidates, the best first.
        scores: [B, k] float32, their inner products.
        spread_mm: [B], mean joint distance of the 20 best candidates from their mean: how much they
            disagree. It is small, too, where all of them are wrong alike.
        auxiliary_mm: [B, J, 3], the pose that the auxiliary head regresses; None without one.
        auxiliary_distance_mm: [B], its mean joint distance from the mean of the 20 best: large
            where the candidates hold nothing like what the network sees. None without such a head.
        confidence: [B] in 0 to 1, the rank among the images of `PoseRetriever.calibrate`: by best
            score and by `auxiliary_distance_mm` (without auxiliary head the first alone). An image
            of their kind has any value with the same chance; below `LOW_CONFIDENCE`, the image or
            its pose is unlike them. None without calibration.
    """

    pose_mm: Tensor
    best_mm: Tensor
    rows: Tensor
    scores: Tensor
    spread_mm: Tensor
    auxiliary_mm: Tensor | None
    auxiliary_distance_mm: Tensor | None
    confidence: Tensor | None

    def __len__(self) -> int:
        return len(self.pose_mm)

    @classmethod
    def joined(cls, parts: Sequence[PoseEstimate]) -> PoseEstimate:
        """Estimates of one retriever and one k, one after another; at least one part."""
        values: dict[str, Any] = {}
        for name in cls.__dataclass_fields__:
            fields = [getattr(part, name) for part in parts]
            values[name] = None if fields[0] is None else torch.cat(fields)
        return cls(**values)


class PoseRetriever:
    """Estimates poses: embeds person crops, and takes the candidates of the highest scores.

    Args:
        model: in eval mode, as `load_model` gives it; used where it is (CPU or GPU).
        index: of `build`, or a file of it.

    Raises:
        ValueError: an index whose poses another network embedded, one without poses, or an empty
            one; a model in training mode, or one that learned no embeddings (loss "none").
    """

    def __init__(self, model: MaxMarginModel, index: PoseIndex) -> None:
        if model.training:
            raise ValueError("model must be in eval mode")
        if model.config.loss == "none":
            raise ValueError("model must have learned embeddings, got a plain regression")
        described = index.metadata
        if described.get("kind") != _KIND:
            raise ValueError(
                "index must be one of PoseRetriever.build (dgpose pose index), "
                f"got one that says of its rows {described or 'nothing'}"
            )
        if described["fingerprint"] != model.fingerprint:
            raise ValueError(
                "index must hold poses that this model embedded (fingerprint "
                f"{model.fingerprint[:12]}), got those of another one "
                f"({str(described['fingerprint'])[:12]}): build it again"
            )
        if len(index) == 0 or index.joints != model.config.joints:
            raise ValueError(
                f"index must hold poses of {model.config.joints} joints, "
                f"got {len(index)} of {index.joints}"
            )
        self.model, self.index = model, index
        self._calibration: dict[str, Any] | None = described.get("calibration")
        if self._calibration and self._calibration["image_network"] != _digest(model):
            self._calibration = None  # of a network that sees images otherwise

    @classmethod
    def build(
        cls,
        model: MaxMarginModel,
        poses_mm: Tensor | npt.NDArray[Any],
        *,
        storage: Storage = "auto",
        images: Tensor | None = None,
        description: str = "",
        progress: Callable[[int, int], None] | None = None,
    ) -> PoseRetriever:
        """Embeds candidate poses and indexes them; their ids are their rows.

        Args:
            model: in eval mode.
            poses_mm: [N, J, 3] mm, camera coordinates; the hip is moved to the origin.
            storage: of the index, as for `dgpose_ext.PoseIndex`.
            images: what "auto" judges by, and what `calibrate` is called with; None: poses, and
                no calibration.
            description: of the poses, for the file.
            progress: called with (poses embedded, all).

        Raises:
            ValueError: as for the class; another shape, a pose that is not finite (its row is
                named), or poses so small that they cannot be in millimetres.
        """
        poses = torch.as_tensor(poses_mm, dtype=torch.float32)
        joints = model.config.joints
        if poses.dim() != 3 or tuple(poses.shape[1:]) != (joints, 3):
            raise ValueError(f"poses_mm must have shape [N, {joints}, 3], got {list(poses.shape)}")
        _require_finite("poses_mm", "row", poses)
        poses = poses - poses[:, :1]
        require_millimetres("poses_mm", poses)
        device = next(model.parameters()).device
        embeddings = torch.empty(len(poses), model.config.embedding_size)
        for start in range(0, len(poses), _POSES_AT_ONCE):
            part = poses[start : start + _POSES_AT_ONCE]
            embeddings[start : start + len(part)] = model.embed_poses(part.to(device)).cpu()
            if progress is not None:
                progress(start + len(part), len(poses))
        metadata = {"kind": _KIND, "fingerprint": model.fingerprint, "poses": description}
        asked = None
        if images is not None:
            _require_calibration(images)
            some = images[:: max(1, len(images) // _IMAGES_AT_ONCE)][:_IMAGES_AT_ONCE]
            asked = model.embed_images(some.to(device)).cpu()
        index = PoseIndex(
            embeddings, poses=poses, storage=storage, sample_queries=asked, metadata=metadata
        )
        retriever = cls(model, index)
        if images is not None:
            retriever.calibrate(images)
        return retriever

    def calibrate(self, images: Tensor) -> None:
        """Takes these images as the measure of `PoseEstimate.confidence`; `save` keeps it.

        Args:
            images: [C, 3, S, S] as for `estimate`, C >= 20, of the kind that will be asked for.
                Nothing needs to be known about them; none should be a training image.

        Raises:
            ValueError: fewer images, or as `estimate`.
        """
        _require_calibration(images)
        seen = self.estimate(images)
        measures = _measures(seen.scores[:, 0], seen.auxiliary_distance_mm)
        quantiles = {name: _quantiles(values) for name, values in measures.items()}
        self._calibration = {
            "image_network": _digest(self.model),
            "images": len(images),
            "measures": quantiles,
            # The mean of several ranks is no rank: it is ranked once more.
            "mean_rank": _quantiles(_mean_rank(measures, quantiles)),
        }
        self.index.metadata = self.index.metadata | {"calibration": self._calibration}

    def save(self, path: str | Path) -> None:
        """Writes the index: rows, poses, calibration, and which network embedded the poses; not
        the network."""
        self.index.save(path)

    @classmethod
    def load(
        cls, model: str | Path | MaxMarginModel, index: str | Path, *, mmap: bool = True
    ) -> PoseRetriever:
        """Opens a model's weight file and an index of it.

        Args:
            model: file of `dgpose.models.max_margin.save_model`, or the model.
            index: file of `save`.
            mmap: as for `PoseIndex.load`.

        Raises:
            FileNotFoundError: there is no such file.
            ValueError: a damaged or foreign file, or an index of another model; with its name.
        """
        networks = model if isinstance(model, MaxMarginModel) else load_model(model)
        loaded = PoseIndex.load(index, mmap=mmap)
        try:
            return cls(networks, loaded)
        except ValueError as error:
            raise ValueError(f"{index}: {error}") from None

    @property
    def image_size(self) -> int:
        """S: the edge of the crops in pixels."""
        return self.model.config.image_size

    def crop(self, picture: npt.NDArray[np.uint8], box: Sequence[float] | None = None) -> Tensor:
        """The crop [3, S, S] uint8 of a person in a photograph.

        Args:
            picture: [H, W, 3] RGB.
            box: x1, y1, x2, y2 pixels, tight around the person, as a detector gives it: the square
                around it with a margin of 20 % is taken (`box_with_margin`), black where it reaches
                beyond the image; None: the whole image, in a square.

        Raises:
            ValueError: a picture of another shape or dtype; an empty box, or one outside it.
        """
        if picture.ndim != 3 or picture.shape[2] != 3 or picture.dtype != np.uint8:
            raise ValueError(
                f"picture must be uint8 of shape [H, W, 3], got {picture.dtype} of shape "
                f"{list(picture.shape)}"
            )
        around: npt.NDArray[Any] | Sequence[float] = whole_image(picture)
        if box is not None:
            require_box(picture, box)  # the error names this box, not the square around it
            around = box_with_margin(np.asarray(box, np.float64))
        return torch.from_numpy(person_crop(picture, around, self.image_size))

    def estimate(self, images: Tensor, k: int = 500) -> PoseEstimate:
        """The poses of person crops.

        Args:
            images: [B, 3, S, S] RGB, uint8 or floating point in [0, 1]; or one image [3, S, S].
            k: candidates to average; where there are fewer, all of them.

        Returns:
            Tensors on the CPU, of B images (1 for a single one).

        Raises:
            ValueError: another shape, k below 1, or an image that is not finite or not in [0, 1]
                (its number is named).
            TypeError: another dtype.
        """
        if images.dim() == 3:
            images = images[None]
        if k < 1:
            raise ValueError(f"k must be at least 1, got {k}")
        if not len(images):
            raise ValueError("images must hold at least one image, got none")
        if images.is_floating_point():
            _require_finite("images", "image", images)
            _require_unit_range(images)
        parts = [self._estimate(part, k) for part in torch.split(images, _IMAGES_AT_ONCE)]
        return PoseEstimate.joined(parts)

    def _estimate(self, images: Tensor, k: int) -> PoseEstimate:
        images = images.to(next(self.model.parameters()).device)
        queries, auxiliary = self.model.embed_and_estimate(images)
        queries = queries.cpu()
        scores, rows = self.index.search(queries, min(max(k, _BEST), len(self.index)))
        poses = self.index.poses(rows.flatten()).view(*rows.shape, -1, 3)
        best = poses[:, :_BEST]
        middle = best.mean(dim=1, keepdim=True)
        distance = None
        if auxiliary is not None:
            auxiliary = auxiliary.cpu()
            distance = (auxiliary[:, None] - middle).norm(dim=-1).mean(dim=(1, 2))
        return PoseEstimate(
            pose_mm=poses[:, :k].mean(dim=1, dtype=torch.float64).float(),
            best_mm=poses[:, 0].clone(),
            rows=rows[:, :k],
            scores=scores[:, :k],
            spread_mm=(best - middle).norm(dim=-1).mean(dim=(1, 2)),
            auxiliary_mm=auxiliary,
            auxiliary_distance_mm=distance,
            confidence=self._confidence(scores[:, 0], distance),
        )

    def _confidence(self, best_score: Tensor, distance: Tensor | None) -> Tensor | None:
        if self._calibration is None:
            return None
        measures = _measures(best_score, distance)
        mean = _mean_rank(measures, self._calibration["measures"])
        return torch.from_numpy(np.interp(mean, self._calibration["mean_rank"], _SHARES)).float()


def _require_calibration(images: Tensor) -> None:
    if images.dim() != 4 or len(images) < _FEWEST_CALIBRATION:
        raise ValueError(
            f"images must have shape [C, 3, S, S] with C >= {_FEWEST_CALIBRATION}, "
            f"got {list(images.shape)}"
        )


def _measures(best_score: Tensor, distance: Tensor | None) -> dict[str, npt.NDArray[Any]]:
    """What the confidence is made of, [B] each; more is better."""
    measures = {"best_score": best_score.numpy()}
    if distance is not None:
        measures["auxiliary_distance_mm"] = -distance.numpy()
    return measures


def _quantiles(values: npt.NDArray[Any]) -> list[float]:
    quantiles: list[float] = np.quantile(values, _SHARES).tolist()
    return quantiles


def _mean_rank(
    measures: dict[str, npt.NDArray[Any]], quantiles: dict[str, list[float]]
) -> npt.NDArray[np.float64]:
    """Mean over the measures of the share of calibration images that have less, [B]."""
    ranks = [np.interp(values, quantiles[name], _SHARES) for name, values in measures.items()]
    mean: npt.NDArray[np.float64] = np.mean(ranks, axis=0)
    return mean


def _digest(model: MaxMarginModel) -> str:
    """SHA-256 of what an image goes through."""
    digest = hashlib.sha256()
    for part in (model.image_network, model.auxiliary):
        for tensor in part.state_dict().values() if part is not None else ():
            digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def _require_finite(name: str, item: str, values: Tensor) -> None:
    finite = values.flatten(1).isfinite().all(dim=1)
    if not bool(finite.all()):
        raise ValueError(
            f"{name} must be finite, got NaN or Inf in {item} {int(finite.int().argmin())}"
        )


def _require_unit_range(images: Tensor) -> None:
    lowest, highest = images.flatten(1).aminmax(dim=1)
    wrong = (lowest < 0) | (highest > 1)
    if bool(wrong.any()):
        number = int(wrong.int().argmax())
        raise ValueError(
            f"images must lie in [0, 1], got image {number} in "
            f"[{float(lowest[number]):g}, {float(highest[number]):g}]"
        )
