"""Networks that find and parse faces: RetinaFace and ParseNet, in the layout of their published checkpoints."""
