"""Animate: one photo and what it shows -> a turn-around clip of the person (SVAD section 3.1).

In: ``Photo``, ``Perception``. Out: ``Animation``: the ``Clip`` (frames, masks, the driving ``BodyTrack`` with cameras) and the body fitted to
the photo itself. Backends: ``reprojection`` (embedded: fit the body, move its surface to the outline, project the photo, complete what is
unseen, render) and, in the paper's profile, ``musepose``.
"""
