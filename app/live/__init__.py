"""What is shown while it happens: progress, the event stream, who is at work. All of it may be lost."""
