"""Fit: the restored clip -> SMPL-X parameters of all its frames (SVAD section 3.3).

In: ``Clip``, the photo, its perception and its own fit. Out: ``BodyTrack`` with smoothed poses, the person's shape and clothes offsets.
Backends: ``landmarks`` (embedded) and, in the paper's profile, ``smplx``.
"""
