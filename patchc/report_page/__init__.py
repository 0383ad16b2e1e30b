"""The report page: one HTML file on a patch and its results, for who has to approve it."""
