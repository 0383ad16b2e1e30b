"""What patchc does, one verb a module. The functions are exported by :mod:`patchc`."""
