"""Serving configurations and the lane of resident deployments; no Ray needed."""

import asyncio
import json
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tiny_pipeline as tiny
import yaml
from pydantic import ValidationError
from ray.serve.schema import ServeDeploySchema

from svad_ray.cluster.config import selector
from svad_ray.cluster.serve_config import ServeArgs
from svad_ray.cluster.serve_preflight import asks
from svad_ray.cluster.serve_residents import Call, Lane, Mark, continues, run_together, together
from svad_ray.cluster.serve_run import read_plan
from svad_ray.config import Settings
from svad_ray.errors import ConfigError, InputError
from svad_ray.subject import Clip

CONFIGS = Path(__file__).parents[2] / "serve_configs"
FILES = sorted(CONFIGS.glob("*.yaml"))


def test_the_files_are_there():
    assert [path.name for path in FILES] == ["autoscale.yaml", "embedded.yaml", "gpu-1.yaml"]


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_every_file_is_what_serve_and_the_application_expect(path):
    from svad_ray.cluster.serving import APP, build

    schema = ServeDeploySchema.model_validate(yaml.safe_load(path.read_text()))
    (application,) = schema.applications
    assert (application.name, application.import_path, application.route_prefix) == (APP, "svad_ray.cluster.serving:build", "/")
    assert schema.http_options.host == "127.0.0.1", "private by default"
    args = ServeArgs.model_validate(application.args)
    assert args.service.require_tokens and args.service.tokens_file
    plan = read_plan(path, {}, {})
    assert plan.args == args and plan.url == "http://127.0.0.1:8000"
    deployments = {one.name: one for one in _deployments(build(args.model_copy(update={"preflight": False})))}
    assert deployments.keys() == {"gateway", "conductor", "perceive", "animate", "frames-identity", "frames-restore", "renderer"}
    for name, numbers in args.deployments.items():
        made = deployments[name]
        assert made.max_queued_requests == numbers.max_queued_requests
        assert made._deployment_config.backpressure_config.status_code == 429
        assert made.ray_actor_options["num_cpus"] == numbers.cpus


def _deployments(application):
    """Every deployment of an application, through the arguments that bind them."""
    found, waiting = [], [application]
    while waiting:
        one = waiting.pop()
        deployment = one._bound_deployment
        found.append(deployment)
        for value in (*deployment.init_args, *deployment.init_kwargs.values()):
            waiting += [part for part in (value.values() if isinstance(value, dict) else [value]) if hasattr(part, "_bound_deployment")]
    return found


def test_without_a_file_it_is_the_embedded_one():
    assert read_plan(None, {}, {}).args == read_plan(CONFIGS / "embedded.yaml", {}, {}).args


@pytest.mark.parametrize(("name", "cpus", "gpus"), [("embedded", 2, 0), ("gpu-1", 8, 1)])
def test_what_a_file_asks_for_fits_where_it_says(name, cpus, gpus):
    wanted = asks(read_plan(CONFIGS / f"{name}.yaml", {}, {}).args)
    assert sum(ask.copies * ask.resources["CPU"] for ask in wanted) <= cpus
    assert sum(ask.copies * ask.resources["GPU"] for ask in wanted) <= gpus + 1e-9


def test_pools_of_the_autoscaled_file_are_apart():
    args = read_plan(CONFIGS / "autoscale.yaml", {}, {}).args
    assert {numbers.label for numbers in args.deployments.values()} == {"svad/pool=online"} and args.conducting.label == "svad/pool=bulk"
    assert all(numbers.autoscaling_config for numbers in args.deployments.values())
    assert selector("svad/pool=bulk") == {"svad/pool": "bulk"} and selector("") == {}


def test_a_deployment_in_part_keeps_its_other_defaults():
    args = ServeArgs.model_validate({"service": {"store": "/x"}, "animate": {"cpus": 4}, "conducting": {"training": {"cpus": 3}}})
    defaults = ServeArgs.model_validate({"service": {"store": "/x"}})
    assert args.animate == defaults.animate.model_copy(update={"cpus": 4.0}) and args.animate.hung_s == 7200
    assert args.conducting.training.cpus == 3 and args.conducting.training.at_once == defaults.conducting.training.at_once


@pytest.mark.parametrize(
    "values",
    [{"service": {"store": "somewhere"}}, {"service": {"store": "/x"}, "animat": {}}, {"service": {"store": "/x"}, "animate": {"cpu": 1}}, {}],
)
def test_what_cannot_be_is_refused(values):
    with pytest.raises(ValidationError):
        ServeArgs.model_validate(values)


@pytest.mark.parametrize(
    ("text", "kind", "words"),
    [
        ("applications: [{import_path: 'a:b'}]", ConfigError, "not for one application"),
        ("applications: 3", ConfigError, "applications"),
        ("[1", ConfigError, "not YAML"),
        ("- 1", ConfigError, "holds a list"),
        ("applications: [{import_path: 'svad_ray.cluster.serving:build', args: {service: {store: /x}, typo: 1}}]", ConfigError, "typo"),
        (None, InputError, "cannot be read"),
    ],
)
def test_a_bad_file_is_told_plainly(tmp_path, text, kind, words):
    path = tmp_path / "serve.yaml"
    if text is not None:
        path.write_text(text)
    with pytest.raises(kind, match=words):
        read_plan(path, {}, {})


def test_the_command_line_wins(tmp_path):
    given = {"store": str(tmp_path), "tokens_file": str(tmp_path / "t.json"), "port": 8123, "host": "0.0.0.0"}
    plan = read_plan(CONFIGS / "embedded.yaml", given, {"offline": True})
    assert plan.args.service.store == str(tmp_path) and plan.args.settings.offline and plan.url == "http://0.0.0.0:8123"
    assert plan.args.settings == Settings(offline=True)


# the lane -------------------------------------------------------------------------------------------------------------------------------------


def test_lane_keeps_the_order_and_one_thread():
    done = []

    def work(number):
        done.append((number, threading.get_ident()))
        time.sleep(0.005)
        return number

    async def run():
        lane = Lane(hung_s=60)
        setting_up = lane.now(threading.get_ident)
        values = await asyncio.gather(*(lane(lambda i=i: work(i)) for i in range(8)))
        return setting_up, values

    setting_up, values = asyncio.run(run())
    assert values == list(range(8)) and [number for number, _ in done] == values
    assert {thread for _, thread in done} == {setting_up} and setting_up != threading.get_ident()


def test_marks_say_whether_a_dead_replica_was_at_work_on_a_call(tmp_path):
    """Asked from the store by another process than the one that died."""
    code = "import os, sys; from svad_ray.cluster.serve_residents import Mark, marked; m = lambda name: Mark(sys.argv[1], name)\n"
    code += "with marked(m('done'), None): pass\nwith marked(m('fatal'), m('company')): os.kill(os.getpid(), 9)"
    assert subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=False).returncode == -9
    assert [Mark(str(tmp_path), name).left() for name in ("done", "waiting", "fatal", "company", "fatal")] == [False, False, True, True, False]
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_lane_fails_one_call_and_goes_on():
    def bad():
        raise InputError("scripted")

    async def run():
        lane = Lane(hung_s=60)
        return await asyncio.gather(lane(lambda: 1), lane(bad), lane(lambda: 3), return_exceptions=True)

    one, error, three = asyncio.run(run())
    assert (one, three) == (1, 3) and isinstance(error, InputError)


def test_lane_reports_a_call_that_hangs():
    gate = threading.Event()

    async def run():
        lane = Lane(hung_s=0.05)
        lane.check()
        work = asyncio.ensure_future(lane(lambda: gate.wait(10)))
        await asyncio.sleep(0.3)
        with pytest.raises(RuntimeError, match="has not ended"):
            lane.check()
        gate.set()
        await work
        lane.check()

    asyncio.run(run())


def clip(frames=12):
    rng = np.random.default_rng(1)
    images = rng.integers(0, 255, (frames, 20, 10, 3)).astype(np.uint8)
    return Clip(images, images[..., 0], tiny.track(frames), ("",) * frames)


def test_blocks_of_a_clip_that_wait_together_run_together():
    whole, other = clip(), replace(clip(), frames=clip().frames[::-1].copy())
    plan, config = (0, 3, 6), {"seed": 1}
    blocks = {start: Call(config, whole.slice(start, start + 3), plan) for start in (0, 3, 6, 9)}
    another = Call(config, replace(other.slice(3, 6), track=replace(other.slice(3, 6).track, betas=np.ones(10, np.float32))), plan)
    waiting = [blocks[3], blocks[9], another, blocks[6], blocks[0]]
    assert continues(blocks[0], blocks[3]) and not continues(blocks[0], another) and not continues(blocks[3], blocks[0])
    assert not continues(blocks[0], blocks[3]._replace(config={"seed": 2})) and not continues(blocks[0], blocks[3]._replace(context=(1,)))
    for batch, chosen in {1: [0], 5: [0], 6: [0, 3], 9: [0, 3, 1], 100: [0, 3, 1]}.items():
        assert together(waiting, lambda config, batch=batch: batch) == chosen
    assert together([lambda: None, blocks[0]], lambda config: 100) == [0]


def test_lane_runs_blocks_of_frames_in_company():
    """Through the lane itself, with a backend that takes two blocks at a time; and a choice that fails is no end of the lane."""
    whole, seen = clip(), []
    stage = tiny.Restore("restore", Settings().restore, lambda what: seen.append(what))
    stage.setup()

    async def run(choose):
        lane = Lane(hung_s=60, together=choose, run=lambda calls: run_together(lambda config: stage, calls))
        blocks = [Call({}, whole.slice(start, start + 3), (0,)) for start in (0, 3, 6, 9)]
        return await asyncio.wait_for(asyncio.gather(*map(lane, blocks)), 30)

    made = asyncio.run(run(lambda waiting: together(waiting, lambda config: 6)))
    assert [block.first for block in made] == [0, 3, 6, 9] and [len(block) for block in made] == [3] * 4
    assert len([what for what in seen if what]) == 2
    assert len(asyncio.run(run(lambda waiting: 1 // 0))) == 4


def test_a_block_gets_the_same_frames_in_company_and_alone():
    whole, plan, seen = clip(), (1, 4, 7), []
    stage = tiny.Restore("restore", Settings().restore, lambda what: seen.append(what))
    stage.setup()
    calls = [Call({}, whole.slice(start, start + 4), plan) for start in (0, 4, 8)]
    alone = [run_together(lambda config: stage, [call])[0] for call in calls]
    seen.clear()
    joined = run_together(lambda config: stage, calls)
    assert [what for what in seen if what] == ["restore 0"], "they did not run as one"
    for one, other in zip(alone, joined, strict=True):
        assert one.first == other.first and one.remarks == other.remarks
        np.testing.assert_array_equal(one.frames, other.frames)
        np.testing.assert_array_equal(one.track.transl, other.track.transl)


def test_tokens_of_the_command_line(tmp_path):
    from typer.testing import CliRunner

    from svad_ray.cli import app
    from svad_ray.service.tokens import Tokens

    file, runner = tmp_path / "tokens.json", CliRunner()
    made = runner.invoke(app, ["serve", "token", "add", "anna", "--token-file", str(file), "--open-avatars", "2"])
    token = made.stdout.strip()
    assert made.exit_code == 0 and Tokens(file).check(token).open_avatars == 2
    assert token.rsplit("_", 1)[-1] not in file.read_text() and json.loads(file.read_text())["tokens"][0]["name"] == "anna"
    listed = runner.invoke(app, ["serve", "token", "list", "--token-file", str(file)]).stdout
    assert "anna" in listed and token not in listed
    assert runner.invoke(app, ["serve", "token", "remove", "anna", "--token-file", str(file)]).exit_code == 0
    assert Tokens(file).check(token) is None
    assert isinstance(runner.invoke(app, ["serve", "token", "remove", "anna", "--token-file", str(file)]).exception, InputError)
