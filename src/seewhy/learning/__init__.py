"""Training encoders: objectives, adapting, pretraining, prompt learning and trained methods."""
