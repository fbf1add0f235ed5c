"""HTML reports, Markdown summaries, tables, figures and pictures of results."""
