"""The statistics of a chunk that encoder and decoder share."""
