"""Where the monitoring was; registered models still import from here."""
