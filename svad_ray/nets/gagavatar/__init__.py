"""GAGAvatar: one photo of a head -> 3D Gaussians -> images of that head under any pose and expression (SVAD section 3.2).

``sizes`` holds the numbers, ``dino`` the image features, ``features`` what is made of them, ``generators`` the Gaussians, ``geometry`` planes and
cameras, ``styleunet`` the last network, ``network`` all of them together; ``load`` reads the published checkpoint, ``tiny`` writes a rule-made one.
"""
