"""What a file may say, declared once: from a record's fields come its reader, its JSON Schema and its reference."""
