"""The file around the chunk bodies: prologue, index, metadata, trailer."""
