"""Imports of other projects' data: files → rows (`files`) → records (`formats`, `records`) → the store (`storing`)."""
