"""Who the synthetic people are: frozen specifications, a fixed cast, and a seeded generator of more."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np

from svad_ray.body.makehuman import Phenotype
from svad_ray.evaluate.synthetic.fabrics import Buttoned, Color, Denim, Dots, Material, Plaid, Printed, Shoe, Solid, Stripes, Trimmed

HairKind = Literal["none", "buzz", "short", "bob", "long"]
_KINDS: tuple[HairKind, ...] = ("short", "buzz", "bob", "long")


@dataclass(frozen=True)
class Top:
    """A garment of the upper body.

    Attributes:
        cloth: Its material.
        sleeve: Share of the arm that is covered, 0 = sleeveless, 1 = to the wrist.
        hem: Height of the lower edge above the pelvis joint, metres.
        neckline: Radius of the neck opening, metres.
        ease: How far the cloth stands off the body, metres.
        open_front: Half width of the opening down the front at the hem, metres; 0 = closed.
        collar: A turned-down collar in the cloth's own material.
    """

    cloth: Material
    sleeve: float = 0.42
    hem: float = -0.06
    neckline: float = 0.092
    ease: float = 0.012
    open_front: float = 0.0
    collar: bool = False


@dataclass(frozen=True)
class Bottom:
    """Trousers or a skirt.

    Attributes:
        cloth: Its material.
        kind: "trousers" or "skirt".
        length: 1 = to the ankle, 0.55 = to just above the knee (trousers); the same share of the leg for a skirt.
        waist: Height of the upper edge above the pelvis joint, metres.
        width: Radius of a trouser leg at its end, metres.
        flare: How far a skirt's hem stands off the base skirt, metres. folds: Depth of the folds that it falls in there, metres.
    """

    cloth: Material
    kind: Literal["trousers", "skirt"] = "trousers"
    length: float = 1.0
    waist: float = 0.10
    width: float = 0.075
    flare: float = 0.0
    folds: float = 0.0


@dataclass(frozen=True)
class HairStyle:
    """Hair: a shell on the scalp, and for "long" and "bob" a curtain that falls from it. ``volume`` multiplies the shell's thickness."""

    color: Color
    kind: HairKind = "short"
    volume: float = 1.0


@dataclass(frozen=True)
class Person:
    """Everything that makes one synthetic person; the same specification always builds the same character.

    Attributes:
        phenotype: Body shape (MakeHuman's macro parameters).
        skin, iris: RGB in [0, 1].
        top, bottom: What they wear; ``outer`` is worn over ``top``.
        tucked: The top goes under the bottom's waist.
        coat: A skirt open at the front that hangs from the waist over everything else: the lower half of a coat.
    """

    name: str
    phenotype: Phenotype
    skin: Color
    iris: Color
    hair: HairStyle
    top: Top
    bottom: Bottom
    shoe: Shoe
    outer: Top | None = None
    tucked: bool = False
    seed: int = 0
    local: dict[str, float] = field(default_factory=dict, hash=False)
    coat: Bottom | None = None


_USUAL = Phenotype(gender=1.0, age=0.15, muscle=0.5, weight=0.45, height=0.5, proportions=0.7, cup=0.4, firmness=0.6, race=(0.1, 0.1, 0.8))


def _body(**changes: object) -> Phenotype:
    return replace(_USUAL, **changes)  # type: ignore[arg-type]


_CAMEL: Color = (0.62, 0.47, 0.31)
PEOPLE: tuple[Person, ...] = (
    Person(
        name="striped shirt",
        phenotype=_body(muscle=0.65),
        skin=(0.87, 0.68, 0.56),
        iris=(0.25, 0.40, 0.50),
        hair=HairStyle((0.22, 0.14, 0.09)),
        top=Top(Trimmed(Stripes((0.75, 0.10, 0.12), (0.95, 0.95, 0.93)), (0.75, 0.10, 0.12), 0.013)),
        bottom=Bottom(Denim((0.16, 0.22, 0.38))),
        shoe=Shoe((0.15, 0.13, 0.12)),
    ),
    Person(
        name="long hair and skirt",
        phenotype=_body(gender=0.0, race=(0.8, 0.1, 0.1), weight=0.5),
        skin=(0.48, 0.31, 0.23),
        iris=(0.20, 0.12, 0.06),
        hair=HairStyle((0.06, 0.05, 0.05), "long"),
        top=Top(Solid((0.95, 0.78, 0.25)), sleeve=0.0, hem=0.085, ease=0.008, neckline=0.105),
        bottom=Bottom(Plaid((0.20, 0.45, 0.50), (0.90, 0.90, 0.90)), "skirt", length=0.93, waist=0.12),
        shoe=Shoe((0.60, 0.10, 0.15)),
        tucked=True,
        seed=1,
    ),
    Person(
        name="plaid shirt and shorts",
        phenotype=_body(age=0.6, race=(0.1, 0.8, 0.1), weight=0.65),
        skin=(0.83, 0.66, 0.50),
        iris=(0.20, 0.14, 0.10),
        hair=HairStyle((0.12, 0.11, 0.11)),
        top=Top(Buttoned(Plaid((0.25, 0.55, 0.35), (0.10, 0.10, 0.10)), (0.92, 0.90, 0.85)), sleeve=0.95, collar=True, ease=0.014, neckline=0.088),
        bottom=Bottom(Solid((0.70, 0.62, 0.45)), length=0.50, width=0.105),
        shoe=Shoe((0.30, 0.20, 0.12)),
        seed=2,
    ),
    Person(
        name="open jacket",
        phenotype=_body(age=0.35, weight=0.6, height=0.46, race=(0.85, 0.05, 0.10)),
        skin=(0.36, 0.23, 0.17),
        iris=(0.16, 0.10, 0.06),
        hair=HairStyle((0.05, 0.045, 0.045), "buzz"),
        top=Top(Solid((0.90, 0.89, 0.86)), hem=-0.03, ease=0.010),
        outer=Top(
            Trimmed(Solid((0.20, 0.27, 0.22)), (0.13, 0.18, 0.15), 0.022),
            sleeve=0.97,
            hem=-0.09,
            ease=0.022,
            open_front=0.075,
            collar=True,
            neckline=0.088,
        ),
        bottom=Bottom(Denim((0.34, 0.35, 0.38)), width=0.078),
        shoe=Shoe((0.72, 0.70, 0.66)),
        seed=3,
    ),
    Person(
        name="dotted dress",
        phenotype=_body(gender=0.0, age=0.3, weight=0.55, race=(0.05, 0.15, 0.80)),
        skin=(0.93, 0.76, 0.67),
        iris=(0.30, 0.42, 0.30),
        hair=HairStyle((0.55, 0.30, 0.13), "bob"),
        top=Top(Dots((0.96, 0.95, 0.92), (0.16, 0.22, 0.45)), sleeve=0.25, hem=0.09, ease=0.008, neckline=0.100),
        bottom=Bottom(Dots((0.96, 0.95, 0.92), (0.16, 0.22, 0.45)), "skirt", length=0.62, waist=0.125),
        shoe=Shoe((0.16, 0.22, 0.45)),
        tucked=True,
        seed=4,
    ),
    Person(
        name="heavy, printed shirt",
        phenotype=_body(age=0.4, weight=0.85, muscle=0.45, height=0.55, race=(0.3, 0.5, 0.2)),
        skin=(0.74, 0.55, 0.42),
        iris=(0.18, 0.12, 0.07),
        hair=HairStyle((0.10, 0.08, 0.07)),
        top=Top(Printed(Solid((0.85, 0.40, 0.18)), (0.97, 0.93, 0.82)), ease=0.016, hem=-0.09),
        bottom=Bottom(Plaid((0.42, 0.43, 0.48), (0.75, 0.74, 0.70), period=0.04, depth=(0.25, 0.2)), width=0.085),
        shoe=Shoe((0.25, 0.27, 0.32)),
        seed=5,
    ),
    Person(
        name="light, jacket and skirt",
        phenotype=_body(gender=0.0, age=0.55, weight=0.25, muscle=0.4, height=0.6, race=(0.1, 0.8, 0.1)),
        skin=(0.90, 0.74, 0.61),
        iris=(0.16, 0.10, 0.06),
        hair=HairStyle((0.30, 0.29, 0.29), "bob"),
        top=Top(Buttoned(Solid(_CAMEL), (0.20, 0.14, 0.09)), sleeve=0.97, hem=-0.07, ease=0.016, collar=True, neckline=0.088),
        bottom=Bottom(Solid(_CAMEL), "skirt", length=0.58, waist=0.115),
        shoe=Shoe((0.12, 0.10, 0.10), sole=(0.10, 0.09, 0.09)),
        seed=6,
    ),
)


def random_person(seed: int) -> Person:
    """A person drawn from a seed: body, skin, hair and clothes; the same seed gives the same person."""
    rng = np.random.default_rng([seed, 7919])
    woman = bool(rng.random() < 0.5)
    dark = float(rng.beta(1.2, 1.2))
    skin = _blend((0.93, 0.77, 0.67), (0.34, 0.22, 0.16), dark)
    skirt = woman and rng.random() < 0.4
    sleeve = float(rng.choice([0.0, 0.30, 0.42, 0.95] if woman else [0.42, 0.95]))
    top = Top(_cloth(rng), sleeve=sleeve, hem=0.085 if skirt else -0.06)
    hair = _blend((0.45, 0.30, 0.15), (0.05, 0.045, 0.04), max(dark, float(rng.random())))
    kind = _KINDS[int(rng.integers(2)) + (2 if woman else 0)]
    race = rng.dirichlet([0.6] * 3)
    return Person(
        name=f"random {seed}",
        phenotype=_body(
            gender=0.0 if woman else 1.0,
            age=float(rng.uniform(0.1, 0.7)),
            muscle=float(rng.uniform(0.35, 0.65)),
            weight=float(rng.uniform(0.25, 0.8)),
            height=float(rng.uniform(0.4, 0.55)),
            race=(float(race[0]), float(race[1]), float(race[2])),
        ),
        skin=skin,
        iris=_blend((0.30, 0.42, 0.48), (0.16, 0.10, 0.06), max(dark, float(rng.random()))),
        hair=HairStyle(hair, kind),
        top=top,
        bottom=_random_bottom(rng, skirt=skirt),
        shoe=Shoe(_hue(rng, 0.5)),
        tucked=bool(skirt),
        seed=seed,
    )


def _random_bottom(rng: np.random.Generator, *, skirt: bool) -> Bottom:
    if skirt:
        return Bottom(_cloth(rng), "skirt", float(rng.uniform(0.55, 0.9)), 0.12)
    if rng.random() < 0.5:
        return Bottom(Denim(_hue(rng, 0.4)), length=0.5, width=0.10)
    return Bottom(Denim(_hue(rng, 0.4)))


def _blend(a: Color, b: Color, share: float) -> Color:
    x, y, z = (float(p + (q - p) * share) for p, q in zip(a, b))
    return x, y, z


def _hue(rng: np.random.Generator, strength: float) -> Color:
    """A random colour, greyed so that it passes for dye."""
    grey, pure = rng.uniform(0.15, 0.85), rng.random(3)
    r, g, b = (float(np.clip(grey + strength * (c - 0.5), 0.04, 0.96)) for c in pure)
    return r, g, b


def _cloth(rng: np.random.Generator) -> Material:
    a, b = _hue(rng, 0.7), _hue(rng, 0.7)
    makers = (lambda: Solid(a), lambda: Stripes(a, b), lambda: Plaid(a, b), lambda: Dots(a, b), lambda: Trimmed(Solid(a), b))
    return makers[int(rng.integers(len(makers)))]()
