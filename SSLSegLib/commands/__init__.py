"""What the command line does, a file per command. Heavy imports wait until a command runs."""
