"""The resident video generator hands frames on while later ones are still being made."""

import asyncio
import threading
from dataclasses import replace

import numpy as np
import pytest
import tiny_pipeline as tiny

from svad_ray.cluster.serve_calls import resident_kit
from svad_ray.cluster.serve_config import ServeArgs
from svad_ray.cluster.serve_residents import AnimateResident
from svad_ray.config import Settings
from svad_ray.errors import BackendUnavailable
from svad_ray.fulfil import Kit
from svad_ray.pipeline import require_several
from svad_ray.subject import Animation, BodyTrack, Clip, Further, join_clips

TAKEN = threading.Event()  # whoever waits for the frames has some


class Streaming(tiny.Animate):
    """Makes its second block only when the first one has arrived."""

    def stream(self, photo, perception, *, progress):
        made = self(photo, perception, progress=progress)
        half = len(made.clip) // 2
        yield Animation(made.clip.slice(0, half), made.photo_track)
        if not TAKEN.wait(20):
            raise TimeoutError("the first block did not arrive before the second was made")
        yield Animation(made.clip.slice(half, len(made.clip)), made.photo_track)


class Failing(tiny.Animate):
    def stream(self, photo, perception, *, progress):
        yield from ()
        raise RuntimeError("no more memory")


def kit(kind):
    return Kit(make=lambda stage, config: kind(stage, config, lambda what: None), body_id=lambda settings: "tiny")


STREAMING, WHOLE, FAILING = kit(Streaming), kit(tiny.Animate), kit(Failing)


def parts_of(name):
    """Everything that the deployment yields for the tiny photo."""
    args = ServeArgs.model_validate({"kit": f"{__name__}:{name}", "animate": {"threads": 1}, "service": {"store": "memory://unused"}})

    async def take():
        resident, got = AnimateResident(args, "animate"), []
        async for part in resident(Settings().animate.model_copy(update={"frames": tiny.FRAMES}).model_dump(mode="json"), tiny.photo(), None, ()):
            got.append(part)
            if isinstance(part, Clip):
                TAKEN.set()
        return got

    return asyncio.run(take())


def test_the_first_block_arrives_before_the_second_is_made():
    TAKEN.clear()
    streamed, whole = parts_of("STREAMING"), parts_of("WHOLE")
    kinds = [type(part) for part in streamed]
    assert kinds.count(Clip) == 2 and kinds[-1] is BodyTrack and set(kinds) <= {float, Clip, BodyTrack}
    clips = [join_clips([part for part in parts if isinstance(part, Clip)]) for parts in (streamed, whole)]
    np.testing.assert_array_equal(clips[0].frames, clips[1].frames)
    assert len(clips[0]) == tiny.FRAMES


def test_a_failure_reaches_the_caller():
    try:
        parts_of("FAILING")
    except RuntimeError as error:
        assert "no more memory" in str(error)
    else:
        raise AssertionError("nothing was raised")


class Several(tiny.Animate):
    """Fits each further photo: its body is told apart by where it stands."""

    def __call__(self, photo, perception, *, also=(), progress):
        made = super().__call__(photo, perception, progress=progress)
        tracks = [replace(made.photo_track, transl=np.full((1, 3), one.photo.image.mean(), np.float32)) for one in also]
        return replace(made, also_tracks=tuple(tracks))


SEVERAL = kit(Several)


class Direct:
    """Calls a replica in this process."""

    def __init__(self, name):
        args = {"kit": f"{__name__}:{name}", "animate": {"threads": 1}, "service": {"store": "memory://unused"}}
        self.args = ServeArgs.model_validate(args)

    def streamed(self, name, take, *args):
        async def call():
            async for part in AnimateResident(self.args, name)(*args):
                take(part)

        asyncio.run(call())


def test_further_photos_reach_the_generator_and_their_bodies_come_back():
    config = Settings().animate.model_copy(update={"frames": tiny.FRAMES})
    further = [Further(replace(tiny.photo(), image=np.full((4, 4, 3), shade, np.uint8)), None) for shade in (10, 200)]
    stage = resident_kit(SEVERAL, Direct("SEVERAL")).make("animate", config)
    require_several(stage)
    alone = SEVERAL.make("animate", config)
    alone.setup()
    made, expected = stage(tiny.photo(), None, also=further), alone(tiny.photo(), None, also=further, progress=lambda done: None)
    np.testing.assert_array_equal(made.clip.frames, expected.clip.frames)
    assert [float(track.transl[0, 0]) for track in made.also_tracks] == [10.0, 200.0]
    np.testing.assert_array_equal(made.photo_track.transl, expected.photo_track.transl)
    assert stage(tiny.photo(), None).also_tracks == ()


def test_a_generator_of_one_photo_refuses_further_ones():
    stage = resident_kit(WHOLE, Direct("WHOLE")).make("animate", Settings().animate)
    with pytest.raises(BackendUnavailable, match="makes avatars of one photo"):
        stage(tiny.photo(), None, also=[Further(tiny.photo(), None)])
