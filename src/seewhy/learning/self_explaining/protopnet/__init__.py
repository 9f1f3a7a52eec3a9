"""ProtoPNet: this looks like that."""
