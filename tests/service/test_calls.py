"""Pictures over HTTP, against the library called by hand."""

from __future__ import annotations

import io
import math
import threading
import time
from typing import Any

import numpy as np
import pytest
from PIL import Image
from scipy.spatial.transform import Rotation

from svad_ray.deliver import rendered, turned
from svad_ray.errors import InputError
from svad_ray.motion import MOTIONS, blank_track, load_motion, retarget
from svad_ray.provenance import check, identity
from svad_ray.service.engine import View
from svad_ray.service.studio import Studio, open_body

SIZE = 96


def picture(answer: Any) -> np.ndarray:
    assert answer.status_code == 200, answer.text
    return np.asarray(Image.open(io.BytesIO(answer.content)).convert("RGB"))


def by_hand(avatar: Any, motion: str, frame: int, *, yaw: float = 0.0) -> np.ndarray:
    track = retarget(load_motion(motion, open_body()), person=avatar.track, body=open_body(), size=SIZE)
    return rendered(avatar, turned(track.frames(slice(frame, frame + 1)), math.radians(yaw)))[0]


@pytest.fixture(scope="session")
def avatar(shared, finished):
    return shared.running.book.avatar(finished["id"])


def test_render_is_what_the_library_draws(client, finished, avatar):
    for motion, frame, yaw in (("walk", 3, 0.0), ("a-pose-turn", 0, 40.0)):
        body = {"avatar": finished["id"], "motion": motion, "frame": frame, "camera": {"yaw_deg": yaw}, "size": SIZE}
        got = picture(client.post("/v1/render", json=body))
        assert got.shape == (SIZE, SIZE, 3) and got.std() > 10
        assert np.array_equal(got, by_hand(avatar, motion, frame, yaw=yaw))


def test_render_with_pose_and_camera_of_ones_own(client, finished, avatar):
    """The camera's matrices are used as they are: turning camera and person together changes nothing but rounding."""
    rng = np.random.default_rng(0)
    pose = {"body_pose": rng.normal(0, 0.2, (21, 3)).tolist(), "jaw_pose": [0.1, 0, 0], "expression": [1.0, -0.5], "transl": [0.1, 0.0, 0.2]}
    viewmat = np.diag([1.0, -1.0, -1.0, 1.0])
    viewmat[:3, 3] = [0, 0, 3]
    K = [[150.0, 0, SIZE / 2], [0, 150.0, SIZE / 2], [0, 0, 1]]

    def render(pose: dict[str, Any], viewmat: np.ndarray) -> np.ndarray:
        body = {"avatar": finished["id"], "pose": pose, "camera": {"viewmat": viewmat.tolist(), "K": K}, "size": SIZE}
        return picture(client.post("/v1/render", json=body))

    plain = render(pose, viewmat)
    assert plain.std() > 10
    zero = {**pose, "transl": [0.0, 0.0, 0.0]}
    moved = viewmat.copy()
    moved[:3, 3] += viewmat[:3, :3] @ [0.1, 0.0, 0.2]
    assert np.abs(render(zero, moved).astype(int) - plain).max() <= 2
    assert np.abs(render({**pose, "jaw_pose": [0.9, 0, 0]}, viewmat).astype(int) - plain).max() > 5 or avatar.tensors["lbs_joints"].max() < 22
    # the same by hand
    full = np.zeros((1, 55, 3), np.float32)
    full[0, 1:22], full[0, 22] = pose["body_pose"], pose["jaw_pose"]
    from dataclasses import replace

    track = blank_track(full, transl=np.array([pose["transl"]]), fps=1.0)
    expression = np.array([pose["expression"]], np.float32)
    track = replace(track, viewmats=viewmat[None].astype(np.float32), Ks=np.array([K], np.float32), image_size=(SIZE, SIZE), expression=expression)
    assert np.array_equal(plain, rendered(avatar, track)[0])


@pytest.mark.parametrize(
    "more",
    [
        {"size": 5000},
        {"size": 4},
        {"motion": "/etc/passwd"},
        {"frame": 99_999},
        {"pose": {"body_pose": [[0, 0, 0]]}},
        {"pose": {"body_pose": "zero"}},
        {"pose": {"nose_pose": [0, 0, 0]}},
        {"camera": {"viewmat": np.eye(4).tolist()}},
        {"camera": {"viewmat": (2 * np.eye(4)).tolist(), "K": np.eye(3).tolist()}},
        {"camera": {"viewmat": np.eye(4).tolist(), "K": np.zeros((3, 3)).tolist()}},
        {"camera": {"yaw_deg": "left"}},
        {"avatar": "x"},
        {"avatar": "../../etc"},
        {"more": 1},
    ],
)
def test_views_that_do_not_exist(client, finished, more):
    answer = client.post("/v1/render", json={"avatar": finished["id"], "size": SIZE, **more})
    assert answer.status_code in (404, 422) and answer.json()["error"]["found"]


def test_not_a_number_is_refused(client, finished):
    for word in ("NaN", "Infinity", "1e999"):
        body = f'{{"avatar": "{finished["id"]}", "camera": {{"yaw_deg": {word}}}}}'
        assert client.post("/v1/render", content=body, headers={"Content-Type": "application/json"}).status_code == 422


def frames_of(content: bytes, boundary: str) -> list[np.ndarray]:
    """Pictures of a multipart stream, taken apart by the standard library."""
    from email.parser import BytesParser

    message = BytesParser().parsebytes(f"Content-Type: multipart/mixed; boundary={boundary}\r\n\r\n".encode() + content)
    parts: Any = message.get_payload()
    return [np.asarray(Image.open(io.BytesIO(part.get_payload(decode=True))).convert("RGB")) for part in parts]


def test_animate_streams_every_frame(client, finished, avatar):
    body = {"avatar": finished["id"], "motion": "arms", "size": 32}
    stream = client.post("/v1/animate", json={**body, "format": "png"})
    kind, boundary = stream.headers["content-type"].split("; boundary=")
    assert kind == "multipart/x-mixed-replace"
    frames = frames_of(stream.content, boundary)
    track = retarget(load_motion("arms", open_body()), person=avatar.track, body=open_body(), size=32)
    assert np.array_equal(np.stack(frames), rendered(avatar, track))
    blurred = frames_of(client.post("/v1/animate", json=body).content, boundary)
    assert len(blurred) == len(frames) and np.abs(np.stack(blurred).astype(int) - np.stack(frames)).mean() < 12


def test_animate_gives_a_video_of_the_same_frames(client, finished, avatar, tmp_path):
    from svad_ray.export.video import read_video

    answer = client.post("/v1/animate", json={"avatar": finished["id"], "motion": "arms", "size": 64}, headers={"Accept": "video/mp4"})
    assert answer.status_code == 200 and answer.headers["content-type"] == "video/mp4"
    (tmp_path / "a.mp4").write_bytes(answer.content)
    assert check(tmp_path / "a.mp4", identity().root).good
    frames, fps = read_video(tmp_path / "a.mp4")
    motion = MOTIONS["arms"]()
    assert len(frames) == len(motion) and abs(fps - motion.fps) < 0.01
    track = retarget(load_motion("arms", open_body()), person=avatar.track, body=open_body(), size=64)
    assert np.abs(frames.astype(int) - rendered(avatar, track)).mean() < 6


def test_calls_on_an_unfinished_avatar(start):
    from service_helpers import ask

    with start(require_tokens=False).client() as client:
        avatar_id = ask(client).json()["id"]
        for call in ("render", "animate"):
            answer = client.post(f"/v1/{call}", json={"avatar": avatar_id, "size": 64})
            assert answer.status_code == 409 and answer.json()["error"]["code"] == "not_ready"
        assert client.get(f"/v1/avatars/{avatar_id}/artefacts/avatar.ply").status_code == 409


def test_more_calls_than_places_are_told_to_come_again(start, tmp_path, shared, finished):
    """Some wait, the rest hear 429 at once, and those that were let in all get their picture."""
    from svad_ray.config import Settings
    from svad_ray.service.local_engine import LocalEngine

    hold = threading.Event()
    engine = LocalEngine(shared.running.book, Settings(), calls=1, waiting=2)
    real = engine.studio.render

    def slow(avatar_id: str, view: View) -> np.ndarray:
        hold.wait(20)
        return real(avatar_id, view)

    engine.studio.render = slow  # type: ignore[method-assign]
    engine._workers.clear()
    engine._idle.clear()
    running = start(engine=engine, store=shared.running.book.root, tokens_file=shared.running.config.tokens_file)
    answers: list[Any] = []
    with running.client(shared.token) as client:

        def one() -> None:
            answers.append(client.post("/v1/render", json={"avatar": finished["id"], "size": 32}))

        threads = [threading.Thread(target=one) for _ in range(6)]
        for thread in threads:
            thread.start()
        deadline = time.monotonic() + 10
        while len(answers) < 3 and time.monotonic() < deadline:
            time.sleep(0.02)
        assert [answer.status_code for answer in answers] == [429] * 3 and int(answers[0].headers["Retry-After"]) >= 1
        hold.set()
        for thread in threads:
            thread.join(30)
    assert sorted(answer.status_code for answer in answers) == [200] * 3 + [429] * 3


def test_a_viewer_who_leaves_frees_the_place(client, finished):
    with client.stream("POST", "/v1/animate", json={"avatar": finished["id"], "motion": "walk", "size": 64}) as answer:
        next(answer.iter_raw())
    assert client.post("/v1/render", json={"avatar": finished["id"], "size": 32}).status_code == 200


def test_studio_holds_a_few_avatars_and_reads_each_once(avatar):
    loads: list[str] = []

    def load(avatar_id: str) -> Any:
        loads.append(avatar_id)
        return avatar

    studio = Studio(load, held=2)
    for avatar_id in ("a", "a", "b", "a", "c", "a", "b"):
        studio.render(avatar_id, View(size=16))
    assert loads == ["a", "b", "c", "b"]
    studio.forget("b")
    studio.render("b", View(size=16))
    assert loads[-1] == "b" and len(loads) == 5
    with pytest.raises(InputError):
        list(studio.frames("a", "../motion.npz", 16))


def test_yaw_turns_the_person(avatar):
    """A person turned by an angle, and the camera with them, is the same picture as neither."""
    studio = Studio(lambda avatar_id: avatar)
    K = ((150.0, 0, 48), (0, 150.0, 48), (0, 0, 1))
    viewmat = np.diag([1.0, -1.0, -1.0, 1.0])
    viewmat[:3, 3] = [0, 0, 3]
    root = avatar.tensors["rest_joints"][0].astype(float)
    spin = Rotation.from_euler("y", 50, degrees=True).as_matrix()
    around = np.eye(4)
    around[:3, :3], around[:3, 3] = spin, root - spin @ root
    pose: dict[str, Any] = {"body_pose": np.zeros((21, 3)).tolist()}
    plain = studio.render("a", View(size=SIZE, pose=pose, viewmat=viewmat.tolist(), K=K))
    both = studio.render("a", View(size=SIZE, pose=pose, yaw_deg=50, viewmat=(viewmat @ np.linalg.inv(around)).tolist(), K=K))
    alone = studio.render("a", View(size=SIZE, pose=pose, yaw_deg=50, viewmat=viewmat.tolist(), K=K))
    assert np.abs(both.astype(int) - plain).max() <= 3 and np.abs(alone.astype(int) - plain).max() > 30


@pytest.mark.slow
@pytest.mark.models
def test_restore_doubles_the_photo_and_adds_detail_to_the_head_alone(client):
    import cv2

    from svad_ray.evaluate.synthetic.demo import demo_person

    person = demo_person(0)
    photo = person.photo.image
    got = picture(client.post("/v1/restore", files={"photo": ("a.png", person.png)}))
    height, width = photo.shape[:2]
    assert got.shape == (2 * height, 2 * width, 3)
    plain = cv2.resize(photo, (2 * width, 2 * height), interpolation=cv2.INTER_LANCZOS4)
    changed = (np.abs(got.astype(int) - plain) > 2).any(-1)
    ys, xs = np.nonzero(changed)
    assert changed.any() and np.ptp(ys) < 0.35 * got.shape[0] and np.ptp(xs) < 0.45 * got.shape[1], "the head and nothing else"
    box = np.s_[ys.min() : ys.max() + 1, xs.min() : xs.max() + 1]
    assert cv2.Laplacian(got[box], cv2.CV_64F).std() > 1.2 * cv2.Laplacian(plain[box], cv2.CV_64F).std()
    assert np.abs(cv2.GaussianBlur(got[box], (0, 0), 8).astype(int) - cv2.GaussianBlur(plain[box], (0, 0), 8)).max() <= 4, "coarse structure stays"
    assert ys.mean() < height, "in the upper half"
    nobody = client.post("/v1/restore", files={"photo": ("a.png", _grey())})
    assert nobody.status_code == 422 and nobody.json()["error"]["code"] == "quality_rejected"


def _grey() -> bytes:
    stream = io.BytesIO()
    Image.fromarray(np.full((300, 200, 3), 128, np.uint8)).save(stream, "PNG")
    return stream.getvalue()
