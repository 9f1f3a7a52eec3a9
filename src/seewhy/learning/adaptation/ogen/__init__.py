"""OGEN: a prompt that also learns from features made for classes without pictures."""
