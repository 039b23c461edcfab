"""ExAvatar's human model: Gaussians on a subdivided body, their offsets, scales and colours read from two triplanes by eight networks.

``mesh`` prepares the body (cavity, subdivision, regions), ``networks`` holds what is learned under its published names, ``model`` turns a pose
into Gaussians, ``snapshot`` reads and writes files. Source: ExAvatar (Moon et al. 2024) as SVAD 3.4 trains it.
"""
