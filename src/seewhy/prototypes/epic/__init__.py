"""EPIC: prototypes of the channels of a rotated feature map."""
