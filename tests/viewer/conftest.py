"""A small person of Gaussians on the recorded body, and a look at it."""

import base64
import os
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from threading import Thread
from typing import Any

import numpy as np
import pytest
import torch

from svad_ray.body.model import Body
from svad_ray.motion import blank_track
from svad_ray.subject import Avatar
from svad_ray.viewer.scene import Scene
from svad_ray.viewer.server import Viewer

COUNT = 6000


@pytest.fixture(scope="session")
def body(golden_body) -> Body:
    return golden_body


@pytest.fixture(scope="session")
def person(body) -> Avatar:
    """Flat Gaussians scattered over the recorded body, coloured by where they lie; every fourth lies on an expressive place."""
    rng = np.random.default_rng(0)
    faces, rest = body.faces, body.v_template.numpy()
    sides = np.cross(rest[faces[:, 1]] - rest[faces[:, 0]], rest[faces[:, 2]] - rest[faces[:, 0]])
    chosen = rng.choice(len(faces), COUNT, p=np.linalg.norm(sides, axis=1) / np.linalg.norm(sides, axis=1).sum())
    share = rng.dirichlet(np.ones(3), COUNT)
    means = np.einsum("nk,nkc->nc", share, rest[faces[chosen]])
    weights = np.einsum("nk,nkj->nj", share, body.lbs_weights.numpy()[faces[chosen]])
    order = np.argsort(-weights, axis=1)[:, :6]
    kept = np.take_along_axis(weights, order, 1)
    directions = np.einsum("nk,nkce->nce", share, body.exprdirs.numpy()[faces[chosen]][..., :10])
    moved = np.flatnonzero(np.abs(directions).max((1, 2)) > 1e-6)
    quats = rng.normal(0, 1, (COUNT, 4))
    tensors = {
        "means": means,
        "quats": quats / np.linalg.norm(quats, axis=1, keepdims=True),
        "scales": rng.uniform(0.004, 0.014, (COUNT, 3)),
        "opacities": rng.uniform(0.5, 0.99, COUNT),
        "colors": (np.sin(9 * means) + 1) / 2,
        "lbs_weights": kept / kept.sum(1, keepdims=True),
        "rest_joints": body.forward(betas=torch.zeros(1, 10), face_contour=False).rest_joints[0].numpy(),
        "hands_mean": body.hands_mean.numpy(),
        "expr_dirs": 20 * directions[moved],
    }
    tensors = {name: value.astype(np.float32) for name, value in tensors.items()}
    tensors |= {"lbs_joints": order.astype(np.uint8), "parents": np.asarray(body.parents, np.int32), "expr_index": moved.astype(np.int32)}
    track = replace(blank_track(np.zeros((1, 55, 3)), fps=25.0), body_id=body.id)
    return Avatar("gaussian", tensors, track, {"provenance": {"consent": "they agreed", "commercial_use": True, "commercial_reason": "all allow it"}})


@pytest.fixture(scope="session")
def scene(person, body) -> Scene:
    return Scene(person, body, name="somebody")


@pytest.fixture(scope="session")
def address(scene) -> Iterator[str]:
    viewer = Viewer(scene)
    thread = Thread(target=viewer.run)
    thread.start()
    yield viewer.url
    viewer.stop()
    thread.join()
    viewer.close()


class Look:
    """The page in a browser, with everything that it said and asked for.

    Attributes:
        page: Playwright's. said: Console messages and errors. asked: Addresses.
    """

    def __init__(self, page: Any, url: str) -> None:
        self.page, self.said, self.asked = page, [], []
        page.on("console", lambda message: self.said.append(message.text))
        page.on("pageerror", lambda error: self.said.append(str(error)))
        page.on("request", lambda request: self.asked.append(request.url))
        page.goto(url)
        page.wait_for_selector("html[data-state=ready][data-drawn]", timeout=60_000)

    def clip(self, name: str, *, frame: float = 0.0) -> None:
        """Choose a clip and hold it at a frame."""
        self.page.get_by_role("group", name="Clip").get_by_role("button", name=name, exact=True).click()
        self.page.wait_for_selector(f"html[data-clip={name}]")
        if frame:
            self._move("Time in the clip", frame)

    def slide(self, **sliders: float) -> None:
        """Move sliders: label with _ for ": " -> value."""
        for label, value in sliders.items():
            self._move(label.replace("__", ": ").replace("_", " "), value)

    def _move(self, label: str, value: float) -> None:
        slider = self.page.get_by_label(label, exact=True)
        slider.evaluate("(e, v) => { e.value = v; e.dispatchEvent(new Event('input')); }", value)

    def show(self, name: str) -> None:
        """Press a button of what is shown."""
        self.page.get_by_role("group", name="Show").get_by_role("button", name=name, exact=True).click()

    def until(self, holds: str, *, seconds: float = 60.0) -> None:
        """Wait for a JavaScript expression; the page's policy forbids playwright's own way, which compiles text inside the page."""
        end = time.monotonic() + seconds
        while not self.page.evaluate(holds):
            assert time.monotonic() < end, f"never came: {holds}"
            self.page.wait_for_timeout(50)

    def picture(self, *, floor: bool = False) -> np.ndarray:
        """(H, W, 4) in [0, 1] what WebGL draws now: premultiplied RGB and alpha."""
        code = """floor => { const p = window.page, c = p.gl.canvas, draw = p.floor.draw;
            if (!floor) p.floor.draw = () => {};
            p.draw(); p.floor.draw = draw;
            const b = new Uint8Array(4 * c.width * c.height); p.gl.readPixels(0, 0, c.width, c.height, p.gl.RGBA, p.gl.UNSIGNED_BYTE, b);
            let s = ""; for (let i = 0; i < b.length; i += 8192) s += String.fromCharCode(...b.subarray(i, i + 8192));
            return [c.height, c.width, btoa(s)]; }"""
        height, width, data = self.page.evaluate(code, floor)
        return np.frombuffer(base64.b64decode(data), np.uint8).reshape(height, width, 4)[::-1] / 255

    def camera(self) -> tuple[np.ndarray, np.ndarray]:
        """World to camera (4, 4), and K (3, 3) in pixels."""
        view, focal, (width, height) = self.page.evaluate("[Array.from(page.camera.view), page.camera.focal, page.camera.size]")
        return np.reshape(view, (4, 4)).T, np.array([[focal, 0, width / 2], [0, focal, height / 2], [0, 0, 1]])


@pytest.fixture
def look(browser, address) -> Iterator[Look]:
    page = browser.new_page(viewport={"width": 960, "height": 620}, color_scheme="dark")
    yield Look(page, address)
    page.close()


@pytest.fixture
def shots() -> Path | None:
    """Where screenshots are kept for a person to look at; None: nowhere."""
    folder = os.environ.get("SVAD_SHOTS")
    return Path(folder) if folder else None
