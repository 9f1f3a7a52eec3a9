"""The check of labelled pictures (``seewhy check``)."""
