"""What lies outside of flowc: files that others wrote, files that it writes, other people's code."""
