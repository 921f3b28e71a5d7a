"""Documents that are translated: plain lines, JSON lines, tables and subtitles, read as units and written back."""
