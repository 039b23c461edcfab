"""Terms of the loss against the recorded values and gradients of the original (tolerances: the recording's README)."""

import json

import numpy as np
import pytest
import torch
from exavatar_kit import load, read
from rules import avatar_rule

from svad_ray.nets.lpips import Lpips
from svad_ray.stages.avatar.exavatar_training import rate_factor
from svad_ray.stages.avatar.losses import LPIPS, composite_terms, crop_of, face_term, plain_background_term, scene_terms
from svad_ray.stages.avatar.regularisers import CLOSED, Regularisers, arm_models, arm_sides, neighbours
from svad_ray.stages.avatar.ssim import ssim_map

# What the picture of the face's texture, which moves with the mesh, adds to these is not the regularisers'.
OF_THE_FACE = ("shape_param", "joint_offset", "mean_offset_net.0.bias", "geo_offset_net", "rgb_offset_net", "triplane")


@pytest.fixture(scope="module")
def losses(golden_avatar):
    return read(golden_avatar / "item3_losses.npz")


@pytest.fixture(scope="module")
def scene(golden_avatar, losses):
    r = load(golden_avatar)
    with torch.no_grad():
        r.model.networks.joint_offset.copy_(torch.tensor(losses["in_joint_offset_param"]))
    posed = r.posed("3")
    index, weight = neighbours(r.mesh.faces, len(r.mesh))
    stored = torch.from_numpy(losses["lap_neighbor_idx_first2000"]).long()
    same = (index[: len(stored)].sort(1).values == stored.sort(1).values).all(1)
    assert int((~same).sum()) <= 1  # the one vertex with more than ten neighbours, of which the original takes any ten
    index[: len(stored)] = stored
    return r, posed, Regularisers(r.mesh, posed.canonical.mesh.detach(), r.tensor("in_joint_offset"), near=(index, weight))


def test_sizes_that_leave_gaps_are_counted_in_logarithms(scene):
    """Half of what closes the surface for every fifth Gaussian, twice as much for the others, which is no fault."""
    r, posed, _ = scene
    closed = posed.static.scales.detach()[:, 0].numpy() / 2
    closed[::5] *= 4
    share = float(np.mean(np.arange(len(closed)) % 5 == 0))
    like = posed.__class__(**{**vars(posed), "refined": posed.static})
    terms = Regularisers(r.mesh, posed.canonical.mesh.detach(), r.tensor("in_joint_offset"), closed=closed)(like, r.model.networks.joint_offset)
    assert float(terms["closed"].detach()) == pytest.approx(CLOSED * 2 * share * np.log(2) ** 2, rel=1e-4)
    (slope,) = torch.autograd.grad(terms["closed"], posed.static.scales, retain_graph=True)
    assert (slope[::5] < 0).all() and (slope[1::5] == 0).all(), "short ones grow"


def image(losses, name: str) -> torch.Tensor:
    if f"in_img_{name}" not in losses:
        pytest.skip("this picture is only in the full recording")
    return torch.tensor(losses[f"in_img_{name}"])[None]


@pytest.mark.parametrize("phase", ["warmup", "main"])
def test_every_regulariser(scene, losses, phase):
    r, posed, regularisers = scene
    with torch.no_grad():
        terms = regularisers(posed, r.model.networks.joint_offset, warm_up=phase == "warmup")
    assert len(terms) == 10
    for name, value in terms.items():
        assert float(value) == pytest.approx(float(losses[f"{phase}_loss_{name}"]), rel=3e-4, abs=1e-9), name


def test_gradients_of_the_regularisers(scene, losses):
    r, posed, regularisers = scene
    torch.stack(list(regularisers(posed, r.model.networks.joint_offset).values())).sum().backward()
    compared = 0
    for name, parameter in r.model.networks.named_parameters():
        if name.startswith(OF_THE_FACE):
            continue
        for suffix, gradient in (("", parameter.grad), ("_row0", parameter.grad[0])):
            if (want := losses.get(f"grad_{name}{suffix}")) is not None:
                compared += 1
                assert np.abs(gradient.numpy() - want).max() <= 1e-3 * np.abs(want).max(), name
    assert compared > 20


@pytest.mark.models
def test_image_terms(losses, golden_avatar):
    truth, crop = image(losses, "gt"), crop_of(losses["in_bbox"][0], *losses["in_mask"].shape[2:])
    shapes = json.loads(str(read(golden_avatar / "item2_human_gaussian.npz")["weight_keys_json"]))
    lpips = Lpips("vgg")
    names = sorted((k for k in shapes if k.startswith("lpips.") and k.endswith(".weight")), key=lambda k: int(k.split(".")[-2]))
    bare = [name.removeprefix("lpips.lpips.").removesuffix(".weight") for name in names]
    lpips.convs = [
        (torch.from_numpy(avatar_rule(f"{k}.weight", shapes[name])), torch.from_numpy(avatar_rule(f"{k}.bias", shapes[name][:1])))
        for k, name in zip(bare, names)
    ]
    mask, background = torch.tensor(losses["in_mask"]), torch.tensor(losses["main_bg"])
    terms = composite_terms(image(losses, "scene_human"), truth, crop)
    terms["lpips_human"] = lpips.distance(crop.of(image(losses, "scene_human")), crop.of(truth)) * LPIPS
    terms["rgb_human_rand_bg"] = plain_background_term(image(losses, "human"), truth, mask, background, crop)
    if "face_render_static" in losses:
        terms["rgb_face"] = face_term(image(losses, "scene_human"), truth, torch.tensor(losses["face_render_static"]), crop)
    if "in_img_scene" in losses:
        terms |= scene_terms(image(losses, "scene"), truth, mask)
    for name, value in terms.items():
        assert float(value) == pytest.approx(float(losses[f"main_loss_{name}"]), rel=3e-4), name
    whole = ssim_map(image(losses, "scene_human"), truth)
    assert whole.shape == truth.shape


def test_learning_rates_fall_where_the_original_lets_them_fall(losses):
    for total, step, *_, human, smplx in losses["lr_rows_tot_it_meanscene_featuredc_human_smplx"]:
        assert rate_factor(step, total) * 1e-3 == pytest.approx(human, rel=1e-9)
        assert rate_factor(step, total) * 1e-4 == pytest.approx(smplx, rel=1e-9)


def test_arms_sides_and_an_arm_without_models(scene):
    r, posed, _ = scene
    canonical = posed.canonical.mesh.detach()
    upper, lower = arm_sides(r.mesh, canonical)
    assert np.array_equal(upper.numpy(), r.data["is_upper_arm"]) and np.array_equal(lower.numpy(), r.data["is_lower_arm"])
    moved = canonical.clone()
    lonely = torch.nonzero(lower)[0, 0]
    moved[lonely, 0] += 5.0  # far from every upper vertex in x: where the original is no number
    models = arm_models(r.mesh, moved)
    assert models.found.any() and not models.found.all()
    term = Regularisers(r.mesh, moved, r.tensor("in_joint_offset"))(posed, r.model.networks.joint_offset)["arm_rgb_reg"]
    assert torch.isfinite(term)
