"""What a command runs on: threads, memory, ranks, a device."""
