"""``python -m bnnmcu``."""

from bnnmcu.cli.main import main

main()
