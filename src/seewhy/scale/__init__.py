"""Runs over many pictures with several processes and machines, with one Parquet file per shard."""
