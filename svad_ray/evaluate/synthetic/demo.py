"""The demo's input: a front photo of a person made on the spot, and the truth of every other view."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from svad_ray.evaluate.synthetic.build import build
from svad_ray.evaluate.synthetic.character import Character
from svad_ray.evaluate.synthetic.people import PEOPLE, Person, random_person
from svad_ray.evaluate.synthetic.poses import A_POSE, Pose
from svad_ray.evaluate.synthetic.render import Light, View, render
from svad_ray.subject import Photo

SIZE = (1024, 768)  # height, width of the photo
WALL, FLOOR = np.array([0.86, 0.87, 0.88], np.float32), np.array([0.74, 0.74, 0.73], np.float32)


@dataclass(frozen=True)
class DemoPerson:
    """A photo with its truth.

    Attributes:
        character: Who it shows. pose: How they stand.
        photo: The picture as the pipeline takes it; its hash is that of ``png``.
        png: The encoded file.
        view: The photo's own truth (mask, depth, camera, joints).
        light: Of the photo and of every other view; None = the studio's.
    """

    character: Character
    pose: Pose
    photo: Photo
    png: bytes
    view: View
    light: Light | None = None

    def truth(self, yaws: Sequence[float], *, size: int = 512, pitch: float = 0.0) -> list[View]:
        """The same person in the same pose on white, turned by each of ``yaws`` (radians), with the photo's camera scaled to ``size`` pixels."""
        focal = float(self.view.K[0, 0]) * size / SIZE[0]
        return [render(self.character, self.pose, yaw=yaw, pitch=pitch, size=(size, size), focal=focal, light=self.light) for yaw in yaws]


def demo_person(seed: int = 0) -> DemoPerson:
    """Person number ``seed`` of the cast, a random one beyond it, photographed from the front before a plain wall."""
    person = PEOPLE[seed] if 0 <= seed < len(PEOPLE) else random_person(seed)
    return photographed(person, f"person{seed}")


def photographed(person: Person, name: str, *, pose: Pose = A_POSE, light: Light | None = None) -> DemoPerson:
    """A person from the front before the same plain wall, with the truth."""
    character = build(person)
    view = render(character, pose, size=SIZE, background=_studio(*SIZE), light=light)
    done, png = cv2.imencode(".png", np.ascontiguousarray(view.image[..., ::-1]))
    data = png.tobytes() if done else b""
    photo = Photo(name, view.image, hashlib.sha256(data).hexdigest(), (f"made by svad-ray: {person.name}",))
    return DemoPerson(character, pose, photo, data, view, light)


def _studio(height: int, width: int) -> np.ndarray:
    """(H, W, 3) a softly graded paper backdrop, darker at the foot and in the corners."""
    y = np.linspace(0, 1, height, dtype=np.float32)[:, None]
    x = np.linspace(-1, 1, width, dtype=np.float32)[None]
    blend = 1 / (1 + np.exp(-(y - 0.86) / 0.03))[..., None]
    corner = 1 - 0.06 * (x**2 + (2 * y - 1) ** 2)[..., None]
    return (WALL * (1 - blend) + FLOOR * blend) * corner
