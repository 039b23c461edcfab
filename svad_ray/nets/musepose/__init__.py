"""MusePose: a photo and a sequence of drawn skeletons -> a clip of that person (SVAD section 3.1).

Built from diffusers' own UNets; what they lack is here: normalisation of each frame by itself, pose features after the first convolution, and
attention to a reference image. ``load`` reads the published checkpoints, ``sample`` runs them, ``tiny`` writes a small rule-made set for trials.
"""
