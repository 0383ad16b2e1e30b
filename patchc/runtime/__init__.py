"""The resources of a command: threads, memory, ranks and a device."""
