"""From a specification to a character."""

from __future__ import annotations

import numpy as np

from svad_ray.body.makehuman import MakeHuman
from svad_ray.evaluate.synthetic.character import Character
from svad_ray.evaluate.synthetic.garments import Layer, build_bottom, build_shoes, build_top, covered
from svad_ray.evaluate.synthetic.hair import build_hair
from svad_ray.evaluate.synthetic.mannequin import Mannequin, makehuman
from svad_ray.evaluate.synthetic.people import Person
from svad_ray.evaluate.synthetic.skin import build_eyes, build_skin

_COAT_GAP = 0.075  # metres, half of the coat's opening below the waist


def build(person: Person, *, data: MakeHuman | None = None) -> Character:
    """Dress a person.

    Args:
        data: MakeHuman's data; None = the model cache's.

    Returns:
        The character in the T zero pose. The same specification gives the same arrays.
    """
    body = Mannequin.of(person, data or makehuman())
    layers = _dress(body, person)
    hidden = covered(body, person.top, person.bottom, body.vertices)
    meshes = [build_skin(body, person, hidden), *build_eyes(body, person), *(mesh for layer in layers for mesh in layer.meshes)]
    meshes += [*build_shoes(body, person.shoe), *build_hair(body, person, np.concatenate([layer.points for layer in layers]))]
    return Character(person, meshes, body.joints)


def _dress(body: Mannequin, person: Person) -> list[Layer]:
    """Clothes from the inside out: each lies over what was put on before."""
    if person.tucked:
        layers = [build_top(body, person.top, "top", over=[])]
        layers.append(build_bottom(body, person.bottom, over=layers[:]))
    else:
        layers = [build_bottom(body, person.bottom, over=[])]
        layers.append(build_top(body, person.top, "top", over=layers[:]))
    if person.outer is not None:
        layers.append(build_top(body, person.outer, "outer", over=layers[:]))
    if person.coat is not None:
        layers.append(build_bottom(body, person.coat, over=layers[:], name="coat", gap=_COAT_GAP))
    return layers
