"""How the open body is made from MakeHuman's CC0 data: sampled people, their shape space, joints, expressions and face points."""
