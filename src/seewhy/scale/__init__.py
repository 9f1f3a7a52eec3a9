"""Runs over many pictures, with several processes and machines: one Parquet file per part of the input."""
