"""Patterns repeat where they should and stay colours."""

from __future__ import annotations

import numpy as np
import pytest

from svad_ray.evaluate.synthetic.fabrics import Buttoned, Denim, Dots, Hair, Plaid, Printed, Shoe, Solid, Stripes, Trimmed

RED, WHITE = (0.8, 0.1, 0.1), (0.95, 0.95, 0.93)
MATERIALS = [
    Solid(RED),
    Stripes(RED, WHITE),
    Plaid(RED, WHITE),
    Dots(RED, WHITE),
    Denim(RED),
    Trimmed(Solid(RED), WHITE),
    Buttoned(Solid(RED), WHITE),
]
MATERIALS += [Printed(Solid(RED), WHITE), Shoe(RED), Hair(RED, 3)]


def coords(n: int = 4000, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).uniform(-0.6, 0.6, (n, 6)).astype(np.float32)


@pytest.mark.parametrize("material", MATERIALS, ids=lambda m: type(m).__name__)
def test_every_material_gives_colours(material) -> None:
    rgb = material(coords())
    assert rgb.shape == (4000, 3)
    assert rgb.min() >= 0 and rgb.max() <= 1.1
    np.testing.assert_array_equal(rgb, material(coords()))


def test_stripes_cover_their_share_and_repeat() -> None:
    c = coords(40_000)
    rgb = Stripes(RED, WHITE, period=0.05, share=0.4)(c)
    assert (rgb[:, 1] < 0.5).mean() == pytest.approx(0.4, abs=0.02)
    c2 = c + np.array([0.3, 0.1, 0, 0, 0, 0], np.float32)  # two periods up, anywhere across
    assert (np.abs(Stripes(RED, WHITE, period=0.05, share=0.4)(c2) - rgb).max(1) > 1e-3).mean() < 1e-3


def test_dots_cover_the_area_of_circles() -> None:
    c = np.random.default_rng(0).uniform(0, 1, (200_000, 6)).astype(np.float32)
    share = (Dots(RED, WHITE, period=0.05, radius=0.012)(c)[:, 1] < 0.5).mean()
    assert share == pytest.approx(np.pi * 0.012**2 / 0.05**2, rel=0.03)


def test_a_trim_follows_the_edge() -> None:
    c = np.zeros((2, 6), np.float32)
    c[:, 2] = 0.01, 0.05
    rgb = Trimmed(Solid(RED, mottle=0), WHITE, width=0.02)(c)
    np.testing.assert_allclose(rgb, [WHITE, RED], atol=1e-6)
