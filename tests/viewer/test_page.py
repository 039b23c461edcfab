"""The page in a headless Chromium: it draws what the rasteriser draws, follows its controls, and speaks to nobody else."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from svad_ray.body.names import JOINT_INDEX
from svad_ray.deliver import danced
from svad_ray.splat import rasterization
from svad_ray.stages.avatar.asset import PosableAvatar

pytestmark = pytest.mark.slow


def drawn(person, track, frame, viewmat, K, shape) -> np.ndarray:
    """(H, W, 4) by our own posing and rasteriser: premultiplied RGB and alpha."""
    g = PosableAvatar(person).posed(track, frame)
    V, K = (torch.tensor(a[None], dtype=torch.float32) for a in (viewmat, K))
    image, alpha, _ = rasterization(g.means, g.quats, g.scales, g.opacities, g.colors, V, K, shape[1], shape[0], packed=False)
    return torch.cat([image[0], alpha[0]], -1).numpy()


def psnr(found: np.ndarray, expected: np.ndarray) -> float:
    person = expected[..., 3] > 0.01
    assert person.mean() > 0.03
    return float(-10 * np.log10(np.square(found - expected)[person].mean()))


@pytest.mark.parametrize("face", [False, True])
def test_the_page_draws_what_animate_draws(look, person, body, face):
    """A frame of a clip, elbow and shoulder turned by sliders, a face made by its slider: posed here with scipy, drawn by the CPU rasteriser."""
    look.clip("arms", frame=37.0)
    look.slide(Arms__left__Elbow=70.0, Arms__left__Forward=40.0, Face__Shape_1=2.0)
    if face:
        look.page.get_by_role("button", name="face", exact=True).click()
    found = look.picture()
    track = danced(person, "arms", body).frames(slice(37, 38))
    pose, expression = track.full_pose.copy(), track.expression.copy()
    for joint, turn in (("left_elbow", [0, -70, 0]), ("left_shoulder", [-40, 0, 0])):  # about the axes of the parent, whatever the clip does
        at = JOINT_INDEX[joint]
        pose[0, at] = (Rotation.from_rotvec(turn, degrees=True) * Rotation.from_rotvec(pose[0, at])).as_rotvec()
    expression[:, 0] += 2.0
    moved = replace(track.with_full_pose(pose), expression=expression)
    expected = drawn(person, moved, 0, *look.camera(), found.shape)
    assert psnr(found, expected) > 45
    assert psnr(found, drawn(person, track, 0, *look.camera(), found.shape)) < 35  # without slider and face it is another picture


def test_between_two_frames_the_page_interpolates(look, person, body):
    look.clip("walk", frame=10.5)
    found = look.picture()
    track = danced(person, "walk", body)
    a, b = (Rotation.from_rotvec(track.full_pose[k]) for k in (10, 11))
    half = (a * Rotation.from_rotvec((a.inv() * b).as_rotvec() / 2)).as_rotvec().astype(np.float32)[None]
    between = replace(track.frames(slice(10, 11)).with_full_pose(half), transl=track.transl[10:12].mean(0, keepdims=True))
    assert psnr(found, drawn(person, between, 0, *look.camera(), found.shape)) > 45


def test_a_person_is_seen_and_every_control_changes_the_picture(look, shots):
    look.clip("stand")
    first = look.picture()
    assert 0.03 < (first[..., 3] > 0.5).mean() < 0.5
    look.slide(Arms__right__Raise=60.0)
    raised = look.picture()
    assert (np.abs(raised - first).max(-1) > 0.2).mean() > 0.003
    look.page.get_by_role("button", name="reset").click()
    np.testing.assert_array_equal(look.picture(), first)
    look.show("wireframe")
    wire = look.picture()
    assert (np.abs(wire - first).max(-1) > 0.05).mean() > 0.005
    look.show("Gaussians")
    clay = look.picture()
    grey = clay[clay[..., 3] > 0.99][:, :3]
    assert len(grey) > 5000 and np.ptp(grey, axis=1).max() < 0.1  # no colours of the Gaussians are left
    inked = "page.bones.context.getImageData(0, 0, page.bones.canvas.width, page.bones.canvas.height).data.some(v => v)"
    look.show("joints")
    look.until(inked)
    if shots:
        look.page.screenshot(path=shots / "controls.png")
    look.show("joints")
    look.until(f"!{inked}")


def test_bent_legs_keep_the_feet_on_the_floor(look):
    look.clip("stand")
    lowest = "(page.draw(), Math.min(...[7, 8, 10, 11].map(j => page.skeleton.joints[3 * j + 1])))"
    pelvis = "page.skeleton.joints[1]"
    floor, height = look.page.evaluate(lowest), look.page.evaluate(pelvis)
    look.slide(Legs__left__Knee=90.0, Legs__right__Knee=90.0, Legs__left__Forward=60.0, Legs__right__Forward=60.0)
    assert abs(look.page.evaluate(lowest) - floor) < 1e-4
    assert look.page.evaluate(pelvis) < height - 0.1


def test_a_clip_plays_stops_and_the_camera_turns(look, shots):
    look.clip("walk")
    before = look.picture()
    look.until("page.transport.frame > 5")
    if shots:
        look.page.screenshot(path=shots / "playing.png")
    assert (np.abs(look.picture() - before).max(-1) > 0.1).mean() > 0.003
    look.page.get_by_role("button", name="Pause").click()
    still = look.picture()
    look.page.wait_for_timeout(400)
    np.testing.assert_array_equal(look.picture(), still)
    look.page.mouse.move(300, 300)
    look.page.mouse.down()
    look.page.mouse.move(420, 300)
    look.page.mouse.up()
    assert (np.abs(look.picture() - still).max(-1) > 0.1).mean() > 0.01


def test_the_page_asks_nobody_else_and_reports_no_error(look, address):
    look.clip("turn")
    look.show("wireframe")
    look.picture(floor=True)
    assert look.asked and all(url.startswith(address) or url == "data:," for url in look.asked)
    assert not look.said
    assert "they agreed" in look.page.inner_text("#origin") and look.page.title() == "somebody · svad-ray"


def test_what_goes_wrong_is_said_on_the_page(look, scene, monkeypatch):
    from svad_ray.errors import InputError

    def broken(name):
        raise InputError("frame 3 of the motion holds values that are not finite", remedy="cut out such frames")

    monkeypatch.setattr(scene, "clip", broken)
    look.page.get_by_role("button", name="a-pose-turn").click()
    look.until("document.getElementById('message').textContent.length > 0")
    assert "frame 3" in look.page.inner_text("#message") and "cut out" in look.page.inner_text("#message")
