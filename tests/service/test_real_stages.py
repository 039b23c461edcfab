"""The embedded profile behind the service, at a tiny size."""

from __future__ import annotations

import hashlib

import pytest
from service_helpers import ask, wait_for

from svad_ray.config import Settings, override
from svad_ray.service.book import AvatarBook
from svad_ray.service.local_engine import LocalEngine

SMALL = {
    **{"animate.frames": 4, "animate.size": 96, "animate.supersample": 1, "animate.keypoint_iterations": 20, "animate.silhouette_iterations": 4},
    **{"animate.clothe_iterations": 4, "restore.budget_s": 0.0, "restore.plain": "lanczos", "fit.iterations": 3, "fit.max_residual": 10.0},
    **{"avatar.gaussians": 500, "avatar.iterations": 3, "avatar.color_views": 2},
}


@pytest.mark.slow
@pytest.mark.models
def test_avatar_over_http_has_the_bytes_of_create(start, tmp_path):
    """The same photo and settings give the same arrays through the service's worker and through ``deliver``."""
    from svad_ray.deliver import deliver
    from svad_ray.evaluate.synthetic.demo import demo_person
    from svad_ray.photo import decode_photo

    png, settings = demo_person(0).png, override(Settings(), {**SMALL, "threads": 1})
    engine = LocalEngine(AvatarBook(str(tmp_path / "store")), settings, exports=("ply",))
    running = start(engine=engine, settings=SMALL, require_tokens=False)
    with running.client() as client:
        state = wait_for(client, ask(client, photo=png, seed=0).json()["id"], "done", "failed", seconds=500)
        assert state["state"] == "done", state
        url = f"/v1/avatars/{state['id']}/artefacts"
        served = client.get(f"{url}/avatar/avatar.safetensors").content
        picture = client.post("/v1/render", json={"avatar": state["id"], "size": 128})
        assert picture.status_code == 200 and len(picture.content) > 500
    made = deliver(decode_photo(png), tmp_path / "by-hand", settings)
    by_hand = (made.out / "avatar" / "avatar.safetensors").read_bytes()
    assert hashlib.sha256(served).hexdigest() == hashlib.sha256(by_hand).hexdigest()
