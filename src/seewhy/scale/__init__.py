"""Many pictures, several processes and machines: a folder of Parquet files, one for each part of the input."""
