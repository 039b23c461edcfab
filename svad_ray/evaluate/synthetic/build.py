"""From a specification to a character."""

from __future__ import annotations

from svad_ray.body.makehuman import MakeHuman
from svad_ray.evaluate.synthetic.character import Character, Mesh
from svad_ray.evaluate.synthetic.garments import build_bottom, build_shoes, build_top, covered
from svad_ray.evaluate.synthetic.hair import build_hair
from svad_ray.evaluate.synthetic.mannequin import Mannequin, makehuman
from svad_ray.evaluate.synthetic.people import Person
from svad_ray.evaluate.synthetic.skin import build_eyes, build_skin


def build(person: Person, *, data: MakeHuman | None = None) -> Character:
    """Dress a person.

    Args:
        data: MakeHuman's data; None = the model cache's.

    Returns:
        The character in the T zero pose. The same specification gives the same arrays.
    """
    body = Mannequin.of(person, data or makehuman())
    clothes = _dress(body, person)
    hidden = covered(body, person.top, person.bottom, body.vertices)
    hair = build_hair(body, person, clothes)
    meshes = [build_skin(body, person, hidden), *build_eyes(body, person), *clothes, *build_shoes(body, person.shoe), *hair]
    return Character(person, meshes, body.joints)


def _dress(body: Mannequin, person: Person) -> list[Mesh]:
    """Clothes from the inside out: each lies over what was put on before."""
    if person.tucked:
        inner = build_top(body, person.top, "top", over=[])
        clothes = inner + build_bottom(body, person.bottom, over=inner[:1])
    else:
        bottom = build_bottom(body, person.bottom, over=[])
        clothes = bottom + build_top(body, person.top, "top", over=bottom)
    if person.outer is not None:
        clothes += build_top(body, person.outer, "outer", over=clothes)
    return clothes
