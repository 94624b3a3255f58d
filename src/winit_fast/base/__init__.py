"""The lowest layer, without random numbers: arguments, dtypes, boxes, threads, file formats."""
