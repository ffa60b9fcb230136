"""Files that are copied to other servers; they run there, not here."""
