"""The paper's networks on a GPU: the recordings again in float32, and half precision beside it."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from rules import golden_or_skip, rule_made, rule_state
from test_bfrffusion_golden import REDUCED, hint

from svad_ray.nets.bfrffusion import load as bfr
from svad_ray.nets.bfrffusion.networks import Options
from svad_ray.nets.bfrffusion.networks import restore as restore_faces
from svad_ray.nets.bfrffusion.networks import sample as sample_face
from svad_ray.nets.gagavatar.load import load_gagavatar
from svad_ray.nets.gagavatar.tiny import TINY
from svad_ray.nets.gagavatar.tiny import write_tiny as write_tiny_head
from svad_ray.nets.musepose.load import load_networks
from svad_ray.nets.musepose.sample import SamplerOptions, generate
from svad_ray.nets.musepose.tiny import write_tiny
from svad_ray.nets.rrdbnet import RRDBNet
from svad_ray.nets.upscale import enlarge

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")]


@pytest.fixture(autouse=True)
def exact():
    """Without TensorFloat-32, whose products keep ten bits."""
    was = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    yield
    torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = was


@pytest.fixture(scope="module")
def clip_folder(tmp_path_factory):
    return write_tiny(tmp_path_factory.mktemp("musepose"))


def clip_of(folder, device, dtype, **options):
    rng = np.random.default_rng(0)
    photo, poses = rng.integers(0, 255, (80, 64, 3), np.uint8), rng.integers(0, 255, (7, 64, 64, 3), np.uint8)
    networks = load_networks(folder, dtype=dtype, device=device)
    made = generate(networks, photo, poses, width=64, height=64, options=SamplerOptions(steps=3, window=4, overlap=1, **options))
    return made.astype(int)


def test_musepose_makes_the_clip_of_the_cpu(clip_folder):
    wanted, got = clip_of(clip_folder, "cpu", torch.float32), clip_of(clip_folder, "cuda", torch.float32)
    assert np.ptp(wanted) > 100
    assert np.abs(got - wanted).max() <= 2


@pytest.mark.parametrize("dtype, share", [(torch.float16, 0.2), (torch.bfloat16, 0.6)])
def test_musepose_in_half_precision_is_nearly_the_same_clip(clip_folder, dtype, share):
    """Rule-made weights enlarge what rounding does; another seed of the noise is the measure of a different clip."""
    wanted, other = (clip_of(clip_folder, "cpu", torch.float32, seed=seed) for seed in (99, 98))
    got = clip_of(clip_folder, "cuda", dtype)
    assert np.abs(got - wanted).mean() < share * np.abs(other - wanted).mean()


def test_musepose_decodes_the_same_in_any_batch(clip_folder):
    apart = np.abs(clip_of(clip_folder, "cuda", torch.float32, decode_batch=1) - clip_of(clip_folder, "cuda", torch.float32, decode_batch=7))
    assert apart.max() <= 1


@pytest.fixture(scope="module")
def faces(golden_generation):
    shapes = json.loads((golden_generation / "bfr_keys_reduced.json").read_text())["shapes"]
    return rule_state("bfrffusion_reduced", {key: shape for key, shape in shapes.items() if key not in bfr.SCHEDULE})


def test_bfrffusion_meets_the_recording(faces, golden_generation):
    data = golden_or_skip(golden_generation / "bfr_ddim5.npz")
    networks = bfr.from_state(faces, Path("rule"), REDUCED).to("cuda")
    with torch.inference_mode():
        latents = sample_face(networks, hint(data["hint_bgr"][None]).cuda(), torch.from_numpy(data["x_T"]).cuda(), Options(steps=5))
    np.testing.assert_allclose(latents.cpu(), data["x0_latent"], atol=2e-3)


def test_bfrffusion_in_half_precision_is_the_same_face(faces):
    face = np.random.default_rng(1).integers(0, 255, (2, 128, 128, 3), np.uint8)
    made = []
    for dtype in (torch.float32, torch.float16):
        networks = bfr.from_state(faces, Path("rule"), REDUCED).to("cuda")
        for part in networks.parts.values():
            part.to(dtype)
        images, good = restore_faces(networks, face, Options(steps=3))
        assert good.all()
        made.append(images.astype(int))
    assert np.ptp(made[0]) > 50 and np.abs(made[0] - made[1]).mean() < 2


def test_gagavatar_splats_on_gsplat_what_our_kernels_splat(tmp_path):
    write_tiny_head(tmp_path)
    rng = torch.Generator().manual_seed(0)
    image = torch.rand(3, TINY.dino.image, TINY.dino.image, generator=rng)
    transform = torch.tensor([[1.0, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 5.0]])
    vertices = torch.randn(2, TINY.vertices, 3, generator=rng) * 0.1
    cameras, pictures, channels = transform.expand(2, 3, 4), [], []
    for device in ("cpu", "cuda"):
        network = load_gagavatar(tmp_path, device=device)
        head = network.identity(image.to(device), transform.to(device))
        channels.append(network.splat(head, vertices.to(device), cameras.to(device)).cpu())
        pictures.append(network.render(head, vertices.to(device), cameras.to(device), seeds=[1, 2]).cpu())
    assert channels[0].std() > 1e-3 and (channels[0] - channels[1]).abs().max() < 1e-3 * channels[0].abs().max()
    assert (pictures[0] - pictures[1]).abs().max() < 2e-2


def test_real_esrgan_enlarges_as_on_the_cpu():
    net = rule_made("rrdb", RRDBNet(blocks=2), lambda key: 0.5)
    image = np.random.default_rng(2).integers(0, 255, (30, 40, 3), np.uint8)
    wanted = enlarge(net, image, tile=24)
    for dtype, bound in ((torch.float32, 1), (torch.float16, 4)):
        got = enlarge(net.to("cuda", dtype), image, tile=24)
        assert np.abs(got.astype(int) - wanted).max() <= bound
