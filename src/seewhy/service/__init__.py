"""The page, the service and exported graphs."""
