"""One subject from photo to avatar: the stages in order, as plain code. Who reads this file understands the product.

A runner (``svad_ray.local``, ``svad_ray.cluster``) says where and when a step runs and keeps its result; this file says what follows from what.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from svad_ray.backends import EMBEDDED, STAGES
from svad_ray.config import Settings, StageConfig
from svad_ray.errors import BackendUnavailable
from svad_ray.stages.base import AnimateStage, AvatarStage, FitStage, IdentityStage, PerceiveStage, RestoreStage, Step, make
from svad_ray.store.keys import digest
from svad_ray.subject import Animation, Avatar, BodyTrack, Clip, Further, Perception, Photo

if TYPE_CHECKING:
    from svad_ray.stages.identity.drift import DriftGauge, FaceDrift
    from svad_ray.stages.identity.same_person import SamePerson

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)


class Result(Protocol[T_co]):
    """A step's result: its name now, its value when asked for (read from the store if it was made earlier)."""

    @property
    def key(self) -> str: ...

    @property
    def value(self) -> T_co: ...


class Runner(Protocol):
    """Runs steps and keeps what they make."""

    def whole(self, name: str, stage: Any, call: Callable[[Step], T], *, inputs: list[str]) -> Result[T]:
        """One call that makes one result. ``stage`` is set up first if the result is not there yet."""

    def frames(self, name: str, stage: Any, clip: Result[Clip], context: Result[Any]) -> Result[Clip]:
        """A clip frame block by frame block, each ``stage(shard, context)``, wherever that is best done, and kept by itself."""

    def part(self, whole: Result[Any], name: str, take: Callable[[Any], T]) -> Result[T]:
        """One field of a result."""


@dataclass(frozen=True)
class Created:
    """Everything that was made of one photo, or of several; values are read when asked for.

    ``photo`` is the one with the best face, ``photo.also`` are the others, and ``further`` is what those show.
    """

    photo: Photo
    perception: Result[Perception]
    warnings: tuple[str, ...]
    animation: Result[Animation]
    identity: Result[Clip]
    restored: Result[Clip]
    track: Result[BodyTrack]
    avatar: Result[Avatar]
    drift: Result[FaceDrift] | None = None
    further: tuple[Result[Perception], ...] = ()
    same_person: Result[SamePerson] | None = None


@dataclass(frozen=True)
class Stages:
    """One backend per stage, made but not set up."""

    perceive: PerceiveStage
    animate: AnimateStage
    identity: IdentityStage
    restore: RestoreStage
    fit: FitStage
    avatar: AvatarStage

    @classmethod
    def of(cls, settings: Settings, *, make: Callable[[str, StageConfig], Any] = make) -> Stages:
        """The backends that ``settings`` choose; ``make`` may make others."""
        return cls(**{stage: make(stage, settings.stage(stage)) for stage in STAGES})


@dataclass(frozen=True)
class Begun:
    """What is known once the clip is generated; ``person`` names everything that it was made of."""

    photo: Photo
    perception: Result[Perception]
    warnings: tuple[str, ...]
    animation: Result[Animation]
    person: list[str]
    further: tuple[Result[Perception], ...] = ()
    same_person: Result[SamePerson] | None = None


def begin(photo: Photo, settings: Settings, run: Runner, *, perceive: PerceiveStage, animate: AnimateStage) -> Begun:
    """See the person and generate the clip: the first part of ``create``, which raises the same."""
    if photo.also:
        require_several(animate)
    photo, looked, warnings = _look(photo, settings, run, perceive)
    seen, *further = looked
    same = _same_person(photo, looked, settings, run)
    also = [Further(one, found.value) for one, found in zip(photo.also, further)]
    if same is not None:
        warnings += same.value.check()
    person = [name for one, found in zip((photo, *photo.also), looked) for name in (digest(one.image), found.key)]
    more: dict[str, Any] = {"also": also} if also else {}
    animation = run.whole("animate", animate, lambda step: animate(photo, seen.value, progress=step.progress, **more), inputs=person)
    return Begun(photo, seen, warnings, animation, person, tuple(further), same)


def _look(photo: Photo, settings: Settings, run: Runner, perceive: PerceiveStage) -> tuple[Photo, list[Result[Perception]], tuple[str, ...]]:
    """Every photo looked at and judged; the one with the best face comes first, the others with it in ``also``."""
    from svad_ray.stages.identity.same_person import best_face
    from svad_ray.stages.perceive.gates import check_all

    photos = [replace(photo, also=()), *photo.also]
    seen: list[Result[Perception]] = []
    for number, one in enumerate(photos, 1):
        name = "perceive" if number == 1 else f"perceive-{number}"
        seen.append(run.whole(name, perceive, partial(_perceived, perceive, one), inputs=[digest(one.image)]))
    warnings = check_all(photos, [found.value for found in seen], largest=settings.perceive.largest, bust=settings.perceive.bust)
    best = best_face([found.value for found in seen]) if len(photos) > 1 else 0
    order = [best, *(k for k in range(len(photos)) if k != best)]
    first, *others = (photos[k] for k in order)
    return replace(first, also=tuple(others)), [seen[k] for k in order], warnings


def _perceived(perceive: PerceiveStage, photo: Photo, step: Step) -> Perception:
    return perceive(photo)


def _same_person(photo: Photo, seen: list[Result[Perception]], settings: Settings, run: Runner) -> Result[SamePerson] | None:
    """Whether several photos show one person, if that is asked for."""
    if not photo.also or settings.photos.same_person == "off":
        return None
    from svad_ray.stages.identity.same_person import PersonCheck

    gate, photos = PersonCheck(settings.photos), (photo, *photo.also)
    inputs = [name for one, found in zip(photos, seen) for name in (digest(one.image), one.name, found.key)]
    return run.whole("same-person", gate, lambda step: gate(photos, [found.value for found in seen]), inputs=inputs)


def require_several(stage: Any) -> None:
    """Raises BackendUnavailable for a stage that cannot take several photos."""
    if "also" not in inspect.signature(stage.__call__).parameters:
        raise BackendUnavailable(
            f"the {stage.backend.stage} backend '{stage.backend.name}' makes avatars of one photo",
            expected="one photo",
            remedy=f"leave the further photos out, or --set {stage.backend.stage}.backend={EMBEDDED[stage.backend.stage]}",
        )


def create(photo: Photo, settings: Settings, run: Runner, *, stages: Stages | None = None) -> Created:
    """Make the avatar of the person in ``photo``.

    Args:
        stages: Other stages than those that ``settings`` choose.

    Raises:
        QualityRejected: The photo does not show one whole person; the message says what to do.
        WeightsMissing, BackendUnavailable: A chosen backend cannot run here.
    """
    s, gauge = stages or Stages.of(settings), _gauge(settings)
    if photo is not None and photo.also:
        require_several(s.avatar)
    begun = begin(photo, settings, run, perceive=s.perceive, animate=s.animate)
    photo, seen, animation, person = begun.photo, begun.perception, begun.animation, begun.person
    clip = run.part(animation, "clip", lambda made: made.clip)
    photo_track = run.part(animation, "photo_track", lambda made: made.photo_track)

    head = run.whole(
        "identity-reference",
        s.identity,
        lambda step: s.identity.reference(photo, seen.value, photo_track.value),
        inputs=[*person, photo_track.key],
    )
    plan = run.whole("restore-plan", s.restore, lambda step: s.restore.plan(clip.value.track), inputs=[clip.key])
    fused = run.frames("identity", s.identity, clip, head)
    restored = run.frames("restore", s.restore, fused, plan)
    drift = None if gauge is None else _drift(gauge, run, photo, seen, {"generated": clip, "identity": fused, "restored": restored})

    person.append(photo_track.key)
    track = run.whole(
        "fit",
        s.fit,
        lambda step: s.fit(restored.value, photo, seen.value, photo_track.value, progress=step.progress),
        inputs=[restored.key, *person],
    )
    avatar = run.whole(
        "avatar",
        s.avatar,
        lambda step: s.avatar(
            restored.value, track.value, photo, seen.value, photo_track.value, progress=step.progress, checkpoint=step.checkpoint, **_also(begun)
        ),
        inputs=[restored.key, track.key, *person],
    )
    return Created(photo, seen, begun.warnings, animation, fused, restored, track, avatar, drift, begun.further, begun.same_person)


def _also(begun: Begun) -> dict[str, Any]:
    """The further photos with what they show and the body fitted to them, as a stage's argument; nothing for one photo."""
    if not begun.further:
        return {}
    tracks = begun.animation.value.also_tracks
    return {"also": [Further(one, seen.value, track) for one, seen, track in zip(begun.photo.also, begun.further, tracks, strict=True)]}


def _gauge(settings: Settings) -> DriftGauge | None:
    """What measures the face's drift, if that is asked for; whether it can is known before anything is generated."""
    if settings.drift.measure == "off":
        return None
    from svad_ray.stages.identity.dlib_faces import package
    from svad_ray.stages.identity.drift import DriftGauge

    package()
    return DriftGauge(settings.drift, body=settings.identity.body)


def _drift(gauge: DriftGauge, run: Runner, photo: Photo, seen: Result[Perception], clips: dict[str, Result[Clip]]) -> Result[FaceDrift]:
    measured = run.whole(
        "identity-drift",
        gauge,
        lambda step: gauge(photo, seen.value, {name: clip.value for name, clip in clips.items()}),
        inputs=[seen.key, *(clip.key for clip in clips.values())],
    )
    measured.value.check(gauge.config)
    return measured
