"""Training of encoders, prompts and self-explaining networks."""
