"""What a patch does to a model: recognise each chunk, take it across, check it, write it."""
