"""Checkpoints that a user brings: recognised by what they hold, laid out as the stages expect them, checked without loading them.

``known`` says what can be told apart and where it belongs, ``find`` looks for it below a folder, ``layout`` puts it under one root, ``check`` tries
whether the stages would take it.
"""
