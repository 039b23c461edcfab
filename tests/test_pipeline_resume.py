"""Killed at any point and run again, a run ends with the same result, and does not repeat what was committed."""

import contextlib
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import tiny_pipeline

from svad_ray.config import AnimateConfig, Settings
from svad_ray.errors import StoreError
from svad_ray.local import LocalRunner
from svad_ray.pipeline import Stages
from svad_ray.store import ArtefactStore

PROGRAM = Path(__file__).with_name("tiny_pipeline.py")
ALL_CALLS = Counter(
    ["perceive whole", "animate whole", "identity reference", "fit whole", "avatar whole"]
    + [f"{stage} {first}" for stage in ("identity", "restore") for first in (0, 3, 6, 9)]
)


def execute(folder: Path, event: int) -> subprocess.CompletedProcess:
    command = [sys.executable, str(PROGRAM), str(folder), str(event)]
    return subprocess.run(command, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": str(PROGRAM.parent.parent)})


def contents(folder: Path) -> dict[str, str]:
    """Key -> hash of the manifest, which holds the hash of every file."""
    store = ArtefactStore(folder)
    return {str(key): store.committed(key).manifest_sha256 for key in store.committed_keys() if store.verify(key)}


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    folder = tmp_path_factory.mktemp("undisturbed") / "store"
    done = execute(folder, 0)
    assert done.returncode == 0, done.stderr
    assert Counter(folder.with_suffix(".log").read_text().split("\n")[:-1]) == ALL_CALLS
    return contents(folder), int(done.stdout)


@pytest.mark.parametrize("share", [0.02, 0.1, 0.3, 0.45, 0.55, 0.62, 0.7, 0.78, 0.85, 0.93, 1.0])
def test_killed_once_and_run_again(undisturbed, tmp_path, share):
    wanted, events = undisturbed
    folder = tmp_path / "store"
    killed = execute(folder, max(1, round(share * events)))
    assert killed.returncode == -9
    committed = contents(folder) if folder.exists() else {}
    assert committed.items() <= wanted.items()
    again = execute(folder, 0)
    assert again.returncode == 0, again.stderr
    assert contents(folder) == wanted
    calls = Counter(folder.with_suffix(".log").read_text().split("\n")[:-1])
    repeated = calls - ALL_CALLS
    assert calls.keys() == ALL_CALLS.keys() and sum(repeated.values()) <= 1, f"done twice: {repeated}"


def test_killed_again_and_again(undisturbed, tmp_path):
    wanted, _ = undisturbed
    folder = tmp_path / "store"
    for _ in range(40):
        done = execute(folder, 14)
        if done.returncode == 0:
            break
        assert done.returncode == -9
    assert done.returncode == 0, "a run that is killed every 14 events made no progress"
    assert contents(folder) == wanted


def test_a_finished_run_calls_nothing_and_remembers_what_it_cost(tmp_path):
    calls: list[str] = []
    first, _ = tiny_pipeline.run(tmp_path / "store", calls.append)
    made = len(calls)
    second, runner = tiny_pipeline.run(tmp_path / "store", calls.append)
    assert len(calls) == made
    assert np.array_equal(first.avatar.value.tensors["means"], second.avatar.value.tensors["means"])
    assert all(record.kept == record.blocks for record in runner.records.values())
    assert runner.records["identity"].blocks == 4 and runner.records["avatar"].usage.peak_gib > 0
    assert second.restored.value.remarks == tuple(f"fused {i}" for i in range(tiny_pipeline.FRAMES))


def test_blocks_give_the_same_clip_as_the_whole(tmp_path):
    created, _ = tiny_pipeline.run(tmp_path / "store", lambda what: None)
    stages: Stages = tiny_pipeline.stages(lambda what: None)
    stages.identity.setup()
    stages.restore.setup()
    clip = created.animation.value.clip
    reference = stages.identity.reference(created.photo, created.perception.value, created.animation.value.photo_track)
    whole = stages.restore(stages.identity(clip, reference), stages.restore.plan(clip.track))
    assert np.array_equal(whole.frames, created.restored.value.frames)


def test_another_version_or_parameter_makes_new_artefacts(tmp_path):
    tiny_pipeline.run(tmp_path / "store", lambda what: None)
    before = contents(tmp_path / "store")
    tiny_pipeline.Fit.version, kept = 2, tiny_pipeline.Fit.version
    try:
        tiny_pipeline.run(tmp_path / "store", lambda what: None)
    finally:
        tiny_pipeline.Fit.version = kept
    new = contents(tmp_path / "store").keys() - before.keys()
    assert sorted(key.split("/")[0] for key in new) == ["avatar", "fit"]


def test_a_damaged_artefact_stops_the_run_plainly(tmp_path):
    tiny_pipeline.run(tmp_path / "store", lambda what: None)
    ArtefactStore(tmp_path / "store")
    next((tmp_path / "store" / "perceive").rglob("arrays.safetensors")).write_bytes(b"damage")
    with pytest.raises(StoreError, match="was changed") as caught:
        tiny_pipeline.run(tmp_path / "store", lambda what: None)
    assert "remove" in caught.value.remedy


def test_an_interrupt_that_is_swallowed_still_stops_the_run():
    import signal

    from svad_ray import local
    from svad_ray.config import Settings

    before = signal.getsignal(signal.SIGINT)
    try:
        local.prepare(Settings(threads=1))
        with contextlib.suppress(KeyboardInterrupt):  # as a compiled package's callback does
            signal.raise_signal(signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            local.stop_if_interrupted()
        local.stop_if_interrupted()
    finally:
        signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize("name", ["dance.npz", "smplx_params/0.json"])
def test_a_motion_counts_by_its_content(tmp_path, name):
    """The same name with another motion in it is another artefact, be it a file or a folder of frames."""

    def key(folder: str, content: bytes) -> str:
        path = tmp_path / folder / name
        path.parent.mkdir(exist_ok=True, parents=True)
        path.write_bytes(content)
        motion = tmp_path / folder / name.split("/")[0]
        stage = tiny_pipeline.Animate("animate", AnimateConfig(motion=str(motion)), lambda what: None)
        runner = LocalRunner(ArtefactStore(tmp_path / "store"), Settings(), body_id="b")
        return str(runner._key("animate", stage, ["photo"]))

    first = key("a", b"walk")
    assert key("a", b"run") != first
    assert key("a", b"walk") == first


def test_stages_of_one_photo_refuse_several_before_any_work(tmp_path):
    from dataclasses import replace

    from svad_ray.errors import BackendUnavailable
    from svad_ray.local import LocalRunner
    from svad_ray.pipeline import create
    from svad_ray.store import ArtefactStore

    calls = []
    front = tiny_pipeline.photo()
    several = replace(front, also=(replace(front, name="back", sha256="1" * 64),))
    run = LocalRunner(ArtefactStore(str(tmp_path)), tiny_pipeline.settings())
    with pytest.raises(BackendUnavailable, match="'tiny' makes avatars of one photo"):
        create(several, tiny_pipeline.settings(), run, stages=tiny_pipeline.stages(calls.append))
    assert calls == []


class SeveralAnimate(tiny_pipeline.Animate):
    def __call__(self, photo, perception, *, also=(), progress):
        self.given = [one.photo.name for one in also]
        made = super().__call__(photo, perception, progress=progress)
        from dataclasses import replace

        return replace(made, also_tracks=tuple(tiny_pipeline.track(1) for _ in also))


class SeveralTrain(tiny_pipeline.Train):
    def __call__(self, *args, also=(), **options):
        self.given = [(one.photo.name, one.track is not None) for one in also]
        return super().__call__(*args, **options)


def test_several_photos_reach_the_stages_and_the_keys(tmp_path):
    from dataclasses import replace

    from svad_ray.config import override
    from svad_ray.errors import QualityRejected
    from svad_ray.local import LocalRunner
    from svad_ray.pipeline import create
    from svad_ray.store import ArtefactStore

    front = tiny_pipeline.photo()
    other = np.where(front.image < 255, 255 - front.image, 255).astype(np.uint8)
    settings = override(tiny_pipeline.settings(), {"photos.same_person": "off"})

    def made(photo):
        stages = replace(
            tiny_pipeline.stages(lambda what: None),
            animate=SeveralAnimate("animate", settings.animate, lambda what: None),
            avatar=SeveralTrain("avatar", settings.avatar, lambda what: None),
        )
        run = LocalRunner(ArtefactStore(str(tmp_path)), settings)
        created = create(photo, settings, run, stages=stages)
        return created, stages, run

    one, _, alone = made(front)
    two, stages, several = made(replace(front, also=(replace(front, name="back", image=other, sha256="1" * 64),)))
    assert stages.animate.given == ["back"] and stages.avatar.given == [("back", True)]
    assert len(two.further) == 1 and two.photo.also[0].name == "back" and one.further == ()
    assert alone.keys["perceive"] == several.keys["perceive"]  # a photo is looked at once, whatever it is together with
    assert alone.keys["animate"] != several.keys["animate"] and alone.keys["avatar"] != several.keys["avatar"]
    cut = other.copy()
    cut[-1, 20:100] = 0
    cut[200:, 10:110] = 0
    with pytest.raises(QualityRejected, match="'cut': the person runs into"):
        made(replace(front, also=(replace(front, name="cut", image=cut, sha256="2" * 64),)))
