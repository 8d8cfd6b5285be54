"""The bus: how processes of a cell talk to each other."""
