"""Before everything: a sentence, or a picture and a sentence, to the photo that an avatar is made of (SVAD, appendix B).

What comes in: a prompt, and for an edit the photo. What goes out: a photo of one whole person, as the gates of the perceive stage want it, drawn by a
pipeline of diffusers from a folder that the user brings.
"""
