"""Whole-body pose of a picture, the skeleton drawn from it, and one person's motion brought onto another's proportions.

Coordinates of ``OpenPose`` are shares of the image's width and height; a missing point is -1.
"""
