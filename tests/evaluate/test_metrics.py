"""PSNR, SSIM, silhouettes and LPIPS against closed forms, scikit-image and recorded facts."""

from __future__ import annotations

import pickle

import numpy as np
import pytest

from svad_ray.errors import InputError, SvadError
from svad_ray.evaluate.metrics import psnr, silhouette_iou, ssim
from svad_ray.nets.lpips import Lpips, read_arrays


@pytest.fixture(scope="module")
def pair() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    a = rng.random((40, 33, 3))
    return a, np.clip(a + 0.2 * rng.standard_normal(a.shape), 0, 1)


def test_psnr_of_a_constant_difference():
    a = np.full((5, 4, 3), 0.5)
    assert psnr(a, a + 0.1) == pytest.approx(20.0, abs=1e-9)
    assert psnr(a, a) == float("inf")


def test_psnr_of_float32_images_does_not_lose_digits():
    a = np.zeros((8, 8, 3), np.float32)
    assert psnr(a, a + np.float32(1e-5)) == pytest.approx(100.0, abs=1e-3)


def test_ssim_of_constant_images_has_a_closed_form():
    a, b = np.full((20, 20, 3), 0.3), np.full((20, 20, 3), 0.6)
    assert ssim(a, b) == pytest.approx((2 * 0.3 * 0.6 + 1e-4) / (0.3**2 + 0.6**2 + 1e-4), abs=1e-12)
    assert ssim(a, a) == pytest.approx(1.0, abs=1e-12)


def test_ssim_equals_the_definition_window_by_window(pair):
    a, b = (x[:16, :14, 0] for x in pair)
    x = np.arange(-5, 6)
    w = np.exp(-(x**2) / 4.5)
    w = np.outer(w, w) / np.outer(w, w).sum()
    values = []
    for i in range(5, 11):
        for j in range(5, 9):
            p, q = a[i - 5 : i + 6, j - 5 : j + 6], b[i - 5 : i + 6, j - 5 : j + 6]
            mp, mq = (w * p).sum(), (w * q).sum()
            vp, vq, c = (w * (p - mp) ** 2).sum(), (w * (q - mq) ** 2).sum(), (w * (p - mp) * (q - mq)).sum()
            values.append((2 * mp * mq + 1e-4) * (2 * c + 9e-4) / ((mp**2 + mq**2 + 1e-4) * (vp + vq + 9e-4)))
    assert ssim(a, b) == pytest.approx(np.mean(values), abs=1e-10)


def test_ssim_equals_scikit_image(pair):
    metrics = pytest.importorskip("skimage.metrics")
    theirs = metrics.structural_similarity(*pair, channel_axis=2, data_range=1, gaussian_weights=True, sigma=1.5, use_sample_covariance=False)
    assert ssim(*pair) == pytest.approx(theirs, abs=1e-10)


def test_silhouette_overlap_of_two_squares():
    a, b = np.zeros((10, 10), bool), np.zeros((10, 10), bool)
    a[0:4, 0:4], b[2:6, 0:4] = True, True
    assert silhouette_iou(a, b) == pytest.approx(8 / 24)
    assert silhouette_iou(a.astype(np.uint8) * 255, b.astype(np.float32)) == pytest.approx(8 / 24)
    assert silhouette_iou(np.zeros((3, 3)), np.zeros((3, 3))) == 1.0


def test_images_of_different_kind_are_refused():
    with pytest.raises(InputError, match="shapes"):
        psnr(np.zeros((4, 4, 3)), np.zeros((4, 5, 3)))
    with pytest.raises(InputError, match="uint8"):
        ssim(np.zeros((20, 20, 3), np.uint8), np.zeros((20, 20, 3), np.uint8))
    with pytest.raises(InputError, match="11 x 11"):
        ssim(np.zeros((8, 20)), np.zeros((8, 20)))
    with pytest.raises(InputError, match="shapes"):
        silhouette_iou(np.zeros((4, 4)), np.zeros((4, 5)))


class _Malice:
    def __reduce__(self):
        return (print, ("run",))


def test_a_pickle_that_asks_for_more_than_arrays_is_refused_unrun(tmp_path, capsys):
    path = tmp_path / "alexnet.ckpt"
    path.write_bytes(pickle.dumps({"a": _Malice()}))
    with pytest.raises(InputError, match=r"builtins\.print"):
        read_arrays(path)
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("content", [b"", b"no pickle", pickle.dumps([1, 2])])
def test_broken_weight_files_are_refused_in_words(tmp_path, content):
    path = tmp_path / "alexnet.ckpt"
    path.write_bytes(content)
    with pytest.raises(InputError, match="models pull"):
        read_arrays(path)


def _synthetic_weights(seed: int) -> dict:
    """An AlexNet of small random kernels in the file's own layout (k, k, in, out)."""
    rng = np.random.default_rng(seed)
    shapes = [(11, 3, 64), (5, 64, 192), (3, 192, 384), (3, 384, 256), (3, 256, 256)]
    convs = {
        f"Conv_{i}": {"kernel": (rng.standard_normal((k, k, m, n)) / np.sqrt(k * k * m)).astype(np.float32), "bias": np.zeros(n, np.float32)}
        for i, (k, m, n) in enumerate(shapes)
    }
    heads = {f"NetLinLayer_{i}": {"Conv_0": {"kernel": rng.random((1, 1, n, 1)).astype(np.float32)}} for i, (_, _, n) in enumerate(shapes)}
    return {"AlexNet_0": convs, **heads}


def test_lpips_equals_a_plain_twin_on_synthetic_weights(tmp_path):
    """Layout of the file, order of pooling and taps, normalisation: written once more with torch modules in float64."""
    import torch

    weights = _synthetic_weights(0)
    (tmp_path / "alexnet.ckpt").write_bytes(pickle.dumps(weights))
    rng = np.random.default_rng(1)
    a, b = rng.random((70, 64, 3)), rng.random((70, 64, 3))
    convs = []
    for i, (stride, pad) in enumerate([(4, 2), (1, 2), (1, 1), (1, 1), (1, 1)]):
        kernel = weights["AlexNet_0"][f"Conv_{i}"]["kernel"]
        conv = torch.nn.Conv2d(kernel.shape[2], kernel.shape[3], kernel.shape[0], stride=stride, padding=pad, bias=False).double()
        conv.weight.data = torch.from_numpy(np.einsum("yxio->oiyx", kernel).astype(np.float64))
        convs.append(conv)

    def maps(image):
        x = (torch.from_numpy(2 * image - 1) - torch.tensor([-0.030, -0.088, -0.188])) / torch.tensor([0.458, 0.448, 0.450])
        x, out = x.permute(2, 0, 1)[None], []
        for i, conv in enumerate(convs):
            x = torch.relu(conv(torch.nn.MaxPool2d(3, 2)(x) if i in (1, 2) else x))
            out.append(x / x.norm(dim=1, keepdim=True))
        return out

    heads = [torch.from_numpy(weights[f"NetLinLayer_{i}"]["Conv_0"]["kernel"][0, 0, :, 0].astype(np.float64)) for i in range(5)]
    with torch.no_grad():
        expected = sum(torch.einsum("nchw,c->nhw", (p - q) ** 2, w).mean() for p, q, w in zip(maps(a), maps(b), heads))
    assert Lpips("alex", folder=tmp_path)(a, b) == pytest.approx(float(expected), rel=1e-5)


def test_lpips_names_what_is_missing(tmp_path):
    with pytest.raises(InputError, match=r"alexnet\.ckpt"):
        Lpips("alex", folder=tmp_path)
    with pytest.raises(InputError, match="squeeze"):
        Lpips("squeeze", folder=tmp_path)
    (tmp_path / "alexnet.ckpt").write_bytes(pickle.dumps({"AlexNet_0": {}}))
    with pytest.raises(InputError, match="Conv_0"):
        Lpips("alex", folder=tmp_path)


@pytest.mark.models
@pytest.mark.parametrize(
    "backbone, shift, noise, blur", [("alex", 0.053, 0.294, 0.426), pytest.param("vgg", 0.103, 0.330, 0.371, marks=pytest.mark.slow)]
)
def test_recorded_distances_of_a_photo(backbone, shift, noise, blur):
    """Recorded on the same photo with the same weights: shift 2 px, noise of deviation 15, blur of deviation 3."""
    import cv2

    data = pytest.importorskip("skimage.data")
    from svad_ray import models

    try:
        folder = models.ensure("lpips")
    except SvadError as error:
        pytest.skip(f"the LPIPS package cannot be had: {error}")
    photo = data.astronaut()
    measure = Lpips(backbone, folder=folder)
    a = photo / 255.0
    assert measure(a, a) == 0
    assert measure(a, np.roll(photo, 2, 1) / 255.0) == pytest.approx(shift, abs=0.001)
    assert measure(a, cv2.GaussianBlur(photo, (0, 0), 3) / 255.0) == pytest.approx(blur, abs=0.003)
    noisy = np.clip(photo + np.random.default_rng(0).normal(0, 15, photo.shape), 0, 255) / 255.0
    assert measure(a, noisy) == pytest.approx(noise, abs=0.005)
