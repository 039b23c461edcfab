"""Identity stage: the photo's own face in every frame that shows one.

In: a clip (or a block of its frames) and the head reference made once from the photo. Out: the same frames, each either fused or kept as it was, with
the reason in ``remarks``; never one frame less. SVAD section 3.2: a 3D head of the person is rendered for every frame and fused by landmarks.

Backends: ``embedded`` (the photo's head lifted to 3D); ``fusion`` is the paper's own and shared by all.
"""
