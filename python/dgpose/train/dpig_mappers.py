"""Stage 2 of DPIG: mappers of noise to codes while they learn, against a critic each."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from dgpose.data.crop_augmentation import mirrored_joints
from dgpose.data.person_pool import PersonPool
from dgpose.models.dpig import (
    DPIG,
    Critic,
    Factor,
    Mapper,
    clip_weights,
    critic_loss,
    mapper_loss,
)
from dgpose.skeletons import OPENPOSE18
from dgpose.train.dpig_learner import DPIGLearner

__all__ = ["MapperLearner", "codes_of"]

_DRAWS = 4  # what random numbers are drawn for, after those of the other stages


@torch.no_grad()
def codes_of(
    model: DPIG, pool: PersonPool, factors: Sequence[Factor], *, mirrored: bool = False
) -> dict[Factor, Tensor]:
    """Codes [N, D] of the people of a pool by a model in evaluation mode, on its device.

    Args:
        model: what encodes these factors must be trained.
        pool: N people.
        factors: which codes.
        mirrored: whether the images are mirrored first.
    """
    device = next(model.parameters()).device
    parts: dict[Factor, list[Tensor]] = {factor: [] for factor in factors}
    for rows in torch.arange(len(pool)).split(model.config.images_at_once):  # type: ignore[no-untyped-call]
        images, joints, visible = pool.images[rows], pool.keypoints_px[rows], pool.visible[rows]
        if mirrored:
            images = images.flip(3)
            joints, visible = mirrored_joints(joints, visible, OPENPOSE18, pool.size[1])
        joints, visible = joints.to(device), visible.to(device)
        codes: dict[Factor, Tensor | None] = {}
        if "pose" in parts:
            codes["pose"] = model.encode_pose(joints, visible)
        if parts.keys() - {"pose"}:
            given = images.to(device).float() / 255
            codes["foreground"], codes["background"] = model.encode_images(given, joints, visible)
        for factor, found in parts.items():
            code = codes[factor]
            assert code is not None  # a model has codes for all its factors
            found.append(code)
    return {factor: torch.cat(found) for factor, found in parts.items()}


class MapperLearner(DPIGLearner):
    """Mappers of some factors, by the codes of the pool's people (Wasserstein GANs).

    Args:
        fabric, model, pool, seed: as for `DPIGLearner`; stage 1 and the pose autoencoder must be
            trained as far as the factors need them.
        factors: whose mappers learn.
    """

    def __init__(
        self, fabric: Fabric, model: DPIG, pool: PersonPool, seed: int, factors: Sequence[Factor]
    ) -> None:
        self.factors = tuple(factors)
        self._codes: dict[Factor, Tensor] | None = None
        super().__init__(fabric, model, model.config.stage2, pool, seed)

    def parts(self, model: DPIG) -> nn.ModuleDict:
        return nn.ModuleDict({factor: model.mappers[factor] for factor in self.factors})

    def make_critics(self) -> nn.ModuleDict:
        return nn.ModuleDict({factor: Critic(self.config, factor) for factor in self.factors})

    @property
    def codes(self) -> dict[Factor, Tensor]:
        """Of the pool's people, and of their mirror images where the recipe says so; found when
        first asked for, and kept."""
        if self._codes is None:
            with self.fabric.autocast():
                sides = [
                    codes_of(self.model, self.pool, self.factors, mirrored=mirrored)
                    for mirrored in ((False, True) if self.recipe.flip else (False,))
                ]
            self._codes = {f: torch.cat([side[f] for side in sides]) for f in self.factors}
        return self._codes

    def prepare(self) -> None:
        """Fits mappers and critics to the codes, where the configuration says so."""
        for factor, codes in self.codes.items():
            for networks in (self.learning, self.average, self.critics):
                network = networks[factor]
                assert isinstance(network, Mapper | Critic)
                network.fit(codes)

    def learn(self, progress: float) -> dict[str, Tensor]:
        config, draws = self.config, self._generator(_DRAWS)
        codes = self.codes
        terms: dict[str, Tensor] = {}
        self.critics.requires_grad_(True)
        for _ in range(config.critic_steps):
            self._begin_step(progress)
            for factor, mapper, critic in self._networks():
                rows = torch.randint(len(codes[factor]), (self.recipe.batch,), generator=draws)
                with self.fabric.autocast():
                    with torch.no_grad():
                        mapped = mapper(self._noise(factor, draws))
                    loss = critic_loss(config, critic, codes[factor][rows], mapped, draws)
                loss.backward()  # type: ignore[no-untyped-call]
                terms[f"{factor}_critic"] = loss
            self._descend()
            if not config.gradient_penalty:
                for _, _, critic in self._networks():
                    clip_weights(critic, config.weight_clip)
        self.critics.requires_grad_(False)
        self._begin_step(progress)
        for factor, mapper, critic in self._networks():
            with self.fabric.autocast():
                terms[factor] = mapper_loss(critic, mapper(self._noise(factor, draws)))
            terms[factor].backward()  # type: ignore[no-untyped-call]
        self._descend()
        self._end_step()
        return {name: value.detach() for name, value in terms.items()}

    def _networks(self) -> list[tuple[Factor, nn.Module, Critic]]:
        found = []
        for factor in self.factors:
            critic = self.critics[factor]
            assert isinstance(critic, Critic)
            found.append((factor, self.learning[factor], critic))
        return found

    def _noise(self, factor: Factor, generator: torch.Generator) -> Tensor:
        return self.model.sample_noise(factor, self.recipe.batch, generator)
