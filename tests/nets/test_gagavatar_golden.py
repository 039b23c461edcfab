"""GAGAvatar against recorded outputs of the original code: every part from the picture to the last network."""

import numpy as np
import pytest
import torch
from rules import golden_or_skip, rule_input, rule_tensor
from scipy.spatial.transform import Rotation

from svad_ray.nets.gagavatar import geometry
from svad_ray.nets.gagavatar.features import BaseModel, normalise
from svad_ray.nets.gagavatar.generators import Gaussians, PlaneGenerator, PointGenerator
from svad_ray.nets.gagavatar.network import GAGAvatar, HeadGaussians
from svad_ray.nets.gagavatar.sizes import COLORS, DinoSizes, Sizes
from svad_ray.nets.gagavatar.styleunet import StyleUNet
from svad_ray.splat import rasterization

FEATURE, GAUSSIAN, PAINTED = 1e-4, 1e-5, 1e-4  # the recording's own tolerances
TURNED = 1e-4  # of the few quaternions that are short before they are normalised, which enlarges what another number of threads rounds
SMALL_DINO = Sizes(dino=DinoSizes(image=518, depth=1))  # its feature maps are inputs of the recordings


def weight(key, shape):
    value = rule_tensor("gagavatar", key, shape)
    if ".noises." in key:  # plain normal numbers
        value = value * np.float32(np.sqrt(np.prod(shape[1:])))
    return torch.from_numpy(value + np.float32(key.endswith("modulation.bias")))


def filled(module, prefix):
    state = module.state_dict()
    made = {key: weight(prefix + key, tuple(value.shape)) for key, value in state.items() if not key.startswith("dino_model.")}
    rest = {key: torch.zeros(value.shape) for key, value in state.items() if key.startswith("dino_model.")}
    module.load_state_dict(made | rest, assign=True)
    return module.eval().requires_grad_(False)


def chw(image):
    return torch.from_numpy(image).movedim(-1, -3).float() / 255


@pytest.fixture(scope="module")
def base():
    with torch.device("meta"):
        network = BaseModel(SMALL_DINO)
    return filled(network, "base_model.")


@pytest.fixture(scope="module")
def generators():
    with torch.device("meta"):
        parts = {"l0": PlaneGenerator(256), "l1": PlaneGenerator(256), "g": PointGenerator(256, 768)}
    return {name: filled(part, f"gs_generator_{name}.") for name, part in parts.items()}


def close(ours, theirs, tolerance):
    np.testing.assert_allclose(np.asarray(ours), theirs, atol=tolerance, rtol=0)


def test_planes_cameras_and_directions(golden_generation):
    golden = golden_or_skip(golden_generation / "gaga_planes_camera.npz")
    transform = torch.from_numpy(golden["f_transform"])
    points, direction = geometry.plane_points(transform, 296)
    assert points.shape == tuple(golden["plane_points_shape"])
    close(points[::97], golden["plane_points_sub97"], 1e-6)
    close(direction, golden["plane_dirs"], 1e-6)
    close(geometry.plane_points(transform, 8)[0], golden["plane_points_8"], 1e-6)
    close(geometry.encode_direction(direction[None]), golden["direnc"], 1e-6)
    views = geometry.view_matrices(torch.from_numpy(golden["t_transform"]))
    close(views.transpose(1, 2), golden["view_matrix"], 0)  # recorded transposed
    ends = torch.linalg.inv(views.double())[:, :3, 3]
    assert np.allclose(ends.norm(dim=1), np.linalg.norm(golden["t_transform"][:, :, 3], axis=1))


def test_intrinsics_agree_with_the_recorded_projection(golden_generation):
    golden = golden_or_skip(golden_generation / "gaga_planes_camera.npz")
    points = np.random.default_rng(0).uniform(-0.3, 0.3, (50, 3))
    homogeneous = np.column_stack([points, np.ones(50)])
    for view, full in zip(golden["view_matrix"].astype(float), golden["full_proj_matrix"].astype(float)):
        clip = homogeneous @ full
        theirs = (clip[:, :2] / clip[:, 3:] + 1) / 2 * 512  # pixels, middle of the first pixel = 0.5
        camera = (homogeneous @ view)[:, :3]
        ours = camera @ geometry.intrinsics(512).numpy().T
        np.testing.assert_allclose(ours[:, :2] / ours[:, 2:], theirs, atol=1e-3)


def test_feature_maps(golden_generation, base):
    golden = golden_or_skip(golden_generation / "gaga_base_small.npz")
    images, tokens = normalise(chw(golden["image_rgb"])), torch.from_numpy(golden["dino_feats"])
    local, token = base.fuse(images, tokens)
    if "feature_local" in golden:  # not kept in the small copy, which has the enlarged map
        close(local[:, ::4], golden["feature_local"], FEATURE)
    close(token, golden["feature_global"], 0)
    close(base.fuse(images, tokens, output_size=33)[0][:, ::16], golden["feature_local_out33"], FEATURE)
    assert not np.allclose(tokens[-1].mean(1), golden["feature_global"], atol=0.1)  # the top left patch, not an average


def test_gaussians_of_small_pictures(golden_generation, base, generators):
    features = golden_or_skip(golden_generation / "gaga_base_small.npz")
    golden = golden_or_skip(golden_generation / "gaga_generators_small.npz")
    local, token = base.fuse(normalise(chw(features["image_rgb"])), torch.from_numpy(features["dino_feats"]))
    encoded = geometry.encode_direction(torch.from_numpy(golden["dirs"]))
    close(encoded, golden["direnc"], 1e-6)
    for name in ("l0", "l1"):
        made, ways = generators[name](local, encoded)
        close(made.colors[:, ::4], golden[f"{name}_colors"], GAUSSIAN)
        close(made.quats, golden[f"{name}_rotations"], TURNED)
        assert (np.abs(np.asarray(made.quats) - golden[f"{name}_rotations"]) <= GAUSSIAN).mean() > 0.99
        close(made.opacities, golden[f"{name}_opacities"], GAUSSIAN)
        close(made.scales, golden[f"{name}_scales"], GAUSSIAN)
        close(ways, golden[f"{name}_positions"], GAUSSIAN)
    codes = weight("head_base", (5023, 256))[None].expand(2, -1, -1)
    made = generators["g"](torch.cat((codes, token[:, None].expand(-1, 5023, -1)), 2), encoded)
    for name, value in (("colors", made.colors), ("opacities", made.opacities), ("scales", made.scales), ("rotations", made.quats)):
        close(value[:, ::23], golden[f"g_{name}_sub23"], GAUSSIAN)


def test_faults_of_the_trained_model_are_kept(generators):
    """Quaternions over the points, colours over the columns: what a repaired network would give is far away."""
    torch.manual_seed(0)
    encoded = geometry.encode_direction(torch.tensor([[0.0, 0.0, 1.0]]))
    lengths = generators["g"](torch.randn(1, 5023, 1024), encoded).quats[0]
    torch.testing.assert_close(lengths.norm(dim=0), torch.ones(4))
    assert lengths.norm(dim=1).mean() == pytest.approx(2 / 5023**0.5, rel=0.1)
    colors = generators["l0"](torch.randn(1, 256, 6, 7), encoded)[0].colors[0].reshape(6, 7, COLORS)
    assert ((colors[:, :3] > 0) & (colors[:, :3] < 1)).all() and (colors[:, 3:, :3] < 0).any()


@pytest.mark.slow
def test_gaussians_of_a_whole_picture(golden_generation, base, generators):
    golden = golden_or_skip(golden_generation / "gaga_gaussians_full.npz")
    with torch.device("meta"):
        network = GAGAvatar(SMALL_DINO)
    network.base_model, network.head_base = base, torch.nn.Parameter(weight("head_base", (5023, 256)))
    network.gs_generator_g, network.gs_generator_l0, network.gs_generator_l1 = (generators[name] for name in ("g", "l0", "l1"))
    tokens = torch.stack([torch.from_numpy(rule_input(f"dino{i}", (1, 1369, 768))) for i in range(4)])
    transform = torch.from_numpy(np.load(golden_generation / "gaga_planes_camera.npz")["f_transform"])
    with torch.no_grad():
        local, token = base.fuse(normalise(chw(golden["image_rgb"])[None]), tokens)
        head = network.lift(local, token, transform)
    close(token, golden["feature_global"], 0)
    index, made = golden["index"], head.gaussians
    centres = torch.cat((torch.from_numpy(golden["t_points"][0]), head.planes))
    assert len(centres) == made.colors.shape[1] == 180_255
    parts = {"colors": made.colors[0], "opacities": made.opacities[0], "scales": made.scales[0], "rotations": made.quats[0], "xyz": centres}
    for name, value in parts.items():
        close(value[index], golden[f"gs_{name}"], TURNED if name == "rotations" else GAUSSIAN)
        close(value.double().mean(0), golden[f"gs_mean_{name}"], GAUSSIAN)


@pytest.fixture(scope="module")
def upsampler():
    sizes = Sizes()
    with torch.device("meta"):
        network = StyleUNet(COLORS, sizes.down, sizes.decoder, sizes.style)
    return filled(network, "upsampler.")


@pytest.mark.slow
@torch.no_grad()
def test_last_network(golden_generation, upsampler):
    golden = golden_or_skip(golden_generation / "gaga_upsampler.npz")
    splat = torch.from_numpy(golden["splat_small_hwc"].repeat(8, 0).repeat(8, 1) * np.float32(0.5)).movedim(-1, 0)[None]
    painted = upsampler(splat, upsampler.stylegan_decoder.kept_noises())[0]
    close(painted[:, ::2, ::2], golden["out_given_noise"], PAINTED)
    close(painted[:, 200:264, 200:264], golden["out_given_noise_crop"], PAINTED)
    silent = [torch.zeros_like(noise) for noise in upsampler.stylegan_decoder.kept_noises()]
    close(upsampler(splat, silent)[0][:, ::2, ::2], golden["out_noise_off"], PAINTED)


def recorded_head(golden):
    values = {name: torch.from_numpy(golden[name]) for name in ("means", "quats_wxyz_unnormalised", "scales", "opacities", "colors32")}
    quats, scales = values["quats_wxyz_unnormalised"], values["scales"]
    gaussians = Gaussians(values["colors32"][None], values["opacities"][None, :, None], scales[None], quats[None])
    return values["means"], HeadGaussians(gaussians, torch.zeros(0, 3), geometry.covariances(quats, scales))


def splatter(vertices):
    """Only what ``splat`` reads of a network."""
    with torch.device("meta"):
        return GAGAvatar(Sizes(dino=DinoSizes(image=14, depth=1), vertices=vertices))


def dense(golden, pixels, *, tiles, largest=0.99):
    """Float64, every Gaussian at every pixel; with the original's tiles, a Gaussian ends where no 16-pixel tile touches its three sigmas.

    Args:
        pixels: Row and column numbers that are wanted.

    Returns:
        (32, n, n) blended channels.
    """
    means, quats, scales, opacities, colors = (
        torch.from_numpy(golden[name]).double() for name in ("means", "quats_wxyz_unnormalised", "scales", "opacities", "colors32")
    )
    view = torch.from_numpy(golden["view_matrix"]).double().T
    camera = means @ view[:3, :3].T + view[:3, 3]
    z, focal = camera[:, 2], 12 * 256.0
    zero = torch.zeros_like(z)
    slope = [(camera[:, i] / z).clamp(-1.3 / 12, 1.3 / 12) for i in (0, 1)]
    jacobian = torch.stack([torch.stack((focal / z, zero, -focal * slope[0] / z), 1), torch.stack((zero, focal / z, -focal * slope[1] / z), 1)], 1)
    jacobian = jacobian @ view[:3, :3]
    flat = jacobian @ geometry.covariances(quats, scales) @ jacobian.transpose(1, 2) + 0.3 * torch.eye(2, dtype=torch.float64)
    middle = flat.diagonal(dim1=1, dim2=2).mean(1)
    radius = (3 * (middle + (middle**2 - torch.linalg.det(flat)).clamp(min=0.1).sqrt()).sqrt()).ceil()
    centre = focal * camera[:, :2] / z[:, None] + 255.5  # counted from the middle of the first pixel
    conic, shown = torch.linalg.inv(flat), z > 0.2
    grid = torch.stack(torch.meshgrid(pixels.double(), pixels.double(), indexing="xy"), -1)
    image, clear = torch.zeros(*grid.shape[:2], 32, dtype=torch.float64), torch.ones(grid.shape[:2], dtype=torch.float64)
    going = torch.ones(grid.shape[:2], dtype=torch.bool)
    for i in torch.argsort(z).tolist():
        offset = grid - centre[i]
        alpha = (opacities[i] * torch.exp(-0.5 * torch.einsum("...a,ab,...b->...", offset, conic[i], offset))).clamp(max=largest)
        alpha = torch.where((alpha < 1 / 255) | ~shown[i], 0, alpha)
        if tiles:
            first, last = ((centre[i] - radius[i]) / 16).trunc(), ((centre[i] + radius[i] + 15) / 16).trunc()
            tile = (grid / 16).floor()
            alpha = alpha * ((tile >= first) & (tile < last)).all(-1)
        going &= clear * (1 - alpha) >= 1e-4
        alpha = alpha * going
        image += (alpha * clear)[..., None] * colors[i]
        clear = clear * (1 - alpha)
    return image.permute(2, 0, 1).numpy()


def test_splatting(golden_generation):
    """Equal to the recording but for two rules of its rasteriser: it cuts a Gaussian where the 16-pixel tiles round its three sigmas end, ours
    where it falls below 1/255, and its largest opacity is 0.99, ours 0.999. A dense twin with its rules is the recording, with ours it is ours."""
    golden = golden_or_skip(golden_generation / "gaga_splat_dense.npz")
    means, head = recorded_head(golden)
    image = splatter(700).splat(head, means[None], torch.from_numpy(golden["t_transform"])[None])[0].numpy()
    every = torch.arange(0, 512, 8)
    np.testing.assert_allclose(dense(golden, every, tiles=True), golden["image_sub8"], atol=1e-4)
    np.testing.assert_allclose(image[:, ::8, ::8], dense(golden, every, tiles=False, largest=0.999), atol=1e-4)
    difference = np.abs(image[:, ::8, ::8] - golden["image_sub8"])
    assert difference.max() < 0.03 and difference.mean() < 3e-4


def test_normalised_quaternions_give_another_picture(golden_generation):
    golden = golden_or_skip(golden_generation / "gaga_splat_dense.npz")
    means, head = recorded_head(golden)
    view, K = geometry.view_matrices(torch.from_numpy(golden["t_transform"])[None]), geometry.intrinsics(512)[None]
    gaussians = head.gaussians
    plain = rasterization(
        means, gaussians.quats[0], gaussians.scales[0], gaussians.opacities[0, :, 0], gaussians.colors[0], view, K, 512, 512, near_plane=0.2
    )[0][0].permute(2, 0, 1)[:, ::8, ::8].numpy()  # fmt: skip
    difference = np.abs(plain - golden["image_sub8"])
    assert difference.max() > 1 and difference.mean() > 0.03


def test_covariances_of_unnormalised_quaternions():
    quats, scales = torch.randn(40, 4, dtype=torch.float64), torch.rand(40, 3, dtype=torch.float64)
    unit = quats / quats.norm(dim=1, keepdim=True)
    rotations = Rotation.from_quat(unit.numpy(), scalar_first=True).as_matrix()
    truth = np.einsum("nij,nj,nkj->nik", rotations, scales.numpy() ** 2, rotations)
    np.testing.assert_allclose(geometry.covariances(unit, scales).numpy(), truth, atol=1e-12)
    short = geometry.covariances(1e-3 * unit, scales)
    np.testing.assert_allclose(short.numpy(), torch.diag_embed(scales**2).numpy(), atol=1e-5)
