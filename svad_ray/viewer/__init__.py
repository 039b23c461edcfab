"""The avatar in a browser: in, a stored avatar and motions; out, a page of this machine that turns, plays and poses it.

``puppet`` poses (the same code as ``svad-ray animate``), ``page`` shows it with viser, whose page works without a network. Ours; the paper has no
viewer.
"""
