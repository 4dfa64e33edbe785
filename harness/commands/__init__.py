"""What each command of the CLI does, callable without it."""
