"""A body put into photos and clips: keypoints first (joints only), then the silhouette, then the clothed surface.

Everything here is shared by the animate stage (one photo) and the fit stage (all frames of a clip at once).
"""
