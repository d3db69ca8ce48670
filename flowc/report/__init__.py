"""What a spec or a build is made of, what differs between two, what this machine can do. Nothing is written."""
