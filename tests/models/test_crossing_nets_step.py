"""One step of each training stage against the method written a second time, in plain functions.

The second writing shares nothing with the package but the names of the weights: the networks as
functional calls, the losses as the paper and the released code have them, Adam's first step by its
formula. Numbers drawn on the way (VAE noise, latents, mixtures) are noted and used again.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from dgpose.data.hand_pool import HandPool
from dgpose.models.crossing_nets import CrossingNets, CrossingNetsConfig, StageConfig
from dgpose.models.crossing_nets.stages import LatentMixture
from dgpose.train import crossing_nets
from dgpose.train.crossing_nets import CrossingNetsTrainConfig, train_crossing_nets

Weights = dict[str, Tensor]
CONFIG = CrossingNetsConfig(
    joints=6,
    origin_joint=2,
    image_size=32,
    channels=4,
    hidden=10,
    vae=StageConfig(201, 8, 3e-4),
    gan=StageConfig(1001, 8, 3e-4),
    joint=StageConfig(101, 8, 1e-3),
    warm_up_epochs=0,
)


# ---- the method, written a second time ----


def conv(w: Weights, name: str, x: Tensor) -> Tensor:
    """Convolution 6x6 of stride 2, batch normalisation, LeakyReLU 0.2."""
    group, place = name.rsplit(".", 1)
    x = F.conv2d(x, w[f"{name}.weight"], stride=2, padding=2)
    return F.leaky_relu(norm(w, f"{group}.{int(place) + 1}", x), 0.2)


def norm(w: Weights, name: str, x: Tensor) -> Tensor:
    return F.batch_norm(x, None, None, w[f"{name}.weight"], w[f"{name}.bias"], training=True)


def linear(w: Weights, name: str, x: Tensor) -> Tensor:
    return F.linear(x, w[f"{name}.weight"], w.get(f"{name}.bias"))


def three(w: Weights, head: str, x: Tensor) -> Tensor:
    for place in (0, 3, 6):
        x = conv(w, f"discriminator.{head}.{place}", x)
    return x


def shared(w: Weights, depth: Tensor) -> Tensor:
    return conv(w, "discriminator.shared.3", conv(w, "discriminator.shared.0", depth))


def judge(w: Weights, bottom: Tensor) -> tuple[Tensor, Tensor]:
    features = three(w, "gan", bottom)
    return linear(w, "discriminator.realness", features.flatten(1))[:, 0], features


def posterior(w: Weights, bottom: Tensor) -> Tensor:
    x = linear(w, "discriminator.posterior.10", three(w, "posterior", bottom).flatten(1))
    x = F.leaky_relu(norm(w, "discriminator.posterior.11", x), 0.2)
    return linear(w, "discriminator.posterior.13", x)


def metric(w: Weights, bottom: Tensor) -> Tensor:
    x = linear(w, "discriminator.metric.10", three(w, "metric", bottom).flatten(1))
    return linear(w, "discriminator.metric.12", F.leaky_relu(x, 0.2))


def generate(w: Weights, latent: Tensor) -> Tensor:
    x = F.relu(norm(w, "generator.dense.1", linear(w, "generator.dense.0", latent.tanh())))
    x = x.view(len(x), 4, 1, 1)
    for place in (0, 3, 6, 9):
        x = F.conv_transpose2d(x, w[f"generator.convolutions.{place}.weight"], stride=2, padding=2)
        x = F.relu(norm(w, f"generator.convolutions.{place + 1}", x))
    last = "generator.convolutions.12"
    x = F.conv_transpose2d(x, w[f"{last}.weight"], w[f"{last}.bias"], stride=2, padding=2)
    return x.tanh()


def align(w: Weights, latent: Tensor) -> Tensor:
    return norm(w, "alignment.layers.1", linear(w, "alignment.layers.0", latent))


def encode(w: Weights, pose: Tensor) -> tuple[Tensor, Tensor]:
    hidden = linear(w, "vae.first", pose).relu()
    return linear(w, "vae.mean", hidden), linear(w, "vae.log_variance", hidden)


def decode(w: Weights, latent: Tensor) -> Tensor:
    return linear(w, "vae.decoder.2", F.leaky_relu(linear(w, "vae.decoder.0", latent), 0.01))


def adversarial(real: Tensor, made: Tensor) -> Tensor:
    """-log D(x) - log(1 - D(G(z)))."""
    return -(real.sigmoid().log()).mean() - (1 - made.sigmoid()).log().mean()


def adam(before: Weights, gradients: Weights, rate: float) -> Weights:
    """The first step: the means of gradient and square, without bias, are the gradient itself."""
    return {name: before[name] - rate * g / (g.abs() + 1e-8) for name, g in gradients.items()}


def gradients(loss: Tensor, w: Weights, *prefixes: str) -> Weights:
    names = [name for name in w if name.startswith(prefixes)]
    found = torch.autograd.grad(loss, [w[n] for n in names], retain_graph=True, allow_unused=True)
    return {name: g for name, g in zip(names, found, strict=True) if g is not None}


# ---- the package's own step ----


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Networks this small wait for threads rather than compute."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(autouse=True)
def double_precision(monkeypatch: pytest.MonkeyPatch) -> None:
    """Adam's first step is the gradient's sign: where it is nearly 0, float32 would toss a coin."""
    make = crossing_nets.CrossingNets
    monkeypatch.setattr(crossing_nets, "CrossingNets", lambda config: make(config).double())
    depth = crossing_nets._Run._depth
    monkeypatch.setattr(
        crossing_nets._Run, "_depth", lambda run, rows, n: depth(run, rows, n).double()
    )


def pool() -> HandPool:
    generator = torch.Generator().manual_seed(0)
    joints = torch.randn(8, 6, 3, generator=generator, dtype=torch.float64)
    depth = torch.rand(8, 1, 32, 32, generator=generator) * 2 - 1
    return HandPool(depth, joints, torch.ones(8, dtype=torch.bool))


def step(
    tmp_path: Path, steps: tuple[int, int, int], monkeypatch: pytest.MonkeyPatch
) -> tuple[Weights, Weights, list[Tensor]]:
    """Weights before and after one step of a stage, and the rows of the batch in their order."""
    before: Weights = {}
    rows = []
    learn, labelled = crossing_nets._Run._learn, crossing_nets._Run._labelled_rows

    def note(run: crossing_nets._Run) -> dict[str, Tensor]:
        for name, parameter in run.nets.named_parameters():
            before[name] = parameter.detach().clone().requires_grad_()
        return learn(run)

    def note_rows(run: crossing_nets._Run) -> Tensor:
        rows.append(labelled(run))
        return rows[-1]

    monkeypatch.setattr(crossing_nets._Run, "_learn", note)
    monkeypatch.setattr(crossing_nets._Run, "_labelled_rows", note_rows)
    config = CrossingNetsTrainConfig(tmp_path, networks=CONFIG, steps=steps, accelerator="cpu")
    nets = train_crossing_nets(config, pool()).nets
    return before, dict(nets.named_parameters()), rows


def same(after: Weights, before: Weights, expected: Weights) -> None:
    """What was taught is as expected, and nothing else has moved."""
    assert expected
    for name, parameter in after.items():
        torch.testing.assert_close(
            parameter, expected.get(name, before[name]), atol=1e-9, rtol=1e-7, msg=name
        )


def test_step_of_the_vae(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    noise = []
    draw = torch.randn_like

    def note(like: Tensor) -> Tensor:
        noise.append(draw(like))
        return noise[-1]

    monkeypatch.setattr(torch, "randn_like", note)
    before, after, rows = step(tmp_path, (1, 0, 0), monkeypatch)
    joints = pool().joints[rows[0]]
    pose = (joints - joints[:, 2:3]).flatten(1)
    mean, log_variance = encode(before, pose)
    decoded = decode(before, mean + 0.05 * noise[0] * (0.5 * log_variance).exp())
    divergence = 0.5 * (log_variance.exp() + mean**2 - 1 - log_variance).sum(1)
    loss = (divergence + 0.5 * ((pose - decoded) ** 2).sum(1)).mean()
    same(after, before, adam(before, gradients(loss, before, "vae."), 3e-4))


def test_step_of_the_gan(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    latents = []
    game = crossing_nets.gan_losses

    def note(nets: CrossingNets, depth: Tensor, latent: Tensor) -> object:
        latents.append(latent)
        return game(nets, depth, latent)

    monkeypatch.setattr(crossing_nets, "gan_losses", note)
    before, after, rows = step(tmp_path, (0, 1, 0), monkeypatch)
    depth = pool().depth[rows[0]].double()
    real, features = judge(before, shared(before, depth))
    made, made_features = judge(before, shared(before, generate(before, latents[0])))
    matching = (features.detach().mean(0) - made_features.mean(0)).abs().mean()
    expected = gradients(matching, before, "generator.")
    expected |= gradients(adversarial(real, made), before, "discriminator.")
    same(after, before, adam(before, expected, 3e-4))


def test_step_of_both(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[LatentMixture] = []
    draw = LatentMixture.draw

    def note(batch: int, generator: torch.Generator) -> LatentMixture:
        drawn.append(draw(batch, generator))
        return drawn[-1]

    monkeypatch.setattr(crossing_nets.LatentMixture, "draw", note)
    before, after, rows = step(tmp_path, (0, 0, 1), monkeypatch)
    depth, joints = pool().depth[rows[0]].double(), pool().joints[rows[0]]
    origin = joints[:, 2]
    mean = encode(before, (joints - joints[:, 2:3]).flatten(1))[0]
    z_l = torch.cat((mean, origin), 1).detach()
    shares = drawn[0].weights.double() / drawn[0].weights.double().sum(1, keepdim=True)
    z_r = torch.stack([shares[i] @ z_l[drawn[0].rows[i]] for i in range(len(z_l))])
    # The released code generates both halves at once: they share batch statistics.
    made = generate(before, align(before, torch.cat((z_l, z_r))))
    bottom, made_bottom = shared(before, depth), shared(before, made)
    reconstruction = ((depth - made[:8]) ** 2).clamp(max=1).mean()
    position = ((posterior(before, bottom) - z_l) ** 2).mean()
    m, m_made = metric(before, bottom), metric(before, made_bottom)
    smoothness = ((z_l - z_r - (m - m_made[8:])) ** 2).mean() + ((m - m_made[:8]) ** 2).mean()
    real, features = judge(before, bottom)
    fake, made_features = judge(before, made_bottom)
    matching = (features.detach().mean(0) - made_features.mean(0)).abs().mean()
    expected = gradients(reconstruction + smoothness + matching, before, "generator.", "alignment.")
    expected |= gradients(position + smoothness + adversarial(real, fake), before, "discriminator.")
    same(after, before, adam(before, expected, 1e-3))
