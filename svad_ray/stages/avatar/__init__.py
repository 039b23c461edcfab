"""Avatar: the restored clip and the fitted track -> an animatable 3D Gaussian avatar (SVAD section 3.4).

In: ``Clip``, ``BodyTrack``, the photo with its own fit. Out: ``Avatar``. Backends: ``gaussian`` (flat Gaussians scattered by area on the
clothed surface, bound by skinning weights) and, in the paper's profile, ``exavatar``.
"""
