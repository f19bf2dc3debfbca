"""What leaves the tool: submissions, mask files, pictures."""
