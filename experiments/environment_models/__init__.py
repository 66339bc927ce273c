"""Fast generative environment models (Buesing et al. 2018, sections 2 and 4.1)."""
