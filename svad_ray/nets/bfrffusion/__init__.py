"""BFRffusion: blind face restoration by Stable Diffusion 2.1, steered by features of the damaged face (SVAD section 3.3)."""
