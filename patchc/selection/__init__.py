"""From scores and tuned weights to selected entries and their new values."""
