"""From a source of changes to a patch file: chunks are read, compared, coded and put together."""
