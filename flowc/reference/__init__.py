"""The pages and the schema that are generated from declarations."""
