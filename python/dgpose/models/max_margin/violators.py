"""The loss-augmented search: which poses violate the margin of an image the most."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from dgpose.models.max_margin.config import MaxMarginRecipe
from dgpose.models.max_margin.networks import PoseNetwork
from dgpose_ext import max_margin_topk

__all__ = ["ViolatorSearch", "embed_all"]

_ROWS_AT_ONCE = 4096


@torch.no_grad()
def embed_all(network: nn.Module, poses: Tensor) -> Tensor:
    """Embeddings [N, D] of poses [N, J, 3], in parts that fit a cache."""
    return torch.cat([network(part) for part in torch.split(poses, _ROWS_AT_ONCE)])


class ViolatorSearch(nn.Module):
    """Finds the candidates with the largest score plus margin.

    "full": among all candidates, by embeddings that `refresh` made; the search says nothing about
    how old they are. "sampled": among C random candidates and the K that were violators most often,
    embedded by the network as it is.

    The state of this module is what a resumed run needs to find the same: the pose network as it
    was at the last refresh (`restore` then embeds again), and how often each candidate violated a
    margin the most, which is the caller's to count.

    Args:
        poses: candidates [N, J, 3] mm.
        network: the pose network, as it starts.
        recipe: C, K, poses for each image.
        margin_weight: score of 1 mm.
    """

    counts: Tensor

    def __init__(
        self, poses: Tensor, network: PoseNetwork, recipe: MaxMarginRecipe, margin_weight: float
    ) -> None:
        super().__init__()
        self.poses, self.recipe, self.margin_weight = poses, recipe, margin_weight
        self.register_buffer("counts", torch.zeros(len(poses), dtype=torch.int64))
        self.refreshed = copy.deepcopy(network).requires_grad_(False)
        self.embeddings: Tensor | None = None

    def refresh(self, network: PoseNetwork) -> None:
        """Embeds all candidates."""
        self.refreshed.load_state_dict(network.state_dict())
        self.restore()

    def restore(self) -> None:
        """Embeds all candidates by the network of the last refresh."""
        self.embeddings = embed_all(self.refreshed, self.poses)

    @torch.no_grad()
    def find(
        self,
        queries: Tensor,
        targets: Tensor,
        network: PoseNetwork,
        generator: torch.Generator,
        full: bool,
    ) -> tuple[Tensor, Tensor]:
        """Scores plus margins [B, k] of the candidates that violate the most, the worst first, and
        their rows [B, k]; -inf and -1 where there are fewer than k.

        Args:
            queries: embeddings of images [B, D].
            targets: their true poses [B, J, 3] mm.
            network: embeds a sample; where all candidates are searched, it is not used.
            generator: draws the sample, on the CPU.
            full: whether all candidates are searched, and not a sample.

        Raises:
            RuntimeError: all candidates are to be searched, and were never embedded.
        """
        if full:
            if self.embeddings is None:
                raise RuntimeError("candidates must be embedded first (refresh)")
            return self._search(queries, self.embeddings, self.poses, targets)
        rows = self.sample(generator)
        poses = self.poses[rows]
        values, found = self._search(queries, embed_all(network, poses), poses, targets)
        return values, torch.where(found < 0, found, rows[found.clamp_min(0)])

    def sample(self, generator: torch.Generator) -> Tensor:
        """The K most frequent violators and random others, C + K rows in all (where there are as
        many), each once, ascending."""
        count = self.recipe.sampled_candidates + self.recipe.frequent_violators
        often = self.counts.argsort(descending=True, stable=True)[: self.recipe.frequent_violators]
        often = often[self.counts[often] > 0]
        drawn = torch.randperm(len(self.poses), generator=generator)[:count].to(often.device)
        drawn = drawn[~torch.isin(drawn, often)]
        return torch.cat((often, drawn))[:count].sort().values

    def _search(
        self, queries: Tensor, embeddings: Tensor, poses: Tensor, targets: Tensor
    ) -> tuple[Tensor, Tensor]:
        return max_margin_topk(
            queries.detach(),
            embeddings,
            poses,
            targets,
            self.recipe.violators,
            margin_weight=self.margin_weight,
        )
