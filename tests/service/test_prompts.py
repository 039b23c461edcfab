"""Avatars of prompts and of edited photos over HTTP."""

import json
from pathlib import Path

import pytest
import service_kit
from service_helpers import ask, wait_for

from svad_ray.service.tokens import add_token


@pytest.fixture
def drawing(start, tmp_path):
    """A client of a server whose operator brought a model, and what that was asked."""
    weights = tmp_path / "weights"
    weights.mkdir()
    (weights / "model_index.json").write_text('{"_class_name": "Drawing"}')
    token = add_token(tmp_path / "tokens.json", "anna")
    picture = {"weights": str(weights), "pipeline": f"{Path(__file__).with_name('drawing.py')}:Drawing", "trust_code": True, "tries": 2}
    settings = {"animate.frames": 4, "shard": 3, **{f"picture.{name}": value for name, value in picture.items()}}
    running = start(settings=settings, workers=1)
    with running.client(token) as client:
        yield client, lambda: (weights / "prompts").read_text().splitlines()


def post(client, **body):
    return client.post("/v1/avatars", json=body, headers={"Idempotency-Key": body.pop("key")} if "key" in body else {})


def test_prompts_and_edits_become_avatars(drawing):
    client, asked = drawing
    made = post(client, prompt="a tall man", consent="no real person", options={"seed": 7})
    assert made.status_code == 202, made.text
    assert made.json()["prompt"] == "a tall man" and made.json()["photo_sha256"] == ""
    state = wait_for(client, made.json()["id"], "done", "failed")
    assert state["state"] == "done" and state["progress"]["picture"] == 1.0, state
    assert len(set(asked())) == 1 and asked()[0].startswith("7 False full-body photograph of a tall man")
    photo = service_kit.photo_png(3)
    edited = client.post("/v1/avatars", files={"photo": ("p.png", photo, "image/png")}, data={"consent": "she agreed", "edit": "a hat"})
    assert edited.status_code == 202, edited.text
    assert wait_for(client, edited.json()["id"], "done", "failed")["state"] == "done"
    assert asked()[-1].startswith("0 True a hat. Keep the same person")
    assert client.delete(f"/v1/avatars/{made.json()['id']}").json()["files"] > 5


def test_a_picture_that_shows_no_whole_person_fails_with_the_reason(drawing):
    client, asked = drawing
    state = wait_for(client, post(client, prompt="nothing", consent="no one").json()["id"], "done", "failed")
    assert state["state"] == "failed" and state["reason"]["code"] == "quality_rejected" and "none of 2 pictures" in state["reason"]["found"]
    assert len(set(asked())) == 2, "one a seed, however often a busy machine loses the lease"


def test_the_prompt_belongs_to_the_request(drawing):
    client, _ = drawing
    one = post(client, prompt="a man", consent="c", key="k")
    assert post(client, prompt="a man", consent="c", key="k").json()["id"] == one.json()["id"]
    assert post(client, prompt="a woman", consent="c", key="k").status_code == 409


@pytest.mark.parametrize("prompt", ["", "   ", "...", "a" * 10_000, "a\u0000b", 3, None])
def test_prompts_that_are_refused_at_once(drawing, prompt):
    client, _ = drawing
    answer = post(client, prompt=prompt, consent="c")
    assert answer.status_code == 422 and set(answer.json()["error"]) == {"code", "found", "expected", "remedy"}
    if isinstance(prompt, str) and prompt:
        photo = {"photo": ("p.png", service_kit.photo_png(), "image/png")}
        assert client.post("/v1/avatars", files=photo, data={"consent": "c", "edit": prompt}).status_code == 422
    assert len(answer.text) < 600


def test_what_does_not_go_together(drawing):
    client, _ = drawing
    assert post(client, prompt="a man", uri="https://x.example/p.jpg", consent="c").status_code == 422
    assert post(client, prompt="a man").status_code == 422, "consent is asked for here as well"
    assert post(client, consent="c").status_code == 422


def test_without_a_model_prompts_are_the_callers_error(client):
    answer = post(client, prompt="a man", consent="c")
    assert answer.status_code == 422 and "draws no pictures" in answer.json()["error"]["found"]
    assert ask(client, photo=service_kit.photo_png(9)).json()["prompt"] == ""
    document = client.get("/v1/openapi.json").json()
    assert "prompt" in json.dumps(document["components"]["schemas"]["AvatarDrawn"])
