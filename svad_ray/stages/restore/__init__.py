"""Restore stage: sharper frames of the same person.

In: a clip (or a block of its frames) after the identity stage. Out: the same frames, as large or ``scale`` times larger, with the cameras of the
track scaled along; what was done to each frame is in ``remarks``. SVAD section 3.3 restores faces with BFRffusion and frames with Real-ESRGAN x2.

Backends: ``embedded`` (Real-ESRGAN's own weights on the head, within a stated time budget).
"""
