"""EPIC: prototypes of channels after a rotation of the feature map."""
