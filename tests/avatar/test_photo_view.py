"""Frames and photos as training views: a person on white, nothing of what stood behind them, and no white when they stand before something else."""

from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch
from tiny_pipeline import track

from svad_ray.stages.avatar import gaussian
from svad_ray.stages.avatar.losses import over
from svad_ray.subject import Further, Photo


@pytest.fixture
def view(monkeypatch):
    """A grey figure, as soft at its rim as a camera makes it, before a background of one colour, as the training view of it."""
    monkeypatch.setattr(gaussian, "pose_body", lambda *arguments: SimpleNamespace(skin=torch.zeros(1, 55, 3, 4)))

    def made(background):
        hard = np.zeros((300, 200), np.float32)
        hard[40:260, 70:130] = 1
        mask = cv2.GaussianBlur(hard, (0, 0), 0.7)
        image = mask[..., None] * 0.4 + (1 - mask[..., None]) * np.array(background)
        one = Further(Photo("p", (image * 255).round().astype(np.uint8), "0"), SimpleNamespace(mask=mask), track(1))
        return gaussian.photo_view(None, torch.zeros(55, 3), one, longest=240, weight=1.0)

    return made


@pytest.mark.parametrize("background", [(1, 0, 1), (0, 1, 0), (0, 0, 0)])
def test_no_background_in_the_rim(view, background):
    one, plain = view(background), view((1, 1, 1))
    image, alpha = one.image.numpy(), one.alpha.numpy()
    rim = (alpha > 0.1) & (alpha < 0.9)
    assert rim.sum() > 200
    want = alpha[..., None] * 0.4 + 1 - alpha[..., None]
    assert np.abs(image - want)[rim].max() < 0.04
    assert np.abs(image - plain.image.numpy()).max() < 0.06


@pytest.mark.parametrize("background", [(1, 0, 1), (1, 1, 1), (0.2, 0.3, 0.25)])
def test_a_frame_before_a_plain_colour_is_put_on_white(background):
    """Softly and exactly in the rim; flecks of the background go."""
    alpha = cv2.GaussianBlur(np.pad(np.ones((20, 10), np.float32), 15), (0, 0), 0.7)
    alpha[alpha < 0.01] = 0
    person, share = np.array([0.4, 0.1, 0.7]), alpha[..., None]
    frame = person * share + (1 - share) * np.array(background)
    frame[2, 3] = 0
    got = gaussian.on_white(frame.astype(np.float32), alpha)
    np.testing.assert_allclose(got, person * share + 1 - share, atol=1e-6)
    assert got.dtype == np.float32 and (gaussian.on_white(got, alpha) == got).all()


def test_before_another_colour_the_rim_has_that_colour():
    alpha, person, colour = torch.rand(1, 1, 5, 4), torch.rand(1, 3, 5, 4), torch.tensor([0.9, 0.0, 0.3])
    got = over(person * alpha + 1 - alpha, alpha, colour[:, None, None])
    torch.testing.assert_close(got, person * alpha + (1 - alpha) * colour[:, None, None])
