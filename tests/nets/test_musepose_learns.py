"""Do conditioning, scheduler and sampler work together? A tiny network learns to put a person's colours where the skeleton says.

People are four-channel colours, poses are places on a ring; a clip shows a person's disc at the drawn places. The network sees six people walking
round the ring one way; it is asked for an order of places that it never saw. What it makes must be nearer to the truth than what it makes of another
person's picture, and of other places: then it reads both the reference and the skeleton.
"""

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from svad_ray.nets.musepose.networks import Denoiser, Networks, PoseGuider, ReferenceNet, Sizes, build_denoising, build_reference
from svad_ray.nets.musepose.sample import Conditions, HerePredict, SamplerOptions, denoise
from svad_ray.nets.musepose.schedule import ddim

SIZES = Sizes(channels=(32, 32, 32, 32), layers=1, context=32, heads=4, guider=(8, 8, 16, 16))
SIDE, RING, FRAMES, STEPS = 16, 8, 4, 600
OPTIONS = SamplerOptions(steps=8, guidance=1.5, window=FRAMES, overlap=0, seed=5)
HELD_BACK = (3, 0, 6, 1)
MARGIN = 0.7


def disc(side: int, place: int, radius: float) -> Tensor:
    """(side, side), 1 inside a disc on the ring."""
    angle, middle = 2 * math.pi * place / RING, side / 2
    centre = middle + 0.27 * side * np.array([math.cos(angle), math.sin(angle)])
    ys, xs = np.mgrid[:side, :side] + 0.5
    return torch.from_numpy((np.hypot(xs - centre[0], ys - centre[1]) < radius * side).astype(np.float32))


def clip_of(colour: Tensor, places: list[int]) -> Tensor:
    """(1, 4, F, 16, 16): the truth."""
    return torch.stack([colour[:, None, None] * disc(SIDE, place, 0.22) for place in places], 1)[None]


def skeletons(places: list[int]) -> Tensor:
    """(F, 3, 128, 128): what the pose guider sees."""
    return torch.stack([disc(8 * SIDE, place, 0.1).expand(3, -1, -1) for place in places])


def picture_of(colour: Tensor) -> Tensor:
    """(1, 4, 16, 16): the reference, the person in the middle."""
    return colour[None, :, None, None].expand(1, 4, SIDE, SIDE).contiguous()


def people() -> Tensor:
    """(6, 4) colours, far apart."""
    signs = torch.tensor([[1, 1, -1, -1], [-1, -1, 1, 1], [1, -1, 1, -1], [-1, 1, -1, 1], [1, -1, -1, 1], [-1, 1, 1, -1]])
    return 1.5 * signs.float()


class Learner:
    """The networks and one step of their training."""

    def __init__(self, seed: int) -> None:
        torch.manual_seed(seed)
        self.random = torch.Generator().manual_seed(seed)
        self.denoiser, self.reference = Denoiser(build_denoising(SIZES)), ReferenceNet(build_reference(SIZES))
        self.guider = PoseGuider(SIZES.channels[0], SIZES.guider)
        parameters = [p for part in (self.denoiser, self.reference, self.guider) for p in part.parameters()]
        self.optimiser = torch.optim.Adam(parameters, lr=4e-3)
        self.schedule = torch.optim.lr_scheduler.CosineAnnealingLR(self.optimiser, STEPS)
        self.alphas = ddim(1).alphas_cumprod

    def step(self, colour: Tensor, places: list[int]) -> float:
        """Predict v at a random time (zero signal included); one time in ten without the reference."""
        truth = clip_of(colour, places)
        timestep = int(torch.randint(0, 1000, (1,), generator=self.random))
        noise = torch.randn(truth.shape, generator=self.random)
        signal, rest = self.alphas[timestep].sqrt(), (1 - self.alphas[timestep]).sqrt()
        conditioned = bool(torch.rand(1, generator=self.random) > 0.1)
        wanted = signal * noise - rest * truth
        clip, pose = self.conditions(colour, places)
        noisy = signal * truth + rest * noise
        got = self.denoiser(noisy, timestep, clip, pose, reference=self._projected, conditioned=(conditioned,))
        loss = (got - wanted).square().mean()
        self.optimiser.zero_grad()
        loss.backward()
        self.optimiser.step()
        self.schedule.step()
        return float(loss.detach())

    def conditions(self, colour: Tensor, places: list[int]) -> tuple[Tensor, Tensor]:
        """Image embedding and pose features; the person's colours are told by the reference alone."""
        clip = torch.zeros(1, 1, SIZES.context)
        self._projected = self.denoiser.project(self.reference(picture_of(colour), clip))
        return clip, self.guider(skeletons(places))

    def sample(self, colour: Tensor, places: list[int]) -> Tensor:
        """The clip by the product's own sampler."""
        with torch.inference_mode():
            clip, pose = self.conditions(colour, places)
            networks = Networks(self.denoiser, self.reference, self.guider, None, None)  # type: ignore[arg-type]  # no pictures, no decoding
            return denoise(HerePredict(networks), Conditions(clip, self._projected, pose, len(places)), OPTIONS)


def learned(seed: int) -> dict[str, float]:
    """Mean absolute errors on the held-back order: with the right conditions, with another person's picture, with other places."""
    learner, colours = Learner(seed), people()
    for number in range(STEPS):
        start = int(torch.randint(0, RING, (1,), generator=learner.random))
        learner.step(colours[number % len(colours)], [(start + i) % RING for i in range(FRAMES)])
    errors: dict[str, list[float]] = {"right": [], "other person": [], "other places": []}
    for i, colour in enumerate(colours[:3]):
        truth, places = clip_of(colour, list(HELD_BACK)), list(HELD_BACK)
        made = {
            "right": learner.sample(colour, places),
            "other person": learner.sample(colours[(i + 1) % len(colours)], places),
            "other places": learner.sample(colour, places[1:] + places[:1]),
        }
        for name, clip in made.items():
            errors[name].append(float((clip - truth).abs().mean()))
    return {name: float(np.mean(values)) for name, values in errors.items()}


@pytest.fixture
def one_thread():
    """Tensors this small are worked on faster by one."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.mark.slow
@pytest.mark.timeout(3000)
@pytest.mark.usefixtures("one_thread")
def test_it_learns_to_read_the_reference_and_the_skeleton():
    errors = learned(seed=0)
    assert errors["right"] < MARGIN * errors["other person"], errors
    assert errors["right"] < MARGIN * errors["other places"], errors
