"""EPIC: prototypes of rotated channels."""
