"""What the page is given, and who is given it."""

import http.client
import json
import sys
from dataclasses import replace
from types import SimpleNamespace
from urllib.parse import urlsplit

import numpy as np
import pytest
import torch
from safetensors.numpy import load
from scipy.spatial.transform import Rotation

from svad_ray import cli
from svad_ray.body.names import JOINT_INDEX, JOINT_NAMES
from svad_ray.errors import BackendUnavailable, InputError
from svad_ray.motion import MOTIONS, save_track
from svad_ray.store import save_avatar
from svad_ray.viewer.controls import faces, groups
from svad_ray.viewer.scene import STAND, Scene
from svad_ray.viewer.server import PAGE, Viewer

LEFT, RIGHT, UP, FORWARD = np.eye(3)[0], -np.eye(3)[0], np.eye(3)[1], np.eye(3)[2]


def turned(slider, joint: str, value: float) -> Rotation:
    axis = dict(slider.turns)[joint]
    return Rotation.from_rotvec(np.array(axis) * value, degrees=True)


def named(body, group: str, name: str, side: str = ""):
    return next(s for s in groups(body, 10)[group] if (s.name, s.side) == (name, side))


@pytest.mark.parametrize(
    ("name", "joint", "bone", "goes"),
    [
        ("Raise", "shoulder", -UP, "out"),
        ("Forward", "shoulder", -UP, FORWARD),
        ("Elbow", "elbow", "out", FORWARD),
        ("Fist", "index2", "out", -UP),
    ],
)
def test_arm_sliders_move_the_bone_where_their_name_says(body, name, joint, bone, goes):
    for side, out in (("left", LEFT), ("right", RIGHT)):
        slider = named(body, "Arms", name, side)
        start, end = (out if isinstance(v, str) else v for v in (bone, goes))
        assert turned(slider, f"{side}_{joint}", 60).apply(start) @ end > 0.5


def test_leg_and_trunk_sliders_move_where_their_names_say(body):
    for side, out in (("left", LEFT), ("right", RIGHT)):
        assert turned(named(body, "Legs", "Forward", side), f"{side}_hip", 60).apply(-UP) @ FORWARD > 0.5
        assert turned(named(body, "Legs", "Aside", side), f"{side}_hip", 60).apply(-UP) @ out > 0.5
        assert turned(named(body, "Legs", "Knee", side), f"{side}_knee", 60).apply(-UP) @ -FORWARD > 0.5
    assert turned(named(body, "Head and torso", "Bow"), "spine1", 90).apply(UP) @ FORWARD > 0.4
    assert turned(named(body, "Face", "Jaw"), "jaw", 28).apply(FORWARD) @ -UP > 0.3


def test_every_slider_has_a_resting_place_and_moves_known_joints(body):
    for sliders in groups(body, 10).values():
        for slider in sliders:
            assert slider.low <= 0 <= slider.high and bool(slider.turns) != bool(slider.expression)
            assert {joint for joint, _ in slider.turns} <= set(JOINT_NAMES)


def test_named_faces_are_offered_where_the_expression_space_holds_them():
    """Units along single directions: the smile lies in the first ten coefficients, the blink in the eleventh."""
    units = ("mouthSmileLeft", "mouthSmileRight", "eyeBlinkLeft", "eyeBlinkRight", "mouthFrownLeft", "mouthFrownRight")
    units += ("mouthPucker", "cheekPuff", "browInnerUp", "browOuterUpLeft", "browOuterUpRight")
    coefficients = np.zeros((len(units), 12))
    coefficients[:2, 3], coefficients[2:4, 10], coefficients[4:, 11] = 2.0, 1.5, 1.0
    body = SimpleNamespace(expression_units=units, unit_to_expression=coefficients, exprdirs=torch.ones(5, 3, 12))
    found = list(faces(body, 10))
    assert [slider.name for slider in found] == ["Smile"]
    np.testing.assert_array_equal(found[0].expression, [0, 0, 0, 4, 0, 0, 0, 0, 0, 0])


def test_arrays_are_the_avatar_and_its_surface(scene, person, body):
    arrays = load(scene.arrays())
    np.testing.assert_array_equal(arrays["means"], person.tensors["means"])
    np.testing.assert_allclose(arrays["rgba"][:, 3] / 255, person.tensors["opacities"], atol=0.51 / 255)
    np.testing.assert_allclose(arrays["weights"].sum(1), 1, atol=1e-6)
    np.testing.assert_allclose(arrays["weights"][:, :6], person.tensors["lbs_weights"], atol=1e-6)
    np.testing.assert_array_equal(arrays["unpose"][7], np.eye(3, 4))
    assert len(arrays["surface.points"]) == len(body.v_template) and "regions" not in arrays
    ends = {tuple(edge) for edge in arrays["surface.edges"]}
    assert len(ends) == len(arrays["surface.edges"]) and all(a < b for a, b in ends)
    face = arrays["surface.faces"][0]
    assert {tuple(sorted((face[k], face[k - 1]))) for k in range(3)} <= ends


def test_a_clip_is_the_motion_on_this_person(scene, body):
    clip = load(scene.clip("walk"))
    assert clip["quats"].shape[1:] == (55, 4) and clip["fps"] == [25.0] and len(clip["transl"]) == 112
    knee = Rotation.from_quat(clip["quats"][5, JOINT_INDEX["left_knee"]]).as_rotvec()
    np.testing.assert_allclose(knee, MOTIONS["walk"]().body_pose[5, JOINT_INDEX["left_knee"] - 1], atol=1e-5)
    finger = Rotation.from_quat(clip["quats"][0, JOINT_INDEX["left_index1"]]).as_rotvec()
    np.testing.assert_allclose(finger, body.hands_mean[0].numpy().reshape(15, 3)[0] + _relative_hand(body), atol=1e-5)


def _relative_hand(body):
    return MOTIONS["walk"]().left_hand_pose[0, 0] - body.hands_mean[0].numpy().reshape(15, 3)[0]


def test_own_motions_come_first_and_others_body_is_refused(person, body, tmp_path):
    save_track(replace(MOTIONS["arms"](20), body_id=body.id), tmp_path / "dance.npz")
    scene = Scene(person, body, motions=[str(tmp_path / "dance.npz")])
    document = scene.document()
    assert document["first"] == "dance" and document["clips"][:2] == [STAND, "dance"] and set(MOTIONS) < set(document["clips"])
    assert len(load(scene.clip("dance"))["transl"]) == 20
    with pytest.raises(InputError, match="other"):
        Scene(replace(person, track=replace(person.track, body_id="other")), body)


def test_regions_are_offered_when_the_avatar_records_them(person, body):
    confidence = pytest.importorskip("svad_ray.stages.avatar.confidence", reason="this version records no confidence")
    count = len(person.tensors["means"])
    source = (np.arange(count) % 2).astype(np.uint8)
    recorded = replace(person, tensors={**person.tensors, "confidence": source.astype(np.float16), "source": source})
    recorded = replace(recorded, facts={**person.facts, "confidence": {"photos": ["front"], "seen": 0.5, "parts": {}}})
    scene = Scene(recorded, body)
    legend = scene.document()["regions"]
    assert legend["seen"] == 0.5 and [color["name"] for color in legend["colors"]] == ["generated", "seen in front"]
    assert legend["colors"][1]["rgb"] == list(confidence.PALETTE[1])
    regions = load(scene.arrays())["regions"]
    np.testing.assert_allclose(regions / 255, confidence.region_colors(recorded), atol=0.51 / 255)
    assert Scene(person, body).document()["regions"] is None


def answer(url: str, path: str, **headers: str):
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.hostname, parts.port, timeout=10)
    connection.request("GET", path, headers=headers)
    got = connection.getresponse()
    body = got.read()
    connection.close()
    return got, body


def test_only_who_has_the_address_is_answered(address):
    prefix = urlsplit(address).path
    page, body = answer(address, prefix)
    assert page.status == 200 and b"<main>" in body and "default-src 'self'" in page.headers["Content-Security-Policy"]
    assert page.headers["Cache-Control"] == "no-store"
    for path in ("/", "/scene.json", "/index.html", f"{prefix}../server.py", f"{prefix}%2e%2e/server.py", f"{prefix}nothing", f"{prefix}clips/none"):
        assert answer(address, path)[0].status == 404, path
    assert answer(address, prefix, Host="avatars.example:80")[0].status == 404  # a page of another site that points its name here
    assert json.loads(answer(address, f"{prefix}scene.json")[1])["name"] == "somebody"


def test_every_file_of_the_page_is_served_and_names_no_other_host(address):
    for file in PAGE.iterdir():
        got, body = answer(address, urlsplit(address).path + file.name)
        assert got.status == 200 and body == file.read_bytes()
        assert b"http:" not in body and b"https:" not in body and b'"//' not in body


def test_a_taken_port_is_said(scene, address):
    with pytest.raises(BackendUnavailable, match="--port 0"):
        Viewer(scene, port=urlsplit(address).port)


def test_the_command_says_where_the_page_is_and_ends_with_the_interrupt(person, body, tmp_path, monkeypatch, capsys):
    names = []

    def interrupted(viewer):
        names.append(viewer.scene.name)
        raise KeyboardInterrupt

    monkeypatch.setattr("svad_ray.body.load_body", lambda path=None: body)
    monkeypatch.setattr(Viewer, "run", interrupted)
    monkeypatch.setattr(sys, "argv", ["svad-ray", "view", str(save_avatar(person, tmp_path / "ann" / "avatar").parent), "--no-open"])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    said = capsys.readouterr().out
    assert not ended.value.code and "http://127.0.0.1:" in said and "Ended." in said
    assert names == ["ann"]  # the folder of the run, not "avatar" inside it
