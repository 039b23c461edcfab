"""Evaluations of whole runs: people in, avatars made, pictures scored against the truth.

In: orders, one a subject, as plain data. Out: rows of figures with their protocol, tables, and the worst cases as pictures. What is measured and how
is ``svad_ray.evaluate``; here it is put to work on our own pipeline, or on anybody's pictures. The Ray layer runs the same orders elsewhere.
"""
