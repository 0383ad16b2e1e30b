"""What a model does with requests: replies, judged, counted, with intervals."""
