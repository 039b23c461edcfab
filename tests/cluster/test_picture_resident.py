"""What draws prompts, as a resident deployment: loaded once there, and the pictures, tries and keys of a run by itself."""

import asyncio
import os
import sys
from pathlib import Path

import drawn
import numpy as np
import pytest
from pydantic import ValidationError

sys.path.insert(0, str(Path(__file__).parents[1] / "picture"))
import tiny_pictures

from svad_ray.cluster.hosts import PictureHost
from svad_ray.cluster.serve_config import ServeArgs
from svad_ray.cluster.serve_preflight import asks
from svad_ray.cluster.serve_residents import PictureResident
from svad_ray.errors import WeightsMissing
from svad_ray.fulfil import fulfil
from svad_ray.stages.picture.draw import Draw
from svad_ray.store import ArtefactStore
from svad_ray.subject import Photo

PROMPTS = ("a tall man", "a woman in red")


@pytest.fixture
def weights(tmp_path, request):
    """A small pipeline that draws and edits, of the class of FLUX.2 klein."""
    folder = tmp_path / "weights"
    tiny_pictures.seeded(tiny_pictures.klein).save_pretrained(folder)
    return folder


def arguments(weights, **values):
    picture = {f"picture.{name}": value for name, value in drawn.settings(weights).picture.model_dump(exclude_unset=True).items()}
    service = {"store": f"{weights.parent}/store", "require_tokens": False, "settings": {"animate.frames": 10, "shard": 5, **picture}}
    return ServeArgs.model_validate({"kit": drawn.KIT_PATH, "service": service, **values})


def drawn_by(args, *orders):
    """The streamed parts of each (config, prompt, photo, seed), from one replica."""

    async def take():
        resident = PictureResident(args, "picture")
        return [[part async for part in resident(config.model_dump(mode="json"), prompt, photo, seed)] for config, prompt, photo, seed in orders]

    return asyncio.run(take())


def test_the_replica_draws_what_a_run_by_itself_draws_and_loads_once(weights, monkeypatch):
    monkeypatch.setattr("svad_ray.stages.picture.draw._EDIT_PIXELS", 96 * 64)
    config = drawn.settings(weights).picture
    photo = Photo("p", np.random.default_rng(0).integers(0, 255, (96, 64, 3), dtype=np.uint8), "")
    longer = config.model_copy(update={"steps": 4, "seed": 9})
    orders = [(config, "a tall man", None, 0), (longer, "a tall man", None, 7), (config, "a hat", photo, 0)]
    parts = drawn_by(arguments(weights, picture={"threads": 1}), *orders)
    assert [what for _, what in drawn.told(weights)] == ["load", "draw 0", "draw 7", "draw 0"]
    for (asked, prompt, edited, seed), told in zip(orders, parts, strict=True):
        assert told[:-1] == [(step + 1) / asked.steps for step in range(asked.steps)], "the progress is not streamed"
        alone = Draw(asked)
        alone.setup()
        np.testing.assert_array_equal(told[-1], alone(prompt, edited, seed=seed))


def test_one_pipeline_is_held_at_a_time(weights):
    host, config = PictureHost(drawn.KIT), drawn.settings(weights).picture
    first = host(config)
    assert host(config.model_copy(update={"seed": 5, "height": 64})).pipe is first.pipe
    other = host(config.model_copy(update={"dtype": "bfloat16"}))
    assert other.pipe is not first.pipe and host(config.model_copy(update={"dtype": "bfloat16", "steps": 1})).pipe is other.pipe
    assert host(config).pipe is not first.pipe, "two pipelines were held"


def test_errors_of_the_pipeline_reach_the_caller(weights, monkeypatch):
    args = arguments(weights, picture={"threads": 1})
    monkeypatch.setattr(Draw, "__call__", lambda self, *_, **__: (_ for _ in ()).throw(RuntimeError("no more memory")))
    with pytest.raises(RuntimeError, match="no more memory"):
        drawn_by(args, (drawn.settings(weights).picture, "a man", None, 0))


def test_it_is_deployed_when_it_is_asked_for(weights):
    from svad_ray.cluster.serving import build

    def deployments(args):
        handles = build(args.model_copy(update={"preflight": False}))._bound_deployment.init_args[1]
        return {name: handle._bound_deployment for name, handle in handles.items()}

    assert "picture" not in deployments(arguments(weights)) and "picture" not in arguments(weights).deployments
    scaling = {"min_replicas": 0, "max_replicas": 4}
    made = deployments(arguments(weights, picture={"cpus": 2, "gpus": 0.5, "autoscaling_config": scaling}))["picture"]
    assert made.ray_actor_options["num_gpus"] == 0.5 and made.ray_actor_options["num_cpus"] == 2
    assert made._deployment_config.autoscaling_config.max_replicas == 4
    by_itself = {ask.name: ask for ask in asks(arguments(weights, picture={}))}["picture"]
    assert by_itself.resources["GPU"] == 1, "its backend runs on a GPU"
    with pytest.raises(ValidationError, match=r"picture\.weights"):
        ServeArgs.model_validate({"service": {"store": "/x"}, "picture": {}})


@pytest.fixture
def resident(ray_cluster, weights):
    """The deployments that the task of an avatar calls before it animates."""
    from ray import serve

    from svad_ray.cluster.serve_config import APP
    from svad_ray.cluster.serve_residents import PerceiveResident
    from svad_ray.cluster.serving import _deployment

    args = arguments(weights, picture={"cpus": 0.2, "gpus": 0, "threads": 1}, perceive={"cpus": 0.1, "threads": 1})
    perceive = _deployment(PerceiveResident, "perceive", args).bind(args, "perceive")
    picture = _deployment(PictureResident, "picture", args).bind(args, "picture")
    serve.start(http_options={"host": "127.0.0.1", "port": 0, "location": "NoServer"})
    serve.run(serve.deployment(Both).options(ray_actor_options={"num_cpus": 0}).bind(perceive, picture), name=APP, route_prefix=None)
    yield APP
    serve.delete(APP)
    serve.shutdown()  # others want an HTTP server


class Both:
    """An application has one root."""

    def __init__(self, *parts):
        self.parts = parts


def at_home(kit, calls):
    """The kit of an avatar's task; the tiny stages animate in the task itself."""
    from dataclasses import replace

    from svad_ray.cluster.serve_calls import resident_kit

    there = resident_kit(kit, calls, draws=True)
    return replace(there, make=lambda stage, config: (kit if stage == "animate" else there).make(stage, config))


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_avatars_from_prompts_have_the_bytes_of_a_run_by_itself(resident, weights, tmp_path):
    import torch

    from svad_ray.cluster.serve_calls import Insisting

    before = torch.get_num_threads()
    torch.set_num_threads(1)  # as many as the replica has: with another number the pipeline rounds otherwise
    kit, requests = at_home(drawn.KIT, Insisting(resident, marks=str(tmp_path / "store"))), [drawn.request(p, weights, p) for p in PROMPTS]
    markers = [fulfil(request, str(tmp_path / "served"), kit=kit) for request in requests]
    there = drawn.told(weights)
    (replica,) = {pid for pid, _ in there}
    assert replica != os.getpid(), "the pipeline was loaded in the caller's process"
    assert [what for _, what in there] == ["load", *("draw 0", "draw 1") * 2], "loaded once, drawn until somebody is seen"
    for request, marker in zip(requests, markers, strict=True):
        assert fulfil(request, str(tmp_path / "alone"), kit=drawn.KIT).key == marker.key
    one, other = ArtefactStore(tmp_path / "alone/work"), ArtefactStore(tmp_path / "served/work")
    keys = list(one.committed_keys())
    assert sum(key.stage == "picture" for key in keys) == len(PROMPTS) and set(map(str, keys)) == set(map(str, other.committed_keys()))
    for key in keys:
        assert other.committed(key).manifest_sha256 == one.committed(key).manifest_sha256, key
    torch.set_num_threads(before)


@pytest.mark.slow
def test_a_folder_that_a_node_does_not_see_is_found_before_anything_is_deployed(ray_cluster, weights):
    from svad_ray.cluster.serve_preflight import check_files

    there = arguments(weights, picture={"gpus": 0})
    check_files(there)
    (weights / "model_index.json").unlink()
    with pytest.raises(WeightsMissing, match=r"node .* holds no pipeline of diffusers"):
        check_files(there)
