"""What ended a stage: its kind, the line of the log that decided, what to do next. Pure."""
