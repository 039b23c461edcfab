"""Perceive: what a photo, or a frame of a clip, shows of one person.

In: ``Photo`` (or T frames). Out: ``Perception``: 133 COCO-WholeBody key points, the person's mask, 33 body landmarks in pixels and in metres,
the 468-point face mesh, both hands in metres. ``gates`` decides whether the photo is good enough for an avatar and tells a person why not.

Source: the paper takes key points from DWPose, masks from SAM, face landmarks from dlib and RetinaFace (spec: generation 2, 5, 6).
The embedded backend here reads MediaPipe's networks instead and does their pre- and post-processing itself.
"""
