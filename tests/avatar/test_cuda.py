"""Training on a GPU against training on the CPU: the same step, the same numbers within the tolerances of their arithmetic."""

import numpy as np
import pytest
import torch
from painted_turn import painted_turn

from svad_ray.nets.exavatar.mesh import avatar_mesh
from svad_ray.nets.exavatar.model import AvatarModel
from svad_ray.nets.exavatar.snapshot import load_learned, save_learned
from svad_ray.splat import rasterization
from svad_ray.stages.avatar.bake import regions_of, total_offset
from svad_ray.stages.avatar.exavatar import fresh_networks
from svad_ray.stages.avatar.exavatar_training import Poses, Trainer, cropped, train_exavatar
from svad_ray.stages.avatar.first import begin, closing, inset
from svad_ray.stages.avatar.gaussian import GaussianModel, surface_points, train
from svad_ray.stages.avatar.regularisers import Regularisers
from svad_ray.stages.avatar.ssim import dissimilarity, ssim_map

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")]
SIZE, FRAMES, STEPS, GPU = 128, 3, 12, "cuda"


@pytest.fixture(scope="module")
def given(golden_body):
    """The recorded small body in a coloured turn: body, track, surface and views."""
    made = painted_turn(golden_body, size=SIZE, frames=FRAMES)
    return made.body, made.track, made.surface, made.views()


def trainer(given, device: str, *, precision: torch.dtype | None = None) -> Trainer:
    body, track, _, views = given
    mesh = avatar_mesh(body, regions_of(body), levels=1)
    networks, below = fresh_networks(track, triplane=32, seed=0), total_offset(None, inset(body, track, mesh))
    model = AvatarModel(mesh.to(device), networks, surface_offset=below, precision=precision)
    begin(model, mesh, body, track, views, looks=FRAMES, steps=10, rate=0.01, seed=0)
    canonical = model.canonical().mesh.detach()
    closed = closing(canonical.cpu().numpy(), mesh.faces)
    regularisers = Regularisers(mesh, canonical, networks.joint_offset.detach().clone(), closed=closed, device=device)
    cut = [view.to(device) for view in cropped(views, alike=True)]
    return Trainer(model, regularisers, Poses((track,), 10, device=device), cut, gentle=True, refresh=4)


def trained(given, device: str, **options) -> tuple[Trainer, list[float]]:
    made = trainer(given, device, **options)
    return made, train_exavatar(made, iterations=STEPS, rate=0.002, seed=0)


@pytest.fixture(scope="module")
def on_cpu(given):
    return trained(given, "cpu")


@pytest.mark.parametrize("background", [None, (0.2, 0.5, 0.9)])
def test_gsplat_and_the_cpu_kernels_agree_forward_and_backward(background):
    rng = np.random.default_rng(0)
    count = 1500
    means = torch.tensor(rng.normal((0, 0, 3), 0.35, (count, 3)), dtype=torch.float32)
    rows = [means, torch.tensor(rng.normal(size=(count, 4))), torch.tensor(rng.uniform(0.01, 0.05, (count, 3)))]
    rows += [torch.tensor(rng.uniform(0.3, 0.99, count)), torch.tensor(rng.random((count, 3)))]
    K = torch.tensor([[[140.0, 0, 63], [0, 150, 50], [0, 0, 1]]])
    weight = torch.tensor(rng.normal(size=(1, 96, 128, 3)), dtype=torch.float32)
    found = []
    for device in ("cpu", GPU):
        inputs = [x.float().to(device).requires_grad_(True) for x in rows]
        ground = None if background is None else torch.tensor([background], device=device)
        image, alpha, _ = rasterization(*inputs, torch.eye(4)[None].to(device), K.to(device), 128, 96, packed=False, backgrounds=ground)
        ((image * weight.to(device)).sum() + alpha.sum()).backward()
        found.append([x.detach().cpu() for x in (image, alpha, *(x.grad for x in inputs))])
    for name, ours, theirs in zip(("image", "alpha", "means", "quats", "scales", "opacities", "colors"), *found):
        assert (ours - theirs).norm() <= 2e-3 * theirs.norm(), name
    assert (found[0][0] - found[1][0]).abs().quantile(0.999) < 1e-3


def test_the_structural_term_is_the_same_on_both(given):
    a, b = (torch.rand(1, 3, 70, 43, generator=torch.Generator().manual_seed(k)) for k in (0, 1))
    cpu, gpu = a.clone().requires_grad_(True), a.to(GPU).requires_grad_(True)
    ours, theirs = dissimilarity(cpu, b), dissimilarity(gpu, b.to(GPU))
    ours.backward()
    theirs.backward()
    assert float(ours.detach()) == pytest.approx(float(theirs.detach()), rel=1e-5) == pytest.approx(1 - float(ssim_map(a, b).mean()), rel=1e-5)
    assert (cpu.grad - gpu.grad.cpu()).abs().max() < 1e-4 * cpu.grad.abs().max()


def test_one_step_has_the_same_terms_and_gradients(given):
    found = []
    for device in ("cpu", GPU):
        made = trainer(given, device)
        row = made.poses.rows.leaf(1)
        terms = made.terms(1, 0, row=row)
        torch.stack(list(terms.values())).sum().backward()
        gradients = {name: p.grad.cpu() for name, p in made.model.networks.named_parameters() if p.grad is not None} | {"pose": row.grad.cpu()}
        found.append(({name: float(x.detach()) for name, x in terms.items()}, gradients))
    (ours, mine), (theirs, other) = found
    for name, value in ours.items():
        assert theirs[name] == pytest.approx(value, rel=2e-3, abs=1e-7), name
    for name, gradient in mine.items():
        assert (gradient - other[name]).norm() <= 2e-2 * gradient.norm() + 1e-9, name


def test_training_on_the_gpu_lowers_the_loss_as_on_the_cpu(given, on_cpu):
    _, theirs = trained(given, GPU)
    _, ours = on_cpu
    assert np.mean(theirs[-3:]) < 0.9 * np.mean(theirs[:3])
    np.testing.assert_allclose(theirs[:3], ours[:3], rtol=5e-3)
    np.testing.assert_allclose(theirs, ours, rtol=0.05)


def test_half_precision_of_the_networks_stays_near(given, on_cpu):
    if not torch.cuda.is_bf16_supported():
        pytest.skip("this GPU has no bfloat16")
    _, theirs = trained(given, GPU, precision=torch.bfloat16)
    np.testing.assert_allclose(theirs, on_cpu[1], rtol=0.1)


def test_an_avatar_of_the_gpu_is_read_on_the_cpu(given, on_cpu, tmp_path):
    made, _ = trained(given, GPU)
    save_learned(tmp_path / "a.safetensors", made.model.networks, facts={"levels": 1})
    networks, _ = load_learned(tmp_path / "a.safetensors")
    assert networks.triplane.device.type == "cpu"
    here, pose = on_cpu[0].model, made.poses.of(1)
    model = AvatarModel(here.mesh, networks, surface_offset=here.surface_offset)
    with torch.no_grad():
        ours, theirs = model.posed(*(x.cpu() for x in pose)), made.model.posed(*pose)
    same = ours.nearest == theirs.nearest.cpu()
    assert same.float().mean() > 0.99
    assert (ours.static.means - theirs.static.means.cpu())[same].abs().max() < 1e-4
    assert (ours.refined.colors - theirs.refined.colors.cpu()).abs().max() < 5e-3


def test_the_gaussian_model_trains_there_too(given):
    _, _, surface, views = given
    losses = []
    for device in ("cpu", GPU):
        points = surface_points(surface, 2000, head_density=2.0, seed=0)
        model = GaussianModel(points, np.full((len(points.face), 3), 0.5, np.float32), stiff=np.ones(len(points.face))).to(device)
        losses.append(train(model, [v.to(device) for v in views], iterations=STEPS, rates=(0.02, 0.01, 0.1), seed=0))
        assert model.to("cpu").offset.device.type == "cpu"
    assert losses[1][-1] < losses[1][0]
    np.testing.assert_allclose(losses[1], losses[0], rtol=0.02)


def test_training_that_was_killed_goes_on_there(given):
    """To the numbers of the unbroken run, as far as sums of atomics let it."""

    class Kept:
        state = None

        def load(self):
            return self.state

        def offer(self, state):
            if len(steps) == 5:
                self.state = state()

    steps, kept = [], Kept()

    def stop(done: float) -> None:
        steps.append(done)
        if len(steps) == 6:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train_exavatar(trainer(given, GPU), iterations=STEPS, rate=0.002, seed=0, progress=stop, checkpoint=kept)
    resumed = train_exavatar(trainer(given, GPU), iterations=STEPS, rate=0.002, seed=0, checkpoint=kept)
    _, whole = trained(given, GPU)
    assert len(resumed) == STEPS
    np.testing.assert_allclose(resumed, whole, rtol=0.02)
