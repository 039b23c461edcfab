"""The CPU rasteriser's compiled loops: covariance, projection, spherical harmonics, binning and compositing.

Arrays in, arrays out; everything is checked before it comes here. Gaussians keep their index ("id") until binning gives each
visible one its "rank" by depth. Compiled code is kept on disk, see `jit`.
"""
