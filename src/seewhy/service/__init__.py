"""Web pages, the HTTP service and exported graphs."""
