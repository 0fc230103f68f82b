"""The paper this project began with, measured again: its networks, tables and figures."""
