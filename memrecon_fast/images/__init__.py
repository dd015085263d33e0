"""Images from folders, arrays, Parquet files and data sets; masks from files; photographs for the demo."""
