"""What figures on synthetic people cannot say; printed under every table of them."""

from __future__ import annotations

LIMITS = (
    "Synthetic people flatter: base mesh, rig and skinning weights are those of the open body that is fitted, so part of the error of fitting and "
    "skinning cannot show. Compare versions with these figures, not papers.",
    "Cloth and hair are surfaces without strands, wind or layers that slide; hands are open and hold nothing; one person, on a plain ground, sharp.",
)
