"""GIST: fine-tuning on pictures with generated texts."""
