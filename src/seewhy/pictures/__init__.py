"""Find, read, crop and resize pictures, and read tables."""
