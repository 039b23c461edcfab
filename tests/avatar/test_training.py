"""What makes a training step quick, against its plain form: layers, look-ups, the structural term, and rows of poses."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from exavatar_kit import load
from torch import nn
from torch.testing import assert_close

from svad_ray.errors import BackendUnavailable
from svad_ray.nets.device import training_device
from svad_ray.nets.exavatar.mesh import SparseMap
from svad_ray.nets.exavatar.model import incidence, lookups
from svad_ray.nets.exavatar.networks import AvatarNetworks, through
from svad_ray.stages.avatar.exavatar_training import Perceptual, cropped
from svad_ray.stages.avatar.gaussian import View
from svad_ray.stages.avatar.ssim import SIGMA, WINDOW, dissimilarity, ssim_map
from svad_ray.stages.avatar.training import FrameRows, Run, optimise


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("precision", [None, torch.bfloat16])
@pytest.mark.parametrize("which", ["geo_net", "geo_offset_net", "rgb_offset_net"])
def test_layers_in_one_pass_equal_torchs_own_with_gradients(which, precision):
    """In half precision as far as that goes: products are rounded to 2^-9 of their size, and rectifiers near zero open for other rows."""
    torch.manual_seed(1)
    net = getattr(AvatarNetworks(10, triplane=4), which)
    for p in net.parameters():
        p.data += 0.1 * noise(*p.shape, seed=2)
    pose = noise(126, seed=3).requires_grad_(True) if which != "geo_net" else None
    more = noise(700, 3, seed=4) if which == "rgb_offset_net" else None
    x = noise(700, 96).requires_grad_(True)
    rows = [x, *([] if pose is None else [pose.expand(700, -1)]), *([] if more is None else [more])]
    twin = nn.Sequential(*(nn.GroupNorm(4, 128) if isinstance(m, nn.GroupNorm) else type(m)(*_sizes(m)) for m in net)).double()
    twin.load_state_dict(net.state_dict())
    weight = noise(700, 128 if which != "rgb_offset_net" else 3, seed=5)
    found = []
    for run, kind in ((lambda: through(net, x, pose=pose, more=more, precision=precision), net), (lambda: twin(torch.cat(rows, 1).double()), twin)):
        for tensor in (x, pose, *kind.parameters()):
            if tensor is not None:
                tensor.grad = None
        out = run()
        (out * weight.to(out.dtype)).sum().backward()
        found.append([out, x.grad, *([] if pose is None else [pose.grad]), *(p.grad for p in kind.parameters())])
    for k, (ours, theirs) in enumerate(zip(*found, strict=True)):
        away = float(((ours - theirs).norm() / theirs.norm()).detach())
        assert away <= (2e-5 if precision is None else 0.25 if k else 0.01)
        assert k or (precision is None) == (away < 1e-4), "the output tells which it was"


def _sizes(module: nn.Module) -> tuple[int, ...]:
    return (module.in_features, module.out_features) if isinstance(module, nn.Linear) else ()


def test_a_look_up_is_what_grid_sample_finds(golden_avatar):
    r = load(golden_avatar)
    face, where, planes = r.mesh.flags["is_face"], r.model.positions, noise(3, 32, 16, 16)
    look, near = lookups(where, face, 16)
    grids = ((where - where[:].mean(0)) / 1.0)[:, [0, 1, 0, 2, 1, 2]].reshape(-1, 3, 2).transpose(0, 1)[:, :, None]
    want = F.grid_sample(planes, grids, align_corners=False)[..., 0].permute(2, 0, 1).flatten(1)
    got = look(planes.permute(0, 2, 3, 1).reshape(-1, 32)).view(len(where), 96)
    assert_close(got[~face], want[~face], atol=2e-5, rtol=0)
    assert not got[face].any() and near(torch.ones(3 * 256, 1)).view(-1, 3)[face].min() > 0.99  # the face lies within its planes


def test_a_sparse_map_has_the_gradient_of_its_dense_form():
    faces = np.array([[0, 1, 2], [2, 1, 3]])
    sparse = incidence(faces, 4)
    x, weight = noise(2, 5).double().requires_grad_(True), noise(4, 5, seed=1)
    dense = torch.tensor([[1.0, 0], [1, 1], [1, 1], [0, 1]])
    y = x.detach().float().requires_grad_(True)
    (sparse(y) * weight).sum().backward()
    ((dense.double() @ x) * weight).sum().backward()
    assert_close(y.grad.double(), x.grad, atol=1e-6, rtol=0)
    assert isinstance(sparse, SparseMap)


@pytest.mark.parametrize("size", [(70, 43), (5, 60), (11, 11)])
def test_the_structural_term_and_its_gradient(size):
    a, b = torch.rand(1, 3, *size, generator=torch.Generator().manual_seed(0)), torch.rand(1, 3, *size, generator=torch.Generator().manual_seed(1))
    ours, plain = a.clone().requires_grad_(True), a.double().requires_grad_(True)
    value, want = dissimilarity(ours, b), (1 - ssim_map(plain, b.double())).mean()
    value.backward()
    want.backward()
    assert float(value.detach()) == pytest.approx(float(want.detach()), rel=1e-5)
    assert (ours.grad - plain.grad).abs().max() < 2e-5 * plain.grad.abs().max()
    line = torch.exp(-(torch.arange(WINDOW, dtype=torch.float64) - WINDOW // 2).square() / (2 * SIGMA**2))
    window = torch.outer(line, line).expand(3, 1, -1, -1) / line.sum() ** 2  # the original's form of it
    means = [F.conv2d(x.double(), window, padding=WINDOW // 2, groups=3) for x in (a, b, a * a, b * b, a * b)]
    u, v, uu, vv, uv = means
    whole = (2 * u * v + 1e-4) * (2 * (uv - u * v) + 9e-4) / ((u * u + v * v + 1e-4) * (uu - u * u + vv - v * v + 9e-4))
    assert float(want.detach()) == pytest.approx(1 - float(whole.mean()), rel=1e-6)


def test_rows_of_frames_move_as_a_parameter_each_would_under_torchs_adam():
    values = noise(4, 7)
    rows, singles = FrameRows(values.clone()), [nn.Parameter(x.clone()) for x in values]
    adam = torch.optim.Adam(singles, lr=0.01, eps=1e-15)
    for step, frame in enumerate((2, 0, 2, 3, 2, 0)):
        gradient = noise(7, seed=step)
        adam.zero_grad()
        singles[frame].grad = gradient
        adam.step()
        rows.step(frame, gradient, 0.01)
    assert_close(rows.values, torch.stack([p.detach() for p in singles]), atol=1e-7, rtol=1e-5)
    assert torch.equal(rows.values[1], values[1])
    other = FrameRows(values.clone())
    other.resume(rows.state())
    for each in (rows, other):
        each.step(2, noise(7, seed=9), 0.01)
    assert torch.equal(rows.values, other.values)


def test_a_run_goes_on_to_the_same_numbers_and_its_losses_are_all_there():
    def fresh() -> tuple[Run, nn.Parameter]:
        p = nn.Parameter(noise(3, 8).permute(1, 0))  # not row by row in memory, as triplanes
        return Run([{"params": [p], "rate": 0.1}], steps=9, seed=3, eps=1e-15), p

    def train(run: Run, p: nn.Parameter, stop: int = 99) -> list[float]:
        def loss(step: int, view: int) -> torch.Tensor:
            if step == stop:
                raise KeyboardInterrupt
            return (p - view).square().mean()

        return optimise(run, loss, views=4, factor=lambda step: 1.0)

    whole, p = fresh()
    losses = train(whole, p)
    first, q = fresh()
    with pytest.raises(KeyboardInterrupt):
        train(first, q, stop=5)
    second, r = fresh()
    second.resume(first.state())
    # the interrupted step had drawn its view already; a checkpoint is taken after a whole step
    second.order.append(_missing(first.order))
    assert train(second, r) == losses and torch.equal(p, r) and len(losses) == 9


def _missing(left: list[int]) -> int:
    fresh = Run([], steps=9, seed=3, eps=1e-15)
    views = [fresh.next_view(4) for _ in range(6)]
    assert fresh.order == left
    return views[5]


def test_crops_hold_the_person_and_can_be_alike():
    views = []
    for x0, x1, y0, y1 in ((10, 40, 20, 100), (50, 110, 5, 60)):
        alpha = torch.zeros(128, 120)
        alpha[y0:y1, x0:x1] = 1
        views.append(View(alpha[..., None].expand(-1, -1, 3), alpha, torch.zeros(55, 3, 4), torch.eye(4), torch.eye(3)))
    plain, alike = cropped(views), cropped(views, alike=True)
    assert len({v.alpha.shape for v in plain}) == 2 and len({v.alpha.shape for v in alike}) == 1
    for view, cut in zip(views * 2, plain + alike):
        assert cut.alpha.sum() == view.alpha.sum()
        x, y = (int(-cut.K[k, 2]) for k in (0, 1))
        assert torch.equal(view.alpha[y : y + cut.alpha.shape[0], x : x + cut.alpha.shape[1]], cut.alpha)


def test_windows_of_the_perceptual_term_lie_within_and_move():
    seen = []

    def distances(images: torch.Tensor, truth: torch.Tensor) -> torch.Tensor:
        seen.append((tuple(images.shape), float(truth[0, 0, 0, 0])))
        return images.mean((1, 2, 3))

    truth = torch.arange(3 * 60 * 20.0).reshape(1, 3, 60, 20)
    for step in range(8):
        assert len(Perceptual(distances, 32)(truth.expand(2, -1, -1, -1), truth, np.random.default_rng(step))) == 2
    assert {shape for shape, _ in seen} == {(2, 3, 32, 20)} and len({corner for _, corner in seen}) > 3
    Perceptual(distances)(truth, truth, np.random.default_rng(0))
    assert seen[-1][0] == (1, 3, 60, 20)


@pytest.mark.parametrize(("has", "used"), [({"avx512_bf16": True}, torch.bfloat16), ({"amx_bf16": True}, torch.bfloat16), ({"avx2": True}, None)])
def test_a_cpu_multiplies_halves_where_it_can(monkeypatch, has, used):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: has)
    cpu = torch.device("cpu")
    assert training_device("cpu") == (cpu, used) and training_device("cpu", "bfloat16") == (cpu, torch.bfloat16)
    assert training_device("cpu", "float32") == (cpu, None)


def test_where_a_training_runs():
    if not torch.cuda.is_available():
        assert training_device()[0] == torch.device("cpu")
        with pytest.raises(BackendUnavailable, match="no GPU"):
            training_device("cuda")
