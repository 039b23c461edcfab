"""The avatar in a browser: in, a stored avatar and motions; out, a page of this machine that turns, plays and poses it.

``scene`` says what the page is given, ``controls`` which sliders it shows, ``server`` hands it out, and ``page/`` is the page itself: plain
JavaScript and WebGL2 that skins and draws the Gaussians as ``svad-ray animate`` does. Ours; the paper has no viewer. See docs/viewer.md.
"""
