"""Pictures that are wrong: labels, copies, strangers, faults of the picture itself, each with its reason."""
