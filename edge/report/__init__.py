"""What an exported model costs and keeps, for a reader: figures, text, JSON and one HTML page."""
