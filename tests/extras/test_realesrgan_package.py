"""The package and our own procedure on the same weights: the same pixels."""

import numpy as np
import pytest
import torch
from needed import needs
from rules import rule_made

from svad_ray.errors import InputError, StageFailed
from svad_ray.nets.realesrgan_package import RealEsrganPackage
from svad_ray.nets.rrdbnet import RRDBNet
from svad_ray.nets.upscale import enlarge

needs("realesrgan", extra="realesrgan")


def amplified(scale, blocks=2):
    """Rule-made weights with a strong body and an output in [0, 1], so that borders of tiles matter."""

    def factor(key):
        return 0.2 if key == "conv_last.weight" else 2.0 if key.startswith("body.") and key.endswith("weight") else 1.0

    net = rule_made(f"rrdb_x{scale}_{blocks}blocks", RRDBNet(scale=scale, blocks=blocks), factor)
    net.conv_last.bias.data = torch.tensor([0.5, 0.45, 0.55])
    return net


@pytest.fixture(scope="module")
def image():
    return np.random.default_rng(3).integers(0, 256, (51, 38, 3), dtype=np.uint8)


@pytest.mark.parametrize("scale", [1, 2, 4])
@pytest.mark.parametrize("options", [{}, {"tile": 24, "tile_pad": 8}, {"tile": 16, "tile_pad": 4, "pre_pad": 10}], ids=["whole", "tiles", "padded"])
def test_the_same_pixels(image, scale, options):
    net = amplified(scale)
    theirs, ours = RealEsrganPackage(net, **options)(image), enlarge(net, image, **options)
    assert theirs.dtype == np.uint8 and theirs.shape == (51 * scale, 38 * scale, 3)
    difference = np.abs(theirs.astype(int) - ours.astype(int))
    print(f"x{scale} {options}: {int(difference.max())} at most, {(difference > 0).mean():.2e} of the values differ")
    # one level where the two networks' last bits fall on two sides of a half
    assert difference.max() <= 1 and (difference > 0).mean() < 1e-3
    assert ours.std() > 5, "a flat picture compares nothing"


def test_another_factor_and_channel_order(image):
    net = amplified(2)
    package = RealEsrganPackage(net)
    theirs, ours = package(image, outscale=3), enlarge(net, image, outscale=3)
    assert theirs.shape == (153, 114, 3)
    assert np.abs(theirs.astype(int) - ours.astype(int)).max() <= 2  # Lanczos weighs a level of difference up
    swapped = package(image[..., ::-1])[..., ::-1]
    assert np.abs(swapped.astype(int) - package(image).astype(int)).max() > 5, "red and blue are not one to the network"


def test_the_networks_are_the_same_function():
    from basicsr.archs.rrdbnet_arch import RRDBNet as Official

    net = amplified(2)
    official = Official(3, 3, scale=2, num_block=2)
    official.load_state_dict(net.state_dict(), strict=True)
    x = torch.rand(1, 3, 20, 14, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        torch.testing.assert_close(official(x), net(x), rtol=0, atol=2e-6)


def test_a_tile_that_fails_is_not_passed_over(image, monkeypatch):
    package = RealEsrganPackage(amplified(2), tile=24)
    net, seen = package._upsampler.model.net, []
    whole = net.forward

    def fails_at_the_third(x):
        seen.append(x.shape)
        if len(seen) == 3:
            raise RuntimeError("out of memory")
        return whole(x)

    monkeypatch.setattr(net, "forward", fails_at_the_third)
    with pytest.raises(StageFailed, match="out of memory"):
        package(image)


def test_tiles_that_do_not_fold_are_refused():
    with pytest.raises(InputError, match="multiples of 4 for x1"):
        RealEsrganPackage(amplified(1), tile=24, tile_pad=10)


def test_other_arrays_are_refused(image):
    package = RealEsrganPackage(amplified(2))
    for wrong in (image[..., 0], image.astype(np.float32), np.dstack((image, image[..., :1]))):
        with pytest.raises(InputError, match="uint8 RGB"):
            package(wrong)
