"""Pictures and tables of the user's: found, read safely, cut to size."""
